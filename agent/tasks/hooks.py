"""What the commands of ``post_start`` and ``pre_stop`` do to a task (pure).

They run inside the container, one after the other, by what `exec` uses. After *every* start of
a run the post_start hooks follow, and the task is running, ready and there for its dependents
only when all of them have ended well; one that fails ends its run, which then failed, and the
restart policy says what follows. Before every stop signal come the pre_stop hooks, within the
stop's patience: what they say is noted, and the stop goes on whatever they did. A hook that was
under way when the agent was killed is ended and begun anew; one that had ended is not.

``agent/tasks/hooking.py`` runs them. Here is what becomes of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from specs.kit import masking
from specs.states import Health, TaskState
from specs.task import START_HOOK

if TYPE_CHECKING:
    from agent.tasks.record import Record
    from specs.stack import Hook

HookKind = Literal["post_start", "pre_stop"]

LONGEST: Final = 300.0  # seconds a post_start hook may take
PAUSED: Final = "is paused: its post_start hooks run when it goes on"
LAST: Final = 2.0  # seconds of a stop's patience that stay for the signal, at most half of them


def patience(grace: float) -> float:
    """Return how much of a stop's patience its hooks have together."""
    return max(grace - LAST, grace / 2)


def first(record: Record) -> bool:
    """Say whether hooks come before the run's stop signal."""
    return bool(record.assignment.spec.pre_stop) and not record.pre_stop


def named(kind: HookKind, hook: Hook) -> str:
    """Return what people read of a hook that is under way."""
    command = " ".join(masking.words(hook.command))
    return f"{kind} hook: {command[:80]}{'...' if len(command) > 80 else ''}"


def begun(record: Record, hook: Hook) -> Record:
    """Note which post_start hook runs."""
    return record.having(reason=named("post_start", hook))


def hooked(record: Record, now: float) -> Record:
    """Note that one more post_start hook ended well; after the last one the start is over."""
    record = record.having(hooked=record.hooked + 1, hooked_at=now)
    if record.hooks_left:
        return record
    if record.health in (Health.NONE, Health.HEALTHY):
        return record.moved(TaskState.RUNNING).having(reason="")
    starting = record.health is Health.STARTING and record.state is not TaskState.RUNNING
    return record.having(reason="waits for its first healthy check" if starting else "")


def failed(record: Record, why: str) -> Record:
    """Note that a post_start hook failed: the run is ended because of that."""
    said = masking.text(f"{START_HOOK}: {why}")
    return record.having(hook_failed=said, reason=said)


def leaving(record: Record, why: str, now: float) -> Record:
    """Begin a stop with its hooks."""
    return record.having(stopping=why, stop_at=now, pre_stop="running")


def left(record: Record) -> Record:
    """Note that the pre_stop hooks are over: the signal follows."""
    return record.having(pre_stop="over") if record.pre_stop == "running" else record
