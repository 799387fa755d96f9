"""What many nodes cost one controller: ``python -m tests.bench.thousand [AGENTS [STACKS]]``.

By hand; ten minutes for a thousand. The product's controller in one process, its nodes simulated
in another, between them the bytes of the wire (controller.py says what differs). Each stack has
20 services of 10 replicas, so that 1,000 nodes and 100 stacks are 20,000 tasks, 20 a node. The
figures are in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from specs.wire import HEARTBEAT
from tests.bench import machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

SERVICES, REPLICAS = 20, 10
CHANGES = (
    "one service changed, at once",
    "a published service changed",
    "one service changed, one by one",
)
AT_ONCE = 10  # stacks that are brought up together
LONGEST = 1800.0  # seconds anything may take
IDLE = 60.0  # seconds of doing nothing: two of the controller's looks at everything
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """Seconds of wall and of the controller's processor, its memory, its longest turn."""

    name: str
    wall: float = 0.0
    cpu: float = 0.0
    rss: float = 0.0  # MiB
    turn: float = 0.0
    load: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.wall:.2f} s, {self.cpu:.2f} CPU s of the controller, "
            f"{self.rss:.0f} MiB, longest turn {1000 * self.turn:.0f} ms, load {self.load:.0f}"
            f"{'; ' + self.note if self.note else ''}"
        )


@dataclass
class Cluster:
    """The two processes, and the controller's API."""

    agents: int
    folder: Path
    services: int = SERVICES  # of each stack
    heartbeat: float = HEARTBEAT
    profiled: str = ""
    found: list[Figures] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        (self.folder / "nodes").mkdir(exist_ok=True)
        (self.folder / "run").mkdir(exist_ok=True)
        pipe = asyncio.subprocess.PIPE
        python = (sys.executable, "-m")
        self.fleet = await asyncio.create_subprocess_exec(
            *(*python, "tests.bench.thousand.agents", self.folder / "nodes", str(self.agents)),
            stdin=pipe,
            stdout=pipe,
        )
        assert self.fleet.stdout is not None
        await self.fleet.stdout.readline()
        with (self.folder / "log").open("w") as log:
            self.controller = await asyncio.create_subprocess_exec(
                *(*python, "tests.bench.thousand.controller", self.folder, str(self.agents)),
                str(self.heartbeat),
                stderr=log,
            )
        socket = self.folder / "run" / "controller.sock"
        self.http = aiohttp.ClientSession(
            "http://corral",
            connector=aiohttp.UnixConnector(str(socket)),
            timeout=aiohttp.ClientTimeout(total=LONGEST),
            read_bufsize=1 << 20,
        )
        await self.until(socket.exists)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        for process in (self.controller, self.fleet):
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(LONGEST):
            while not check():
                assert self.controller.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.02)

    # Its API.

    async def get(self, path: str) -> Any:
        async with self.http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def lines(self, path: str) -> AsyncIterator[dict[str, Any]]:
        async with self.http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.strip():
                    yield json.loads(line)

    async def post(self, stack: str, project: dict[str, Any]) -> int:
        body = {"key": f"{stack}-{time.monotonic_ns()}", "project": project}
        async with self.http.post(f"/v1/stacks/{stack}/releases", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return int((await answer.json())["number"])

    async def ends(self, stack: str, release: int) -> dict[str, Any]:
        """Return the last line of a release's progress."""
        line: dict[str, Any] = {}
        async for line in self.lines(f"/v1/stacks/{stack}/progress?release={release}"):
            if line["kind"] == "end":
                break
        assert line.get("ok"), line
        return line

    async def kill(self, name: str) -> None:
        assert self.fleet.stdin is not None
        assert self.fleet.stdout is not None
        self.fleet.stdin.write(f"kill {name}\n".encode())
        await self.fleet.stdout.readline()

    # Its figures.

    def cpu(self) -> float:
        stat = Path(f"/proc/{self.controller.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS

    def rss(self) -> float:
        status = Path(f"/proc/{self.controller.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def turn(self, since: float) -> float:
        file = self.folder / "turns"
        lines = file.read_text().splitlines() if file.exists() else []
        told = (line.split() for line in lines)
        return max((float(took) for at, took in told if float(at) >= since), default=0.0)

    async def step(self, name: str, do: Callable[[], Any]) -> Figures:
        """Do it; note what it took. ``do`` may return the seconds that count, and words."""
        profiled = name.startswith(self.profiled or "-") and not (self.folder / "profile").exists()
        if profiled:
            self.controller.send_signal(signal.SIGUSR2)
            await asyncio.sleep(0.2)
        began, wall, cpu = time.time(), time.monotonic(), self.cpu()
        told = await do()
        took, cpu = time.monotonic() - wall, self.cpu() - cpu
        if profiled:
            self.controller.send_signal(signal.SIGUSR2)
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.15)  # the watchdog looks
        figures = Figures(name, took, cpu, self.rss(), self.turn(began), machine.load())
        if told is not None:
            figures.wall, figures.note = told
        self.found.append(figures)
        print(figures, flush=True)
        return figures


def project(
    stack: str, count: int, *, published: bool, value: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return a stack's canonical mapping; ``value`` = an environment variable of its services."""
    services: dict[str, Any] = {}
    for number in range(1, count + 1):
        name = f"s{number}"
        services[name] = {
            "image": f"{stack}-{name}:1",
            "environment": {"MODE": "production", "CHANGED": (value or {}).get(name, "0")},
            "networks": {"default": None},
            # Watching what was changed (5 s by default) is no work of the controller's.
            "healthcheck": {"test": ["CMD", "true"]},
            "deploy": {
                "replicas": REPLICAS,
                "update_config": {"parallelism": 0, "monitor": "0s"},
            },
        }
    services["s2"]["deploy"]["update_config"]["parallelism"] = 1
    if published:
        services["s1"]["ports"] = [{"target": 80, "published": "8080"}]
    return {
        "name": stack,
        "services": services,
        "networks": {"default": {"name": f"{stack}_default"}},
    }


async def measure(
    cluster: Cluster,
    stacks: int,
    *,
    idle: float,
    rounds: int,
    changes: Collection[str] = CHANGES,
    there: bool = False,
) -> list[Figures]:
    """Bring everything up, leave it alone, change a service, lose a node.

    ``there``: the stacks are in the controller's state already; its nodes have nothing yet.
    """
    names = [f"app{number:03d}" for number in range(1, stacks + 1)]

    async def met() -> None:
        while True:
            nodes = (await cluster.get("/v1/nodes"))["nodes"]
            if [n["status"] for n in nodes] == ["ready"] * cluster.agents:
                return
            await asyncio.sleep(0.5)

    async def up() -> None:
        some = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with some:
                number = await cluster.post(
                    name, project(name, cluster.services, published=name == names[0])
                )
                await cluster.ends(name, number)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))

    async def again() -> None:
        for name in names:
            while not all(
                task["ready"] for task in (await cluster.get(f"/v1/stacks/{name}/tasks"))["tasks"]
            ):
                await asyncio.sleep(0.5)

    async def rest() -> tuple[float, str]:
        cpu = cluster.cpu()
        await asyncio.sleep(idle)
        share = (cluster.cpu() - cpu) / idle
        return idle, f"{100 * share:.1f} % of a core"

    await cluster.step("all nodes met", met)
    await cluster.step("all stacks up", again if there else up)
    await asyncio.sleep(min(idle, 15.0))  # what is late
    await cluster.step("idle", rest)
    values: dict[str, dict[str, str]] = {name: {} for name in names}
    begun = int(time.time()) if there else 1  # other values than the runs before
    for number in range(rounds):
        for what, stack, service in (
            (CHANGES[0], names[-1], "s3"),
            (CHANGES[1], names[0], "s1"),
            (CHANGES[2], names[-1], "s2"),
        ):
            if what not in changes:
                continue
            values[stack][service] = str(begun + number)

            async def change(stack: str = stack) -> None:
                public = stack == names[0]
                files = project(stack, cluster.services, published=public, value=values[stack])
                await cluster.ends(stack, await cluster.post(stack, files))

            await cluster.step(what, change)
    for number in range(rounds):
        node = f"n{1 + number:04d}"
        there = {
            task["name"]
            for stack in names
            for task in (await cluster.get(f"/v1/stacks/{stack}/tasks"))["tasks"]
            if task["node"] == node
        }
        await cluster.step("a node lost", partial(lose, cluster, node, there))
    return cluster.found


async def lose(cluster: Cluster, node: str, there: set[str]) -> tuple[float, str]:
    """Lose a node; return the seconds from "it is down" until the last of its tasks runs."""
    assert there
    down = last = 0.0
    count = len(there)
    events = cluster.lines("/v1/events")
    await cluster.kill(node)
    async for event in events:
        if event["kind"] == "node.down" and event["node"] == node:
            down = event["time"]
        elif event["kind"] == "task.running":
            there.discard(event["message"].partition(" ")[0])
            last = event["time"]
            if not there:
                break
    assert down
    return last - down, f"{count} tasks"


async def run(cluster: Cluster, asked: argparse.Namespace) -> None:
    changes = CHANGES[:2] if asked.quick else CHANGES
    async with cluster:
        await measure(
            cluster,
            asked.stacks,
            idle=asked.idle,
            rounds=asked.rounds,
            changes=changes,
            there=asked.state is not None,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.thousand", description=__doc__)
    add = parser.add_argument
    add("agents", type=int, nargs="?", default=1000)
    add("stacks", type=int, nargs="?", default=100, help="of 200 tasks each")
    add("--idle", type=float, default=IDLE, help="seconds of doing nothing that are looked at")
    add("--rounds", type=int, default=3)
    add("--quick", action="store_true", help="without the change one by one")
    add("--profile", default="", help="the step of which the controller leaves a profile")
    add("--state", type=Path, help="begin with the controller's state of a run that was kept")
    add("--keep", type=Path, help="a new folder for the controller's log, turns and profile")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="corral-thousand-")
        folder = asked.keep or Path(stack.enter_context(made))
        folder.mkdir(exist_ok=True)
        if asked.state is not None:
            shutil.copytree(asked.state / "state", folder / "state")
        cluster = Cluster(asked.agents, folder, profiled=asked.profile)
        asyncio.run(run(cluster, asked))


if __name__ == "__main__":
    main()
