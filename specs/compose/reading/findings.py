"""Collect every problem of one load, so that all of them are told in one go.

A stage that finds something wrong reports it here, takes the bad value out of
the tree and goes on; ``damaged`` remembers where values were taken out, so that
later stages do not report what is only a consequence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from specs.problems import Position, Problem

if TYPE_CHECKING:
    from specs.compose.reading.tree import SourceMark

_ADVICE = re.compile(r": (?=(?:write|use|put|only) )")


def _with_advice(message: str) -> tuple[str, str]:
    """Split what a parser of values says into the message and what to write instead."""
    parts = _ADVICE.split(message, maxsplit=1)
    return (parts[0], parts[1]) if len(parts) > 1 else (message, "")


class Findings:
    """The problems and warnings of one load, in the order found, without repeats."""

    def __init__(self) -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.damaged: set[str] = set()
        self._seen: set[tuple[str, str, str]] = set()

    def error(
        self,
        message: str,
        *,
        code: str = "invalid",
        path: str = "",
        mark: SourceMark | None = None,
        at_key: bool = False,
        position: Position | None = None,
        hint: str = "",
    ) -> None:
        """Report something that makes the input unusable."""
        if mark is not None:
            position = mark.key_position if at_key else mark.position
        if not hint:
            message, hint = _with_advice(message)
        key = (message, path, str(position))
        if path:
            self._damage(path)
        if key not in self._seen:
            self._seen.add(key)
            self.errors.append(Problem(message, code, path, position, hint))

    def warn(
        self,
        message: str,
        *,
        code: str = "warning",
        path: str = "",
        mark: SourceMark | None = None,
        position: Position | None = None,
        hint: str = "",
    ) -> None:
        """Report something the user should know though the input is usable."""
        if mark is not None:
            position = mark.position
        key = (message, path, str(position))
        if key not in self._seen:
            self._seen.add(key)
            self.warnings.append(Problem(message, code, path, position, hint, "warning"))

    def all(self) -> list[Problem]:
        """Return errors, then warnings, each in the order of the files."""
        files: dict[str, int] = {}
        for problem in (*self.errors, *self.warnings):
            if problem.position is not None:
                files.setdefault(problem.position.file, len(files))

        def place(problem: Problem) -> tuple[int, int, int]:
            at = problem.position
            return (files[at.file], at.line, at.column) if at is not None else (-1, 0, 0)

        return [*sorted(self.errors, key=place), *sorted(self.warnings, key=place)]

    def _damage(self, path: str) -> None:
        while path and path not in self.damaged:
            self.damaged.add(path)
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
