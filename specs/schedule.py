"""A service that runs by a schedule: what its file says, and what is kept of what came of it.

Nothing of it stands by. Each time that is due begins one *iteration*: a one-off of the service as
the release has it (:mod:`specs.oneoff`), once, with a number. What becomes due
:mod:`scheduler.schedule` says. Times are seconds since the epoch, spans seconds.
"""

from __future__ import annotations

from typing import Literal

from specs.base import Model

Overlap = Literal["allow", "forbid", "replace"]
Missed = Literal["skip", "run-once"]
# How an iteration ended; "" = it has not.
Outcome = Literal["", "complete", "failed", "stopped", "replaced", "late", "lost"]

KEPT = 5
MOST_KEPT = 100
WITHIN = 3600.0


class ScheduleSpec(Model):
    """``x-corral.schedule``.

    ``jitter``: each iteration begins up to so long after it is due, by chance that is the same at
    every look. ``overlap``: what becomes of a due time while an earlier iteration goes on.
    ``missed``: what becomes of those that nobody was there to begin, the newest if it is not
    older than ``missed_within``. ``deadline``: an iteration that takes longer is stopped, and has
    failed.
    """

    cron: str
    timezone: str = "UTC"
    jitter: float = 0.0
    overlap: Overlap = "forbid"
    missed: Missed = "run-once"
    missed_within: float = WITHIN
    keep: int = KEPT
    deadline: float | None = None
    paused: bool = False


class Iteration(Model):
    """One iteration of a schedule. ``due`` 0 = by hand; ``task`` is the id of its one-off.

    ``begun_at``: when it was decided; ``started_at``, ``ended_at``: its container, None = not yet.
    """

    number: int
    task: str
    name: str
    due: float = 0.0
    begun_at: float = 0.0
    release: int = 0
    node: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    outcome: Outcome = ""
    ends: Outcome = ""  # it was asked to stop: what its end is called
    reason: str = ""


class Schedule(Model):
    """The store's record of one scheduled service.

    ``since``: every time that was due until then is decided, and is never due again. ``skipped``
    counts those that were not begun, ``skipped_at`` is the newest, ``skipped_why`` why.
    ``resting``: its stack or service is stopped; ``held``: paused by hand. ``problem``: why it is
    not known when it is due.
    """

    stack: str
    service: str
    spec: ScheduleSpec
    since: float
    number: int = 0  # of the newest iteration
    iterations: tuple[Iteration, ...] = ()  # oldest first
    held: bool = False
    resting: bool = False
    skipped: int = 0
    skipped_at: float = 0.0
    skipped_why: str = ""
    succeeded_at: float = 0.0  # when one completed last
    succeeded: int = 0
    failed: int = 0
    problem: str = ""

    @property
    def salt(self) -> str:
        """Return what its jitter hangs on: not all services begin at the same moment."""
        return f"{self.stack}/{self.service}"

    @property
    def going(self) -> tuple[Iteration, ...]:
        """Return the iterations that have not ended."""
        return tuple(one for one in self.iterations if not one.outcome)

    def with_iteration(self, one: Iteration) -> Schedule:
        """Return it with an iteration as it is now."""
        known = [one if old.number == one.number else old for old in self.iterations]
        if all(old.number != one.number for old in known):
            known.append(one)
        return self.model_copy(update={"iterations": tuple(known)})


class ScheduleRow(Model):
    """One scheduled service, for people; ``next_at`` None = it is not due by itself."""

    stack: str
    service: str
    cron: str
    timezone: str = "UTC"
    next_at: float | None = None
    why: str = ""  # it is not due by itself: paused, stopped ...
    running: int = 0
    last: Iteration | None = None
    iterations: tuple[Iteration, ...] = ()
    skipped: int = 0
    skipped_at: float = 0.0
    skipped_why: str = ""
    succeeded_at: float = 0.0
    succeeded: int = 0
    failed: int = 0


class ScheduleRows(Model):
    schedules: tuple[ScheduleRow, ...] = ()


class ActOnSchedule(Model):
    """Begin an iteration now, or have none begin by itself any more, or again."""

    action: Literal["run", "pause", "resume"]


class ScheduleActed(Model):
    """The schedule as it is then; ``number`` is that of the iteration begun, 0 = none."""

    schedule: ScheduleRow
    number: int = 0
