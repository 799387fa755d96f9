"""What is wrong with a user's input, where, and what to write instead.

Every refusal and warning about a file is one :class:`Problem`; loading collects
all of them and raises them together as :class:`SpecError`. Stdlib only: the
CLI prints problems without importing pydantic or yaml.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


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
        path = f"{self.path}: " if self.path else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{self.severity}: {path}{self.message}{hint}"

    def as_json(self) -> dict[str, Any]:
        """Return the problem as the API and ``--format json`` carry it."""
        return asdict(self)


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
    shown = source_line.rstrip("\n").replace("\t", " ")
    caret = " " * (problem.position.column - 1) + "^"
    lines = [head, f"  | {shown}", f"  | {caret}"]
    if hint:
        lines.append(f"  hint: {hint}")
    return "\n".join(lines)


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
