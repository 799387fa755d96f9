"""A decision made in several turns of the event loop: others are heard while it is made.

It is one decision all the same. What it reads is held still meanwhile (``Cluster.held``); where
it moved nevertheless, nothing is decided and the loop looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from scheduler.steps import Steps

T = TypeVar("T")

TURN = 250  # tasks looked at before others get their turn: some 5 ms


async def in_turns(cluster: Cluster, steps: Steps[T]) -> T | None:
    """Decide in steps and let the event loop turn in between; None: what it is about moved."""
    done, began = 0, cluster.changes
    with cluster.held(), contextlib.closing(steps):
        while True:
            try:
                done += next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            if done >= TURN:
                done = 0
                await asyncio.sleep(0)
                if cluster.changes != began:
                    return None
