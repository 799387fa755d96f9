"""A release gets its images before one about other services takes its place.

What has begun goes on beside the later release (``carrying``); what has not would come to nothing,
although nobody said anything against it: two people who say ``up web`` and ``up db`` at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.control.mirror.successors import about_of
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Deploy
    from specs.kit.clock import Clock

LONGEST = 10.0  # seconds: what takes longer, as a large image, is not waited for
_LOOK = 0.05


async def let_begin(cluster: Cluster, clock: Clock, stack: str, request: Deploy) -> None:
    """Wait, a while at most, for the stack's newest release to begin."""
    until = clock.monotonic() + LONGEST
    while request.services and clock.monotonic() < until:
        record = cluster.stacks.get(stack)
        newest = cluster.releases.get((stack, record.release)) if record is not None else None
        if newest is None or newest.state is not ReleaseState.PENDING:
            return
        if about_of(cluster, newest) <= {*request.services} or request.key == newest.key:
            return
        await asyncio.sleep(_LOOK)
