"""Collect everything found wrong with an input, so that all of it is told in one go.

Loading, compiling and deploying all report here. Who finds something wrong takes the
bad value out and goes on; ``damaged`` remembers where values were taken out, so that
later stages do not report what is only a consequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from specs.problems import BadValue, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.problems import Position


class Written(Protocol):
    """A value that knows where it stands, as the trees of ``specs.compose`` do."""

    @property
    def position(self) -> Position: ...
    @property
    def key_position(self) -> Position: ...


class Findings:
    """Problems and warnings in the order found, without repeats.

    ``origins`` (dotted path -> position) answers for those who know the path only; the
    nearest thing around it counts.
    """

    def __init__(self, origins: Mapping[str, Position] | None = None) -> None:
        self._origins = origins if origins is not None else {}
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
        mark: Written | None = None,
        at_key: bool = False,
        position: Position | None = None,
        hint: str = "",
    ) -> None:
        """Report something that makes the input unusable."""
        if mark is not None:
            position = mark.key_position if at_key else mark.position
        self.add(Problem(message, code, path, position or self.position_of(path), hint))

    def bad_value(
        self, error: ValueError, *, path: str, mark: Written | None, hint: str = ""
    ) -> None:
        """Report a value its parser refused; the parser's advice stands in for no hint."""
        message = str(error)
        if not hint and isinstance(error, BadValue):
            message, hint = error.message, error.hint
        self.error(message, code="bad-value", path=path, mark=mark, hint=hint)

    def warn(
        self,
        message: str,
        *,
        code: str = "warning",
        path: str = "",
        mark: Written | None = None,
        position: Position | None = None,
        hint: str = "",
    ) -> None:
        """Report something the user should know though the input is usable."""
        if mark is not None:
            position = mark.position
        at = position or self.position_of(path)
        self.add(Problem(message, code, path, at, hint, "warning"))

    def add(self, problem: Problem) -> None:
        """Take a problem as it is, once."""
        key = (problem.message, problem.path, str(problem.position))
        if problem.severity == "error" and problem.path:
            self._damage(problem.path)
        if key not in self._seen:
            self._seen.add(key)
            (self.errors if problem.severity == "error" else self.warnings).append(problem)

    def damage(self, path: str) -> None:
        """Note that something is missing at a path for a reason that was told elsewhere."""
        self._damage(path)

    def position_of(self, path: str) -> Position | None:
        """Return where a path, or the nearest thing around it, is in the user's files."""
        while path and path not in self._origins:
            path = _around(path)
        return self._origins.get(path)

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
            path = _around(path)


def _around(path: str) -> str:
    return path[: max(path.rfind("."), path.rfind("["), 0)]
