"""A decision made in several turns of the event loop: others are heard while it is made.

It is one decision all the same. What it reads is held still meanwhile (``Cluster.held``); where
it moved nevertheless, nothing is decided and the loop looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.control.mirror.cluster import Cluster
    from scheduler.steps import Steps

T = TypeVar("T")

TURN = 250  # tasks looked at before others get their turn: some 5 ms


class _Moved(Exception):
    """What a decision is about is not any more what it was when it began."""


async def in_turns(cluster: Cluster, steps: Steps[T]) -> T | None:
    """Decide in steps and let the event loop turn in between; None: what it is about moved."""
    began = cluster.changes

    def look() -> None:
        if cluster.changes != began:
            raise _Moved

    with cluster.held(), contextlib.suppress(_Moved):
        return await undisturbed(steps, look)
    return None


async def undisturbed(steps: Steps[T], look: Callable[[], None] | None = None) -> T:
    """Decide in steps about what nobody else moves; the event loop turns in between.

    ``look`` is called after each turn; what it raises ends the decision.
    """
    done = 0
    with contextlib.closing(steps):
        while True:
            try:
                done += next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            if done >= TURN:
                done = 0
                await asyncio.sleep(0)
                if look is not None:
                    look()
