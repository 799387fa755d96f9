"""Everything corral has to say about a project's files, in one go, without a controller.

``corral lint`` prints it. Three sources: what loading found, what corral does with
each key used (:mod:`specs.compile.support` through the compiler), and mistakes that are valid
Compose (:mod:`specs.lint.rules`). Pure over a loaded project.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from specs.compile.stack import compile_stack
from specs.compile.support import support_of
from specs.compile.verdicts import key_uses
from specs.lint import rules
from specs.pins import pins
from specs.problems import Position, Problem, SpecError, once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from specs.compose.project.model import Project


class KeyReport(NamedTuple):
    """One key as it is used: where, and what corral does with it."""

    path: str
    key: str  # in specs.compile.support's notation
    verdict: str
    note: str
    position: Position

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "position": str(self.position)}


class LintReport(NamedTuple):
    problems: list[Problem]
    keys: list[KeyReport]
    pinned: dict[str, tuple[str, ...]]  # service -> what keeps it on one node


def lint(project: Project | None, found: Iterable[Problem]) -> LintReport:
    """Return every problem, by place, and the verdict on every key written in the files.

    ``found`` is what loading said; ``project`` what it could make of the files.
    """
    problems = list(found)
    if project is None:
        return LintReport(in_file_order(problems), [], {})
    broken = [problem.path for problem in problems if problem.severity == "error" and problem.path]
    said, pinned = _compiled(project)
    problems += [found for found in said if not _follows(found.path, broken)]
    problems += rules.check(project)
    return LintReport(in_file_order(problems), sorted(_keys(project), key=_by_place), pinned)


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems as somebody repairs them: file by file, line by line, without repeats."""
    return sorted(
        once(problems),
        key=lambda p: (
            (p.position.file, p.position.line, p.position.column) if p.position else ("", 0, 0)
        ),
    )


class _Places(Mapping[str, Position]):
    """Where things were written, looked up only for what there is something to say about."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def __getitem__(self, path: str) -> Position:
        position = self._project.origin(path)
        if position is None:
            raise KeyError(path)
        return position

    def __iter__(self) -> Iterator[str]:
        return iter(self._project.origins)

    def __len__(self) -> int:
        return len(self._project.origins)


def _follows(path: str, broken: list[str]) -> bool:
    """Return whether a finding at ``path`` only follows from what loading took out there."""
    return any(
        path == other
        or path.startswith((f"{other}.", f"{other}["))
        or (path.endswith("]") and other.startswith(f"{path}."))
        for other in broken
    )


def _compiled(project: Project) -> tuple[list[Problem], dict[str, tuple[str, ...]]]:
    try:
        spec, said = compile_stack(
            project.model, _Places(project), project.name, project.working_dir
        )
    except SpecError as error:
        return error.problems, {}
    return said, pins(spec)


def _keys(project: Project) -> Iterable[KeyReport]:
    seen: dict[str, Position] = {}
    for use in key_uses(project.tree):
        if use.mark is None or not use.mark.key_line:
            continue  # a default, or a part of a short form: nobody wrote this key
        position = use.mark.key_position
        seen[use.path] = position
        if position == seen.get(use.path.rpartition(".")[0]):
            continue  # the long form of its holder's value
        support = support_of(use.pattern)
        yield KeyReport(use.path, use.pattern, support.verdict.value, support.note, position)


def _by_place(row: KeyReport) -> tuple[str, int, int]:
    return row.position.file, row.position.line, row.position.column
