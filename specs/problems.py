"""What is wrong with a user's input, where, and what to write instead.

Every refusal and warning about a file is one :class:`Problem`; loading collects
all of them and raises them together as :class:`SpecError`. Stdlib only: the
CLI prints problems without importing pydantic or yaml.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Severity = Literal["error", "warning", "note"]
_SHOWN = 160  # characters of a source line


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    ``path`` is the dotted path of the value (``services.web.ports[0]``);
    ``hint`` says what to write instead; ``code`` is a stable word for tests
    and ``--format json`` (``unknown-key``, ``bad-port``, ``cycle`` ...).
    """

    message: str
    code: str = "invalid"
    path: str = ""
    position: Position | None = None
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"{self.position}: " if self.position else ""
        path = f"{_printable(self.path)}: " if self.path else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{self.severity}: {path}{self.message}{hint}"

    def as_json(self) -> dict[str, Any]:
        """Return the problem as the API and ``--format json`` carry it."""
        return asdict(self)


def _printable(text: str) -> str:
    """Return a text with what a terminal would obey escaped: a key of a file is in its path."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def problem_from_json(data: dict[str, Any]) -> Problem:
    """Return the problem that :meth:`Problem.as_json` described."""
    position = data.get("position")
    return Problem(**{**data, "position": Position(**position) if position else None})


def render(problem: Problem, source_line: str | None = None) -> str:
    """Return the problem as text, with a caret under the column when the line is known."""
    text = str(problem)
    if source_line is None or problem.position is None:
        return text
    head, _, hint = text.partition("\n  hint: ")
    shown, at = _around(source_line.rstrip("\n").replace("\t", " "), problem.position.column - 1)
    caret = " " * at + "^"
    lines = [head, f"  | {shown}", f"  | {caret}"]
    if hint:
        lines.append(f"  hint: {hint}")
    return "\n".join(lines)


def _around(line: str, at: int) -> tuple[str, int]:
    """Return the part of a line around a column that people read, and the column in it."""
    if len(line) <= _SHOWN:
        return line, at
    begin = max(0, min(at - _SHOWN // 2, len(line) - _SHOWN))
    before, after = "..." if begin else "", "..." if begin + _SHOWN < len(line) else ""
    return f"{before}{line[begin : begin + _SHOWN]}{after}", at - begin + len(before)


def once(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems without repeats: what an anchor brought to many places stands once.

    It is the same when the same is said of the same key at the same place of a file.
    """
    found: dict[tuple[object, ...], Problem] = {}
    for problem in problems:
        holder, _, key = problem.path.rpartition(".")
        message = problem.message
        if problem.position is None:
            key = problem.path
        elif holder:  # a message may name it
            message = message.replace(holder, "")
        found.setdefault((message, problem.position, key, problem.severity), problem)
    return list(found.values())


def gathered(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems as people read them: of one kind of warning one, with a count.

    A kind is what says the same and helps by the same hint. It stands where its first one
    stood, without a path. Errors stay apart, as each must be repaired.
    """
    kinds: dict[tuple[object, ...], list[Problem]] = {}
    for number, problem in enumerate(once(problems)):
        same: tuple[object, ...] = (problem.code, problem.message, problem.hint)
        if problem.severity == "error":
            same = (number,)
        elif problem.code in _BY_CODE:
            same = (problem.code,)
        elif problem.code in _BY_HINT:
            same = (problem.code, problem.hint)
        kinds.setdefault(same, []).append(problem)
    return [_gather(kind) if len(kind) > 1 else kind[0] for kind in kinds.values()]


# Kinds whose messages begin with a name, and how the rest reads of several.
_BY_CODE = {"floating-tag": " names no version:"}
_BY_HINT = frozenset({"no-healthcheck", "never-completes", "volume-without-name"})
_NAMED = 4  # names in a line; of the others it says how many


def _gather(kind: list[Problem]) -> Problem:
    first = kind[0]
    where: dict[str, list[str]] = {}
    for problem in kind:
        section, _, rest = problem.path.partition(".")
        names = where.setdefault(section, [])
        name = rest.partition(".")[0].partition("[")[0]
        if name and name not in names:
            names.append(name)
    places = ", ".join(f"{section} {_listed(names)}" for section, names in where.items() if names)
    count = f"{len(kind)} times, in {places}" if places else f"{len(kind)} times"
    message = first.message
    if first.code in _BY_CODE and len({problem.message for problem in kind}) > 1:
        end = _BY_CODE[first.code]
        names = list(dict.fromkeys(problem.message.partition(end)[0] for problem in kind))
        message = f"{len(names)} images name no version: {_listed(names)}"
    elif first.code in _BY_HINT:
        count = f"and {len(kind) - 1} more like it: {places}"
    return replace(first, message=f"{message} ({count})", path="")


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    if more <= 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {more} more"


class SpecError(Exception):
    """The input is refused; ``problems`` holds every finding, errors and warnings."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))


class BadValue(ValueError):
    """A value cannot be read; ``hint`` says what to write instead, the text says both."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}: {hint}")
        self.message = message
        self.hint = hint
