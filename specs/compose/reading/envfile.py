"""Read ``.env`` and ``env_file`` syntax, as Docker's page "Set environment variables" has it.

Pure: text in, variables out. ``lookup`` answers for variables outside the file and
is asked before the lines above, as Compose does. The ``raw`` format knows neither
quotes nor variables.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from specs.compose.reading.interpolate import Substitution, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPORT = re.compile(r"export\s+")
_ESCAPE = re.compile(r'\\(?:[abcfnrtv$"\\]|0\d{0,3})')
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_BLANKS = "\t\v\f\r \x85\xa0"


class EnvFileError(ValueError):
    """A line that cannot be read; ``line`` counts from 1."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


def text_of(data: bytes) -> str:
    """Return a file's text; EnvFileError with its line where it is not UTF-8.

    What is not would reach containers as other bytes than were written, if at all.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text: byte 0x{data[error.start]:02x} makes no character"
        raise EnvFileError(line, message, "save it as UTF-8") from None


class EnvFile:
    """The variables of one file, in order, with the line each was set on."""

    def __init__(
        self,
        text: str,
        lookup: Callable[[str], str | None],
        known: dict[str, str] | None = None,
    ) -> None:
        self.values: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        self.unset: list[tuple[int, str]] = []
        self._lookup = lookup
        self._known = known or {}
        self._text = text.removeprefix("\ufeff")
        self._at = 0
        self._counted = (0, 1)  # offset and its line
        self._read()

    def get(self, name: str) -> str | None:
        """Return what ``${name}`` means inside this file."""
        value = self._lookup(name)
        if value is None:
            value = self.values.get(name, self._known.get(name))
        return value

    def source(self, name: str) -> str:
        """Return where a variable comes from; only noted, never shown."""
        return name

    def _read(self) -> None:
        text = self._text
        while True:
            while self._at < len(text) and text[self._at].isspace():
                self._at += 1
            if self._at >= len(text):
                return
            if text[self._at] == "#":
                self._at = self._line_end(self._at)
                continue
            self._statement()

    def _line_end(self, start: int) -> int:
        end = self._text.find("\n", start)
        return len(self._text) if end < 0 else end

    def _line(self, at: int) -> int:
        before, line = self._counted
        if at < before:
            before, line = 0, 1
        line += self._text.count("\n", before, at)
        self._counted = (at, line)
        return line

    def _statement(self) -> None:
        start = self._at
        key, inherited = self._key()
        if " " in key:
            raise EnvFileError(
                self._line(start), f"the variable name {key!r} contains a space", "write NAME=value"
            )
        if inherited:
            value = self._lookup(key)
            if value is not None:
                self._set(key, value, start)
            return
        self._set(key, self._value(), start)

    def _set(self, key: str, value: str, at: int) -> None:
        self.values[key] = value
        self.lines[key] = self._line(at)

    def _key(self) -> tuple[str, bool]:
        text = self._text
        found = _EXPORT.match(text, self._at)
        if found:
            self._at += len("export")
            self._skip_blanks()
            if self._at == len(text):
                raise EnvFileError(self._line(self._at), "export names no variable")
        start = self._at
        for at in range(start, len(text)):
            char = text[at]
            if char in _BLANKS:
                continue
            if char in "=:\n":
                self._at = at + 1
                self._skip_blanks()
                return text[start:at].rstrip(), char == "\n"
            if char in "_.-[]" or char.isalpha() or char.isnumeric():
                continue
            line = text[start : self._line_end(start)]
            raise EnvFileError(
                self._line(at),
                f"unexpected character {char!r} in variable name {line!r}",
                "names are letters, digits, '_', '.', '-', '[' and ']'",
            )
        # the last line, without "=" and newline: Compose reads a name and an empty rest forever
        self._at = len(text)
        return text[start:].rstrip(), True

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _BLANKS:
            self._at += 1

    def _value(self) -> str:
        text = self._text
        quote = text[self._at : self._at + 1]
        if quote in ("'", '"') and quote:
            return self._quoted(quote)
        start = self._at
        end = self._line_end(start)
        self._at = min(end + 1, len(text))
        value = text[start:end].partition(" #")[0].rstrip()
        return self._expand(value, start)

    def _quoted(self, quote: str) -> str:
        text = self._text
        start = self._at
        chars: list[str] = []
        escaped = False
        for at in range(start + 1, len(text)):
            char = text[at]
            if char != quote:
                if char == "\\" and not escaped:
                    escaped = True
                    continue
                if escaped:
                    escaped = False
                    chars.append("\\")
                chars.append(char)
                continue
            if escaped:
                escaped = False
                chars.append(char)
                continue
            self._at = at + 1
            value = "".join(chars)
            if quote == '"':
                value = self._expand(_ESCAPE.sub(_unescape, value), start)
            return value
        line = text[start : self._line_end(start)]
        raise EnvFileError(
            self._line(start), f"the quoted value {line} is not closed", f"add a {quote} at its end"
        )

    def _expand(self, value: str, at: int) -> str:
        if "$" not in value:
            return value
        substitution = Substitution(self)
        try:
            result = substitution.text(value)
        except TemplateError as error:
            raise EnvFileError(self._line(at), str(error), error.hint) from None
        self.unset.extend((self._line(at), name) for name in substitution.unset)
        return result


def _unescape(found: re.Match[str]) -> str:
    escape = found[0]
    char = escape[1]
    if char == "$":
        return "$$"
    if char in _SIMPLE:
        return _SIMPLE[char]
    if char in '"\\':
        return char
    digits = escape[2:]
    if char == "0" and len(digits) == 3 and all(d in "01234567" for d in digits):
        value = int(digits, 8)
        return chr(value) if value < 256 else escape
    return escape


def parse_raw(text: str, lookup: Callable[[str], str | None]) -> dict[str, str]:
    """Return the variables of a file in ``raw`` format: ``KEY=VALUE`` lines taken literally."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        key, found, value = stripped.partition("=")
        if not key:
            raise EnvFileError(number, f"no variable name in {line!r}", "write NAME=value")
        if any(char.isspace() for char in key):
            raise EnvFileError(number, f"the variable name {key!r} contains blanks")
        if found:
            values[key] = value
        else:
            inherited = lookup(key)
            if inherited is not None:
                values[key] = inherited
    return values
