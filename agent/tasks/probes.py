"""Health checks: when to probe, and what a probe's answer means.

The runner keeps one loop of these for each running container, so probes of a task
never pile up: the next is due an interval after the last one *ended*. Compose's
keys mean what they mean in Docker, with one addition: until the first healthy
answer the container is also probed early (0.1 s after its start, then at doubling
distances up to the interval), so that dependents start as soon as they can. A
failure counts only from the first regular interval on, and not in start_period.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.runtime.failure import RuntimeFailure
from specs.states import Health

if TYPE_CHECKING:
    from specs.stack import Healthcheck

EARLY = 0.1  # seconds after the start of the first early probe
OUTPUT_MAX = 4096
# In what a runtime complains of: the node's lack, not the container's.
_OF_THE_NODE = (
    "no space left on device",
    "disk quota exceeded",
    "read-only file system",
    "too many open files",
    "input/output error",
)


def command(check: Healthcheck) -> tuple[str, ...]:
    """Return the argv of a probe; empty = there is none to run."""
    kind, *rest = check.test
    if kind == "CMD":
        return tuple(rest)
    if kind == "CMD-SHELL":
        return ("/bin/sh", "-c", " ".join(rest))
    return ()


def delay(check: Healthcheck, health: Health, age: float) -> float:
    """Return seconds to the next probe; ``age`` = seconds since the run's start."""
    regular = max(check.interval, 0.001)
    if health is not Health.STARTING:
        return regular
    if age < check.start_period:
        regular = min(regular, max(check.start_interval, 0.001))
    return min(max(EARLY, age), regular)


def counts(check: Healthcheck, health: Health, begun: float) -> bool:
    """Say whether a failure counts; ``begun`` = the run's age when the probe began."""
    if health is not Health.STARTING:
        return True
    return begun >= check.start_period and begun >= check.interval * 0.999


def verdict(code: int, output: str) -> tuple[bool, str]:
    """Return (healthy, what it said)."""
    return code == 0, output[:OUTPUT_MAX]


def could_not_be_run(error: Exception) -> bool:
    """Say whether a command was not run for reasons of the node: that says nothing of the task.

    A command that is not there or may not be executed, or a user nobody knows, is the task's own.
    """
    if isinstance(error, OSError):
        return True
    low = str(error).lower()
    mute = isinstance(error, RuntimeFailure) and error.code is None
    return mute and any(word in low for word in _OF_THE_NODE)
