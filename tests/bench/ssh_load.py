"""Hold many SSH connections as the controller holds them; say what that costs this process.

A program: reads from stdin ``{"nodes": [...], "count": N, "seconds": S, "key": PATH}`` where
nodes are ``specs.node.Node`` records. Started in the controller's host with the cluster's key.
Every connection is a real one to a real sshd, with the agent's report stream open on it, which
is what an idle controller does with a node. Connections to the same node share its agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from orchestrator.dispatch.agent import AgentClient
from orchestrator.errors import Unavailable
from orchestrator.nodes.bootstrap import clusterkey
from orchestrator.transport.ssh import SshTransport
from specs.node import Node

AT_ONCE = 4  # sshd refuses more than ten that have not logged in yet
ROUND_TRIPS = 200


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def pss() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Link:
    """One connection with its report stream."""

    def __init__(self, stack: contextlib.AsyncExitStack, client: AgentClient) -> None:
        self.stack = stack
        self.client = client
        self.lines = 0

    async def listen(self) -> None:
        async with contextlib.aclosing(self.client.reports(silence=30)) as reports:
            async for _ in reports:
                self.lines += 1


async def dial(transport: SshTransport, node: Node) -> Link:
    stack = contextlib.AsyncExitStack()
    connector = await stack.enter_async_context(transport.connect(node))
    session = aiohttp.ClientSession("http://agent", connector=connector, connector_owner=False)
    await stack.enter_async_context(session)
    client = AgentClient(session, node.name)
    await client.hello()
    return Link(stack, client)


async def measure(wanted: dict[str, Any]) -> dict[str, Any]:
    nodes = [Node.model_validate(each) for each in wanted["nodes"]]
    transport = SshTransport(clusterkey.load(Path(wanted["key"])))
    slots = asyncio.Semaphore(AT_ONCE)
    links: list[Link] = []
    errors: list[str] = []

    async def one(number: int) -> None:
        async with slots:
            try:
                links.append(await dial(transport, nodes[number % len(nodes)]))
            except Unavailable as error:
                errors.append(str(error))

    await one(0)  # what is loaded for the first counts for none
    memory, used, began = pss(), cpu(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(1, wanted["count"]):
            group.create_task(one(number))
    made = max(len(links) - 1, 1)
    found: dict[str, Any] = {
        "connections": len(links),
        "errors": errors[:3],
        "connect_s": time.monotonic() - began,
        "connect_cpu_ms": (cpu() - used) / made * 1000,
        "memory_kib": (pss() - memory) / made * 1024,
    }
    trips = []
    used = cpu()
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        await links[0].client.hello()
        trips.append((time.monotonic() - began) * 1000)
    found["trip_ms"] = sorted(trips)
    found["trip_cpu_ms"] = (cpu() - used) / ROUND_TRIPS * 1000
    listeners = [asyncio.ensure_future(link.listen()) for link in links]
    await asyncio.sleep(3.0)  # full reports first
    used, lines, began = cpu(), sum(link.lines for link in links), time.monotonic()
    await asyncio.sleep(wanted["seconds"])
    passed = time.monotonic() - began
    found["idle_percent"] = (cpu() - used) / passed * 100
    found["heartbeats_s"] = (sum(link.lines for link in links) - lines) / passed
    for listener in listeners:
        listener.cancel()
    await asyncio.wait(listeners)
    found["listeners_failed"] = sum(1 for each in listeners if not each.cancelled())
    async with asyncio.TaskGroup() as group:
        for link in links:
            group.create_task(link.stack.aclose())
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.loads(sys.stdin.read())))))
