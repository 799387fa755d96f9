"""Drop what a failing seed does not need: the fewest events with which the same law breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.run import run

if TYPE_CHECKING:
    from tests.sim.run import Outcome

MOST_RUNS = 120


def shrink(found: Outcome, *, length: float, exclusive: bool = False) -> Outcome:
    """Return the outcome of the fewest events found; at most MOST_RUNS runs are made."""
    assert found.broken is not None
    law, best, runs = found.broken.law, found, 0
    numbers = [event.number for event in found.events]
    step = max(1, len(numbers) // 2)
    while runs < MOST_RUNS:
        dropped = False
        for start in range(0, len(numbers), step):
            fewer = numbers[:start] + numbers[start + step :]
            if len(fewer) == len(numbers) or runs >= MOST_RUNS:
                continue
            runs += 1
            again = run(found.seed, length=length, only=fewer, exclusive=exclusive)
            if again.broken is not None and again.broken.law == law:
                numbers, best, dropped = fewer, again, True
                break
        if not dropped:
            if step == 1:
                break
            step = max(1, step // 2)
    return best
