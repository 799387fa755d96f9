"""How many tasks a service should have by what its tasks use: tracking a target, without swinging.

Asked by ``orchestrator.control.autoscaling`` at every look at the figures. Pure; times are seconds
of the caller's monotonic clock.

As many tasks as would each use as much as is wanted, if what is used now were spread over them;
within ``TOLERANCE`` of that nothing changes. More come as soon as the last change is ``cooldown``
old; fewer only when fewer would have done all that time, and then as many as were needed most.

Laws (tests/laws/test_autoscale.py): never fewer than ``least`` nor more than ``most``; under a
load that stays it changes at most twice and then never; what somebody set by hand stays for
``hold``; while an update is under way, or tasks are not measured, nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.autoscale import AutoscaleSpec

TOLERANCE = 0.1  # of the target: so far from it nothing changes
WORDS = {"cpu": "CPU", "memory": "memory"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a service now.

    ``count`` tasks are wanted, ``ready`` of them are ready, ``tasks`` were measured. ``used``: by
    figure, what they use on average, as a fraction. ``by_hand``: somebody set the number himself.
    """

    count: int
    ready: int = 0
    tasks: int = 0
    used: Mapping[str, float] = field(default_factory=dict)
    by_hand: bool = False
    updating: bool = False


@dataclass(frozen=True, slots=True)
class Remembered:
    """What one look leaves to the next. ``wishes``: when, how many; all fewer than there are.

    ``changed``: when the number was changed last; ``hand``: since when it is somebody's.
    """

    changed: float = -math.inf
    hand: float | None = None
    wishes: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """``count``: the number from now on, None = as it is; ``why``: what decided, or waits."""

    count: int | None = None
    why: str = ""


def decide(
    spec: AutoscaleSpec, seen: Measured, before: Remembered, now: float
) -> tuple[Verdict, Remembered]:
    """Return the number of tasks, and what is to be remembered."""
    hand = (before.hand if before.hand is not None else now) if seen.by_hand else None
    kept = replace(before, hand=hand)
    if why := _held(spec, seen, hand, now):
        return Verdict(why=why), replace(kept, wishes=())
    bounded = min(max(seen.count, spec.least), spec.most)
    if bounded != seen.count:
        bound = f"at least {spec.least}" if bounded > seen.count else f"at most {spec.most}"
        return Verdict(bounded, f"its file says {bound}"), Remembered(now)
    if seen.tasks == 0 or seen.tasks < seen.ready:
        why = f"{seen.tasks} of {seen.ready} ready tasks are measured"
        return Verdict(why=why), kept
    wish, figure = _wish(spec, seen)
    wish = min(max(wish, spec.least), spec.most)
    if wish > seen.count:
        return _more(spec, seen, replace(kept, wishes=()), wish, figure, now)
    if wish < seen.count:
        return _fewer(spec, kept, wish, figure, now)
    return Verdict(why=figure), replace(kept, wishes=())


def _held(spec: AutoscaleSpec, seen: Measured, hand: float | None, now: float) -> str:
    """Return why nothing is decided now, "" where it is."""
    if seen.updating:
        return "an update is under way"
    if seen.count == 0:
        return "it is scaled to 0"
    return "its number was set by hand" if hand is not None and now < hand + spec.hold else ""


def _wish(spec: AutoscaleSpec, seen: Measured) -> tuple[int, str]:
    """Return how many tasks what is used asks for, and the figure that asks for most."""
    found = []
    for name, target in (("cpu", spec.cpu), ("memory", spec.memory)):
        used = seen.used.get(name)
        if target is None or used is None:
            continue
        near = abs(used / target - 1) <= TOLERANCE
        wish = seen.count if near else math.ceil(used * seen.tasks / target - 1e-9)
        found.append((wish, used / target, f"{WORDS[name]} at {used:.0%} of {target:.0%}"))
    if not found:
        return seen.count, "nothing of it is measured"
    wish, _, words = max(found)
    return wish, words


def _more(
    spec: AutoscaleSpec, seen: Measured, kept: Remembered, wish: int, figure: str, now: float
) -> tuple[Verdict, Remembered]:
    if seen.ready < seen.count:
        return Verdict(why=f"{seen.ready} of {seen.count} tasks are ready"), kept
    if now < kept.changed + spec.cooldown:
        return Verdict(why=f"{figure}; it cools down"), kept
    return Verdict(wish, figure), Remembered(now)


def _fewer(
    spec: AutoscaleSpec, kept: Remembered, wish: int, figure: str, now: float
) -> tuple[Verdict, Remembered]:
    wishes = (*kept.wishes, (now, wish))
    since = max(wishes[0][0], kept.changed)
    if now < since + spec.cooldown:
        # Those older than the cool-down say nothing any more, but for that it began so early.
        return Verdict(why=f"{figure}; fewer would do"), replace(kept, wishes=wishes)
    most = max(count for at, count in wishes if at >= now - spec.cooldown)
    return Verdict(most, figure), Remembered(now)
