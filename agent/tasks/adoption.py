"""What becomes of each task when the agent starts: by records, runtime and set together (pure).

Any of the three may be missing or damaged, and what is left decides. Two laws: what may be
running is never ended because of what could not be read, and nothing is begun that may run
already, here or elsewhere. Where both leave nothing to do, the task is kept as it is until the
controller has sent the whole set (``agent/tasks/worker.py`` asks again then, with ``doubt`` off).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.tasks.lifecycle import check_of, fresh
from agent.tasks.record import Phase, Record
from specs.states import FINAL, Health, TaskState
from specs.task import Run

if TYPE_CHECKING:
    from agent.vocabulary import FoundRun
    from specs.wire import Assignment

LOST = "its record on this node could not be read, so what became of it is unknown"


@dataclass(frozen=True)
class Found:
    """What there is of one task. ``damaged``: why its newest record could not be read.

    ``unread`` names fields of the set's assignment that we do not know.
    """

    record: Record | None = None
    damaged: str = ""
    run: FoundRun | None = None
    assignment: Assignment | None = None  # by the set
    unread: tuple[str, ...] = ()

    def told(self, assignment: Assignment | None) -> Found:
        """Return the same once the controller has said what the task is; None = not wanted."""
        return replace(self, assignment=assignment, unread=())


@dataclass(frozen=True)
class Adopt:
    """Give it a runner with this record."""

    record: Record


@dataclass(frozen=True)
class Leave:
    """Touch nothing of it before the controller has spoken."""

    why: str


@dataclass(frozen=True)
class Sweep:
    """No record and no set knows it: what is left of it goes."""


Verdict = Adopt | Leave | Sweep


def judge(  # noqa: PLR0911 - a table of cases
    found: Found, *, doubt: str, boot: str, now: float, wall: float
) -> Verdict | None:
    """Return what to do; None = nothing here yet: the set decides as for any new task."""
    record = found.record
    if record is not None and not found.damaged and not _behind(record, found.run, boot):
        return Adopt(record)
    known = record.assignment if record is not None else found.assignment
    if known is None:
        if doubt or found.damaged:
            return Leave(found.damaged or "nothing says what it is")
        return Sweep()
    if found.run is not None:
        return Adopt(_rebuilt(record, known, found.run, boot, now, wall))
    if record is not None:
        return Adopt(record)
    if found.damaged:
        lost = fresh(known, boot).moved(TaskState.FAILED)
        return Adopt(lost.having(reason=LOST, touched=True))
    if doubt:
        return Leave("whether it was begun is unknown")
    if found.unread:
        return Leave(f"its spec has what this version does not know: {', '.join(found.unread)}")
    return None


def _behind(record: Record, run: FoundRun | None, boot: str) -> bool:
    """Say whether a run exists that the record does not know: it is older than what happened."""
    if run is None or run.process.pid == 0 or record.boot != boot:
        return False
    return record.phase is Phase.NONE and not record.erased and record.state not in FINAL


def _rebuilt(
    record: Record | None,
    assignment: Assignment,
    run: FoundRun,
    boot: str,
    now: float,
    wall: float,
) -> Record:
    """Return the record of a run that is there."""
    base = record if record is not None else fresh(assignment, boot)
    number = max(run.number, base.number)
    started = wall - run.age if run.begun else None
    seen = Run(number=number, pid=run.process.pid, started_at=started)
    checked = check_of(base) is not None
    base = base.having(
        boot=boot,
        touched=True,
        prepared=True,
        tidied=False,
        erased=False,
        phase=Phase.RUNNING if run.begun else Phase.CREATED,
        runs=base.with_run(seen),
        process=run.process,
        monitor=run.monitor,
        run_started_at=now - run.age,
        health=Health.STARTING if checked else Health.NONE,
        restart_done=max(base.restart_done, assignment.restart),
        next_at=0.0,
        stopping="",
        killed=False,
        paused=run.paused,
        # By this its partner's end is known; one that has ended meanwhile is no process of today's.
        beside=run.beside,
        alone=False,
        # Nobody knows which hooks it had: a run that goes on is not put at risk by others.
        hooked=len(base.assignment.spec.post_start) if run.begun else 0,
        hook_failed="",
        hooked_at=0.0,
        pre_stop="",
    )
    if base.state in FINAL or base.state is TaskState.RUNNING:
        return base
    return base.moved(TaskState.STARTING if checked or not run.begun else TaskState.RUNNING)
