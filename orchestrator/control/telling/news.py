"""What a task's new record says that the old one did not: the lines of ``corral events``.

A state is told when it is reached; in between, what a container does in its place: its runs
end and begin again, and its health changes. Pure, of two records of one task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orchestrator.control.telling.words import exit_words
from specs.states import FINAL, Health

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.task import Task


class News(NamedTuple):
    """One event of a task: its kind, and the words."""

    kind: str
    text: str


def news_of(old: Task | None, new: Task | None) -> Iterator[News]:
    """Yield the events between two records; ``new`` None: it was removed."""
    if new is None:
        if old is not None:
            yield News("task.removed", f"{old.name} is removed")
        return
    if old is None or old.state is not new.state:
        end = new.status.last_end if new.state in FINAL else None
        how = f": {exit_words(end)}" if end is not None else ""
        yield News(f"task.{new.state.value}", f"{new.name} is {new.state.value}{how}")
    if old is not None and new.state not in FINAL:
        yield from _in_place(old, new)


def _in_place(old: Task, new: Task) -> Iterator[News]:
    """Yield what happened to a task that goes on: several runs may lie between two reports."""
    ended, before = new.status.last_end, old.status.last_end
    if ended is not None and (before is None or ended.number > before.number):
        yield News("run.ended", f"{new.name} ended: {exit_words(ended)}")
    run = new.status.run
    if run is not None and run.alive and run.number > 1 and run.number != _alive(old):
        yield News("run.started", f"{new.name} was started again")
    health = new.status.health
    if health is not old.status.health and health in (Health.HEALTHY, Health.UNHEALTHY):
        yield News(f"health.{health.value}", f"{new.name} is {health.value}")


def _alive(task: Task) -> int:
    """Return the number of the run that goes on, 0 if none does."""
    run = task.status.run
    return run.number if run is not None and run.alive else 0
