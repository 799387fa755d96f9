"""What becomes of a task when its machine was restarted (pure).

The end of the machine is not the end of the task: nobody asked for it. So what ran before runs
again, whatever its restart policy, as a new run of the same task with its address and its
writable layer; what was stopped stays stopped, and ``x-corral.on_reboot: keep`` leaves what
was interrupted as it is. Of a task that depends on others the start is held until the
controller says that they are there (``Assignment.admitted``), but never refused: after ``HOLD``
seconds it starts all the same, and its run says so.

``agent/tasks/worker.py`` asks once, when the agent starts. The rest is ``lifecycle.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.tasks.lifecycle import LEAVING, undone
from agent.tasks.record import Phase
from specs.states import FINAL, TaskState
from specs.task import MACHINE_RESTARTED

if TYPE_CHECKING:
    from agent.tasks.record import Record

HOLD = 60.0  # seconds


def rebooted(record: Record, boot: str, now: float, wall: float) -> Record:
    """Take over a record of an earlier boot: no process, namespace or mount of it exists."""
    if record.boot == boot:
        return record
    assignment, policy = record.assignment, record.assignment.spec.restart
    lived = record.phase in (Phase.CREATED, Phase.RUNNING)
    halfway = record.phase is Phase.CREATING
    record = record.having(
        boot=boot,
        prepared=False,
        tidied=False,
        next_at=0.0,
        backoff=0.0,
        crashes=0,
        attempts=tuple(0.0 for _ in record.attempts) if policy.window <= 0 else (),
        stopping="",
        stop_at=0.0,
        held_until=0.0,
    )
    if halfway:
        record = undone(record)
    elif lived:
        record = _cut_off(record, wall)
    # Everything a Clear would take away went with the boot, but the files: they stay to be swept.
    if assignment.after and assignment.desired not in LEAVING and record.state not in FINAL:
        record = record.having(held_until=now + HOLD)
        record = record.having(reason=record.hold_reason)
    return record


def _cut_off(record: Record, wall: float) -> Record:
    """End the run that the machine took with it; no attempt of the restart policy is used up."""
    assert record.run is not None, "a run is recorded before it is made"
    run = record.run.with_end(wall, None, MACHINE_RESTARTED)
    record = record.having(
        phase=Phase.ENDED,
        process=None,
        monitor=None,
        runs=record.with_run(run),
        reason=MACHINE_RESTARTED,
    )
    if record.assignment.desired in LEAVING:
        return record.moved(TaskState.SHUTDOWN)
    if record.assignment.spec.on_reboot == "keep":
        return record.moved(TaskState.FAILED)
    return record
