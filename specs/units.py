"""Durations, sizes, numbers and words as Compose files write them.

The grammar is the one Docker's tools accept (the Compose specification and
compose-go): durations with d and w, sizes in powers of 1024, command strings split like a
shell. Pure; raises ``ValueError`` with a sentence for the user (``BadValue``
with advice), nothing else.
"""

from __future__ import annotations

import re
import struct

from specs.problems import BadValue

_NANO = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_MAX_INT64 = (1 << 63) - 1
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_SIZE_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DIGITS = r"[0-9](?:_?[0-9])*"
_FLOAT = re.compile(
    rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?\Z"
)
_TRUE = frozenset({"true", "y", "yes", "on"})
_FALSE = frozenset({"false", "n", "no", "off"})
_OPERATORS = frozenset(";&|<>")
_PLAIN_DIGITS = 6  # from 10**6 on, numbers are printed with an exponent


def parse_duration(text: str) -> int:
    """Return nanoseconds: ``1m30s``, ``1.5h``, ``2d``, ``0``; a bare number is refused."""
    at = 1 if text[:1] in ("-", "+") else 0
    if text[at:] == "0":
        return 0
    if at == len(text):
        raise BadValue(
            f"{text!r} is not a duration", "write a number with a unit, like 90s or 1m30s"
        )
    total = 0
    while at < len(text):
        found = _DURATION_PART.match(text, at)
        assert found is not None  # every part of the pattern is optional
        whole, fraction, unit = found.groups("")
        if not whole and not fraction:
            raise BadValue(f"{text!r} is not a duration", "write numbers with units, like 1m30s")
        if not unit:
            raise BadValue(f"the duration {text!r} has no unit", f"write {text}s for seconds")
        scale = _NANO.get(unit)
        if scale is None:
            raise BadValue(
                f"{unit!r} in {text!r} is no unit of time", "use ns, us, ms, s, m, h, d or w"
            )
        total += int(whole or "0") * scale
        if fraction:
            total += int(int(fraction[:18]) * (scale / 10 ** len(fraction[:18])))
        if total > _MAX_INT64:
            raise ValueError(f"the duration {text!r} is too long")
        at = found.end()
    return -total if text[0] == "-" else total


def format_duration(nanoseconds: int) -> str:
    """Return the duration as Go prints it: ``1m30s``, ``24h0m0s``, ``1.5s``, ``0s``."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < 1_000_000_000:
        for scale, unit in ((1_000_000, "ms"), (1_000, "\u00b5s"), (1, "ns")):
            if left >= scale:
                return f"{sign}{_fraction(left, scale)}{unit}"
    minutes, seconds = divmod(left, 60_000_000_000)
    text = f"{_fraction(seconds, 1_000_000_000)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _fraction(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def parse_size(text: str) -> int:
    """Return bytes: ``512m``, ``1.5 GiB``, ``1024``, ``-1`` (unlimited)."""
    if _INTEGER.match(text):
        return _int64(int(text), text)
    last = max((i for i, c in enumerate(text) if c in "0123456789. "), default=-1)
    if last == -1:
        raise BadValue(f"{text!r} is not a size", "write bytes, or a number with k, m, g, t or p")
    number, suffix = text[: last + (text[last] != " ")], text[last + 1 :].lower()
    try:
        amount = parse_float(number)
    except ValueError:
        raise BadValue(f"{text!r} is not a size", "write a number with k, m, g, t or p") from None
    if amount < 0:
        raise BadValue(f"the size {text!r} is negative", "only -1 (unlimited) may be")
    if suffix not in ("", "b"):
        scale = _SIZE_UNITS.get(suffix[0])
        if scale is None or suffix[1:] not in ("", "b", "ib"):
            raise BadValue(f"{suffix!r} in {text!r} is no unit of size", "use b, k, m, g, t or p")
        amount *= scale
    return _int64(amount, text)


def _int64(amount: float, text: str) -> int:
    if not -_MAX_INT64 - 1 <= amount <= _MAX_INT64:
        raise BadValue(f"the size {text!r} is too large", "write a size like 64m or 1g")
    return int(amount)


def parse_int(text: str) -> int:
    """Return a decimal integer with optional sign, nothing else around it."""
    if not _INTEGER.match(text) or not text.isascii():
        raise ValueError(f"{text!r} is not a whole number")
    value = int(text)
    if not -_MAX_INT64 - 1 <= value <= _MAX_INT64:
        raise ValueError(f"{text!r} is too large a number")
    return value


def parse_float(text: str) -> float:
    """Return a decimal number; infinities and not-a-number make no sense in a model."""
    if not _FLOAT.match(text) or not text.isascii():
        raise BadValue(f"{text!r} is not a number", "write one like 0.5 or 2")
    value = float(text)  # which takes the same underscores
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text!r} is too large a number")
    return value


def parse_bool(text: str) -> bool:
    """Return true for true/yes/on/y in any case, false for their opposites."""
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def float32(value: float) -> float | int:
    """Return the shortest number that reads back as the same 32-bit float."""
    try:
        packed = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        raise ValueError(f"{value!r} is too large a number") from None
    if packed in (float("inf"), float("-inf")):
        raise BadValue(f"{value!r} is too large a number", "write a smaller one")
    for digits in range(1, 10):
        shortest = float(f"{packed:.{digits}g}")
        if struct.unpack("f", struct.pack("f", shortest))[0] == packed:
            return int(shortest) if shortest.is_integer() and abs(shortest) < 1e15 else shortest
    return float(packed)


def format_number(value: float) -> str:
    """Return the text a number has when Compose turns it into a string: 1e6 is ``1e+06``."""
    if isinstance(value, int):
        return str(value)
    shown = repr(value)
    sign, shown = ("-", shown[1:]) if shown[0] == "-" else ("", shown)
    mantissa, _, power = shown.partition("e")
    whole, _, fraction = mantissa.partition(".")
    if not whole.isdigit():
        return {"inf": f"{sign or '+'}Inf"}.get(shown, "NaN")
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) + len(whole) - 1 - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0"
    if exponent < -4 or exponent >= _PLAIN_DIGITS:
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, rest = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{rest}" if rest else sign + whole


def split_words(line: str) -> list[str]:
    """Split a command string at blanks as a shell does: quotes and backslashes, no operators.

    What follows an unquoted ``;``, ``&``, ``|``, ``<`` or ``>`` is cut off, as
    Compose does; parentheses need quotes or a ``$`` in front.
    """
    return _Words().split(line)


class _Words:
    """The state of splitting one line. Backquotes may have quotes inside, the others not."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word: list[str] = []
        self._started = False
        self._escaped = False
        self._quote = ""  # one of ' " (
        self._back = False

    def split(self, line: str) -> list[str]:
        for char in line:
            if self._escaped:
                self._escaped = False
                self._take(char)
            elif char == "\\" and self._quote != "'":
                self._escaped = True
            elif char in " \t\r\n":
                self._blank(char)
            elif char in "'\"`()":
                self._mark(char)
            elif char in _OPERATORS and not (self._quote or self._back):
                if char == ">" and self._word and self._word[0] in "0123456789":
                    self._started = False  # the 2 of 2> is no word
                break
            else:
                self._take(char)
        if self._escaped or self._quote or self._back:
            raise ValueError("a quote, parenthesis or backslash in the command is not closed")
        self._end()
        return self._words

    def _end(self) -> None:
        if self._started:
            self._words.append("".join(self._word))
            self._word, self._started = [], False

    def _take(self, char: str) -> None:
        self._word.append(char)
        self._started = True

    def _blank(self, char: str) -> None:
        if self._quote or self._back:
            self._word.append(char)
        else:
            self._end()

    def _mark(self, char: str) -> None:
        if char in "'\"" and self._quote in ("", char):
            self._started = self._started or bool(self._quote)
            self._quote = "" if self._quote else char
        elif char == "(" and self._quote in ("", "(") and not self._back:
            if self._quote or self._word[-1:] != ["$"]:
                raise ValueError("a parenthesis in a command must be quoted")
            self._word.append(char)
            self._quote = "("
        else:
            if char == "`" and not self._quote:
                self._back = not self._back
            elif char == ")" and self._quote in ("", "(") and not self._back:
                # closing what no $( opened starts one, as Compose has it
                self._quote = "" if self._quote else "("
            self._take(char)
