"""When the controller replaces a task that ended, and when it gives up.

The agent restarts crashed runs by itself; a task that reaches the controller as
failed has used up its local restarts (or its policy allows none). The delay
doubles from one second to a minute and starts anew after a replica stayed ready
for ``HEALTHY_SPELL``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.kit.backoff import after
from specs.states import TaskState

if TYPE_CHECKING:
    from scheduler.replicas import Replica
    from specs.stack import RestartPolicy

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
HEALTHY_SPELL = 10.0


@dataclass(frozen=True, slots=True)
class Replacement:
    """What follows a task that ended: nothing where it ``completed``, else another at ``at``.

    ``give_up`` non-empty: no other, and why. ``attempt`` is what the replacement carries.
    """

    at: float = 0.0
    attempt: int = 0
    give_up: str = ""
    completed: bool = False


def delay(attempt: int) -> float:
    """Return the wait before replacement number ``attempt``: the first one is immediate."""
    return after(attempt - 1, first=FIRST_DELAY, longest=LONGEST_DELAY)


def verdict(policy: RestartPolicy, last: Replica, now: float) -> Replacement:
    """Say what follows ``last``, the newest task of a slot, which has ended."""
    if last.state is TaskState.COMPLETE:
        return Replacement(completed=True)
    if not last.broken:
        return Replacement(at=now)  # stopped or lost, by no fault of its own
    if last.cut_off == "run":
        return Replacement(at=now, attempt=last.attempt)
    if last.cut_off == "keep":
        return Replacement(give_up="its machine was restarted, and on_reboot is keep")
    healthy = last.lived >= HEALTHY_SPELL
    attempt = 1 if healthy else last.attempt + 1
    ended = min(now, last.ended_at if last.ended_at is not None else now)
    if last.state is TaskState.REJECTED:
        # Nothing ran, so no attempt is used up; but the same refusal is likely again.
        return Replacement(at=ended + delay(attempt + 1), attempt=attempt)
    spent = _spent(policy, last)
    return Replacement(give_up=spent) if spent else Replacement(ended + delay(attempt), attempt)


def _spent(policy: RestartPolicy, last: Replica) -> str:
    """Return why the policy allows no further attempt, or ""."""
    if policy.condition == "none":
        return "its restart policy is none"
    if policy.max_attempts is None or (policy.window and last.lived >= policy.window):
        return ""
    if last.attempt + last.restarts >= policy.max_attempts:
        return f"it used up its {policy.max_attempts} restart attempts"
    return ""
