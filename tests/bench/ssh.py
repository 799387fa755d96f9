"""What the way to the agents costs: connections, channels, round trips, bulk, the lab itself.

Run by ``python -m tests.bench.ssh`` as root. Real sshds on lab hosts, a stand-in agent behind
each; the measuring process stands in for the controller and is in the network of the host
``client``.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import aiohttp

from orchestrator.lab.host import CHECKOUT
from orchestrator.lab.lab import Lab, down
from orchestrator.nodes.bootstrap import clusterkey, install
from orchestrator.transport.ssh import SshTransport
from specs.node import Node

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

NAME = "bench-ssh"
NODES = 4
CONNECTIONS = 100
STAND_IN = Path(__file__).parents[1] / "real" / "stand_in"
SETUP = """
useradd --system --user-group -M --home-dir /var/lib/corral/ssh -s /bin/sh -p '*' corral
mkdir -p /var/lib/corral/ssh/.ssh
"""


def resident() -> float:
    """Return this process's memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def prepare(host: LabHost, line: str) -> None:
    host.run(["sh", "-ec", SETUP])
    host.write("/var/lib/corral/ssh/.ssh/authorized_keys", line)
    start = f"{sys.executable} -m agent </dev/null >/dev/null 2>&1 &"
    wait = "until [ -S /run/corral/agent.sock ]; do sleep 0.02; done"
    host.run(
        ["setsid", "sh", "-c", f"{start} {wait}"],
        env={"PYTHONPATH": f"{STAND_IN}:{CHECKOUT}", "PYTHONDONTWRITEBYTECODE": "1"},
    )


async def round_trips(http: aiohttp.ClientSession, count: int) -> tuple[list[float], float]:
    """Return the times in ms, and CPU in ms each."""
    times, cpu = [], time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        async with http.get("/v1/hello") as answer:
            await answer.read()
        times.append((time.perf_counter() - began) * 1e3)
    return sorted(times), (time.process_time() - cpu) * 1e3 / count


async def measure(lab: Lab, transport: SshTransport) -> None:
    nodes = [
        Node(id=h.name, name=h.name, address=f"root@{h.address.ipv4}", host_key=h.host_key)
        for h in lab.nodes
    ]
    async with (
        transport.connect(nodes[0]) as connector,
        aiohttp.ClientSession("http://agent", connector=connector) as http,
    ):
        await one_connection(http)
    await many(nodes, transport)


async def one_connection(http: aiohttp.ClientSession) -> None:
    await round_trips(http, 20)
    times, cpu = await round_trips(http, 300)
    print(
        f"round trip        p50 {statistics.median(times):.2f} ms,"
        f" p99 {times[int(len(times) * 0.99)]:.2f} ms, {cpu:.2f} ms CPU (hello of a stand-in)"
    )
    began, cpu = time.perf_counter(), time.process_time()
    async with http.get("/blob", params={"size": 64 << 20}) as answer:
        await answer.read()
    print(
        f"bulk              {64 / (time.perf_counter() - began):.0f} MiB/s,"
        f" {(time.process_time() - cpu) * 1e3 / 64:.1f} ms CPU a MiB"
    )


async def many(nodes: list[Node], transport: SshTransport) -> None:
    """Hold many connections, each with an open stream, as a controller does."""
    memory, began, cpu = resident(), time.perf_counter(), time.process_time()
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        gate = asyncio.Semaphore(8)  # sshd drops beyond ten that are not logged in yet

        async def follow(node: Node) -> None:
            async with gate:
                connector = await stack.enter_async_context(transport.connect(node))
                session = aiohttp.ClientSession("http://agent", connector=connector)
                http = await stack.enter_async_context(session)
                answer = await stack.enter_async_context(http.get("/v1/reports"))
                await answer.content.readline()
                opened.release()
            while await answer.content.readline():
                pass

        opened = asyncio.Semaphore(0)
        streams = [group.create_task(follow(nodes[n % NODES])) for n in range(CONNECTIONS)]
        for _ in streams:
            await opened.acquire()
        took, spent = time.perf_counter() - began, time.process_time() - cpu
        print(
            f"{CONNECTIONS} connections   {took:.1f} s, {spent * 1e3 / CONNECTIONS:.1f} ms CPU and"
            f" {(resident() - memory) * 1024 / CONNECTIONS:.0f} KiB each, with a stream"
        )
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(10)
        share = (time.process_time() - cpu) / (time.perf_counter() - began)
        print(f"holding them      {share:.1%} of a CPU at two lines a second each, and keepalives")
        for stream in streams:
            stream.cancel()


def main() -> int:
    down(NAME)
    began = time.perf_counter()
    lab = Lab.up(NAME, NODES)
    print(f"lab up            {time.perf_counter() - began:.2f} s for {NODES} hosts and a client")
    try:
        with TemporaryDirectory() as folder:
            key = clusterkey.load(Path(folder) / "key")
            for host in lab.nodes:
                prepare(host, install.authorized_key(clusterkey.public(key)))
            with lab.client.network():
                asyncio.run(measure(lab, SshTransport(key)))
    finally:
        began = time.perf_counter()
        lab.down()
        print(f"lab down          {time.perf_counter() - began:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
