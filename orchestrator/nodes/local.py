"""The machine the controller runs on becomes the cluster's first node (embedded default).

controller.py runs this once at start; from then on the node is like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from orchestrator.dispatch.talking import talking
from orchestrator.errors import Conflict, RequestError
from orchestrator.keys.identity import ClusterRecord
from specs.node import Node

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.contracts import Mirror
    from orchestrator.nodes.members import Nodes
    from orchestrator.transport.local import LocalTransport
    from specs.kit.clock import Clock
    from specs.wire import Hello

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds the agent has to say what it held for a store that is gone
LOOK = 0.05  # agent and controller are started together: worth looking often at first
LOOK_LATER = 2.0
DEADLINE = 60.0  # after which the operator is told, and looking goes on slowly


async def join_local_agent(
    nodes: Nodes,
    cluster: Mirror,
    transport: LocalTransport,
    clock: Clock,
    identity: ClusterRecord,
) -> None:
    """Register this machine's agent when it answers, unless it is a member already.

    Raises Conflict when the machine belongs to another cluster: then this controller
    must not run here.
    """
    if any(not node.address for node in cluster.nodes.values()):
        return
    hello = await _wait(transport, clock)
    if hello.stamp is not None and hello.stamp.cluster != identity.id:
        raise Conflict(
            f"this machine is a node of another cluster ({hello.stamp.cluster})",
            hint="use that cluster's controller, or take the machine out of it: corral node rm",
        )
    # Of a cluster whose store was lost it is the node it was.
    mine = hello.node if hello.stamp is not None else ""
    node = await nodes.join(
        hello.facts, name=hello.facts.hostname or socket.gethostname(), node_id=mine
    )
    log.info("this machine is the first node", extra={"node": node.id, "node_name": node.name})


async def lost_cluster(transport: LocalTransport, socket_: Path) -> ClusterRecord | None:
    """Return the cluster this machine's agent says it is the home of; None = of none.

    Asked where there is no store: of another machine's node the cluster is not ours to have.
    """
    if not socket_.exists():
        return None
    with contextlib.suppress(RequestError, TimeoutError):
        async with (
            asyncio.timeout(PATIENCE),
            transport.connect(Node(id="", name="of this machine")) as connector,
            talking(connector, "of this machine") as client,
        ):
            held = await client.held()
            if held.stamp is None or held.me is None or not held.me.home:
                return None
            log.warning("the state of cluster %s is gone from here", held.stamp.cluster)
            return ClusterRecord(
                id=held.stamp.cluster, pool=held.me.cluster_pool, more=held.me.more_ranges
            )
    return None


async def _wait(transport: LocalTransport, clock: Clock) -> Hello:
    began, told = clock.monotonic(), False
    while True:
        try:
            # One connection for each attempt: a unix socket's connector has no state worth keeping.
            async with (
                transport.connect(Node(id="", name="of this machine")) as connector,
                talking(connector, "of this machine") as client,
            ):
                return await client.hello()
        except RequestError as exc:
            if not told and clock.monotonic() - began > DEADLINE:
                told = True
                log.warning(
                    "the agent of this machine has not answered for %g s: %s", DEADLINE, exc.detail
                )
        await asyncio.sleep(LOOK_LATER if told else LOOK)
