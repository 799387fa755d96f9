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

from specs.states import Health

if TYPE_CHECKING:
    from specs.stack import Healthcheck

EARLY = 0.1  # seconds after the start of the first early probe
OUTPUT_MAX = 4096


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
