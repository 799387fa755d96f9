"""Show what is wrong with the user's files, with the line and a caret.

Called when the loader or the controller refuses or warns. Problems go to
stderr, so that `corral config` stays usable in a pipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli import said
from specs.kit import masking, reading
from specs.problems import Problem, gathered, problem_from_json, render

if TYPE_CHECKING:
    from collections.abc import Iterable


def source_line(problem: Problem) -> str | None:
    """Return the line the problem points at, if the file can be read; what is secret hidden."""
    if problem.position is None:
        return None
    try:
        text = reading.read(problem.position.file).decode("utf-8", "replace")
    except OSError:
        return None
    lines = text.split("\n", problem.position.line)
    if len(lines) < problem.position.line:
        return None
    return masking.text(lines[problem.position.line - 1])


def show(problems: Iterable[Problem]) -> None:
    """Print every problem to stderr, warnings of one kind in one line."""
    for problem in gathered(problems):
        # A warning is one line; the caret is for what must be repaired.
        line = source_line(problem) if problem.severity == "error" else None
        said.tell(render(problem, line), str(problem.severity))


def show_json(problems: Iterable[dict[str, Any]]) -> None:
    """Print problems as the API carries them."""
    show(_from_json(item) for item in problems)


def _from_json(item: dict[str, Any]) -> Problem:
    try:
        return problem_from_json(item)
    except (TypeError, AttributeError):
        return Problem(message=str(item.get("message", item)))
