"""What an exclusive task's lease means for its run (pure); ``lifecycle.py`` asks.

A task that is not exclusive has no lease, and needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.tasks.record import Phase
from agent.tasks.steps import Freeze, Signal, Step, Wait
from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from agent.tasks.record import Record
    from agent.vocabulary import Exit

WHY = "lease"  # why a run is stopped whose lease ends
ENDED = "stopped: its lease ended"
KILLED = 137  # the exit code of what SIGKILL ended


def begins(record: Record) -> bool:
    """Say whether a run may begin, or go on."""
    return record.lease == "held" or not record.assignment.spec.exclusive


def over(record: Record) -> bool:
    """Say whether a run is to be killed now."""
    return record.assignment.spec.exclusive and record.lease not in ("held", "ending")


def kill(record: Record, why: str) -> Step:
    """Kill a run whose lease has ended; before it is let go on, where it is frozen.

    So it dies without another step of its own.
    """
    if not record.killed:
        return Signal(why, kill=True)
    return Freeze(paused=False) if record.paused else Wait()


def ended_by(record: Record, seen: Exit) -> bool:
    """Say whether the run ended because its lease did, by the agent's hand or by the guard's."""
    return record.stopping == WHY or (not begins(record) and seen.code in (None, KILLED))


def noted(record: Record, stage: str, why: str) -> Record:
    """Take note of how far the lease is, and why it has none."""
    if not record.assignment.spec.exclusive:
        return record
    waits = record.prepared and record.phase is Phase.NONE and record.state not in FINAL
    reason = record.reason
    if waits and stage != "held" and record.assignment.desired is Desired.RUNNING:
        first = ENDED if record.reason.startswith(ENDED) else "waits for its lease"
        reason = f"{first}: {why}"
    return record.having(lease=stage, lease_wait=why, reason=reason)
