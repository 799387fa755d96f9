"""The machine the controller runs on becomes the cluster's first node (embedded default).

controller.py runs this once at start; from then on the node is like any other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import aiohttp

from orchestrator.dispatch.agent import AgentClient
from orchestrator.errors import Conflict, RequestError
from specs.node import Node

if TYPE_CHECKING:
    from orchestrator.contracts import Mirror
    from orchestrator.keys.identity import ClusterRecord
    from orchestrator.nodes.members import Nodes
    from orchestrator.transport.local import LocalTransport
    from specs.kit.clock import Clock
    from specs.wire import Hello

log = logging.getLogger(__name__)

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
    node = await nodes.join(hello.facts, name=hello.facts.hostname or socket.gethostname())
    log.info("this machine is the first node", extra={"node": node.id, "node_name": node.name})


async def _wait(transport: LocalTransport, clock: Clock) -> Hello:
    began, told = clock.monotonic(), False
    while True:
        try:
            # One connection for each attempt: a unix socket's connector has no state worth keeping.
            async with (
                transport.connect(Node(id="", name="of this machine")) as connector,
                aiohttp.ClientSession("http://agent", connector=connector) as http,
            ):
                return await AgentClient(http, "of this machine").hello()
        except RequestError as exc:
            if not told and clock.monotonic() - began > DEADLINE:
                told = True
                log.warning(
                    "the agent of this machine has not answered for %g s: %s", DEADLINE, exc.detail
                )
        await asyncio.sleep(LOOK_LATER if told else LOOK)
