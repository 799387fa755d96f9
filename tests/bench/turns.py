"""What a large stack costs the controller's event loop, turn by turn.

python -m tests.bench.turns [REPLICAS [NODES]]     by hand; half a minute

The real control loop over nodes that do at once what they are told, so that nearly all of the
time is the controller's own. Virtual time: what is waited for costs nothing. Of each step it says
how long the loop was held at most (processor time of one turn) and what a pass cost in all; the
figures are in docs/benchmarks.md, what the tests allow is in tests/stalled.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import gc
import os
import pstats
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.control.control import ControlLoop
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.dispatch.instructions import difference, is_empty
from orchestrator.store import keys
from orchestrator.store.base import Put
from orchestrator.store.memory import MemoryStore
from specs.api import ClientMachine, Deploy
from specs.kit import collecting
from specs.kit.turns import OneATurn
from specs.node import Node, NodeFacts
from specs.states import Desired, Health, TaskState
from specs.task import Run, TaskStatus
from specs.wire import PROTOCOL, Hello, Objects, Report, ResolvedImage
from tests.bench.passes import Turns
from tests.fakes.simulator import LoopClock
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import PlainSealer
from tests.virtual_time import in_virtual_time, install, until_something_is_due

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UP = TaskStatus(
    state=TaskState.RUNNING,
    ready=True,
    health=Health.HEALTHY,
    runs=(Run(number=1, pid=1, started_at=1_700_000_000.0),),
)
GONE = frozenset({Desired.SHUTDOWN, Desired.REMOVED})


class Agents:
    """What the control loop asks of the dispatcher: images are there."""

    async def resolve_image(self, node: str, request: Any) -> ResolvedImage:
        return ResolvedImage(image=request.image, digest=f"sha256:{request.image}")

    async def transfer(self, node: str, image: str) -> tuple[int, int]:
        return (0, 0)

    async def listening(self, node: str) -> tuple[str, ...]:
        return ()

    async def remove_volume(self, node: str, name: str) -> None:
        pass


class Quick:
    """A node that does at once what it is told."""

    def __init__(self, bench: Bench, node: str) -> None:
        self.bench = bench
        self.node = node
        self.statuses: dict[str, TaskStatus] = {}

    async def run(self) -> None:
        control, cluster = self.bench.control, self.bench.cluster
        changed = control.changed(self.node)
        await control.connected(self.node, Hello(node=self.node, facts=_facts(self.node)))
        sent: Objects = Objects()
        full = True
        while True:
            changed.clear()
            async with self.bench.turns.mine():
                revision = cluster.revision
                began = time.thread_time()
                _, wanted = control.wanted(self.node)
                put, remove = difference(sent, wanted)
                self.bench.sets.append(time.thread_time() - began)
            sent = wanted
            await asyncio.sleep(0)  # what a node does is no part of the controller's turn
            if full or not is_empty(put, remove):
                await self._do(put, full=full)
            control.acknowledged(self.node, revision)
            full = False
            await changed.wait()
            await asyncio.sleep(0.015)

    async def _do(self, put: Objects, *, full: bool) -> None:
        moved, gone = {}, []
        for task in put.tasks.values():
            if task.desired is Desired.REMOVED:
                self.statuses.pop(task.id, None)
                gone.append(task.id)
            elif task.desired in GONE:
                self.statuses[task.id] = moved[task.id] = UP.model_copy(
                    update={"state": TaskState.SHUTDOWN, "ready": False}
                )
            elif task.id not in self.statuses and task.desired is Desired.RUNNING:
                self.statuses[task.id] = moved[task.id] = UP
        said = Report(tasks=self.statuses if full else moved, gone=tuple(gone), full=full)
        if moved or gone or full:
            await self.bench.control.ingest(self.node, said)

    async def say(self, task: str, **update: Any) -> None:
        status = self.statuses[task].model_copy(update=update)
        await self.bench.control.ingest(self.node, Report(tasks={task: status}))


def _facts(node: str) -> NodeFacts:
    return NodeFacts(hostname=node, boot_id=node, cpus=64.0, memory=64 << 30, wire=PROTOCOL)


class Bench:
    """A controller, its nodes, and what each step of it cost."""

    def __init__(self, nodes: int) -> None:
        self.store = MemoryStore()
        self.clock = LoopClock()
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.passes: list[float] = []
        self.sets: list[float] = []
        self.turns = OneATurn()
        self.quick: dict[str, Quick] = {node: Quick(self, node) for node in self.nodes}
        self._group = asyncio.TaskGroup()
        self._running: list[asyncio.Task[Any]] = []

    async def begin(self) -> None:
        for number, name in enumerate(self.nodes, 1):
            node = Node(
                id=name,
                name=name,
                address=f"root@{name}",
                underlay=f"192.0.2.{number}",
                overlay=f"10.210.0.{number}",
                facts=_facts(name),
            )
            await self.store.txn((), (Put(keys.node(name), node.encode()),))
        await self.boot()

    async def boot(self) -> None:
        self.cluster = await Cluster.open(self.store, self.clock)
        self.control = ControlLoop(
            self.store,
            self.cluster,
            self.clock,
            random.Random(7),
            PlainSealer(),
            Agents(),  # type: ignore[arg-type]
        )
        make = asyncio.get_running_loop().create_task
        self._running = [make(self.cluster.follow()), make(self.control.run())]
        self._running += [make(quick.run()) for quick in self.quick.values()]

    async def halt(self) -> None:
        for task in self._running:
            task.cancel()
        for task in self._running:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(3600):
            while not check():
                await until_something_is_due()

    def ready(self, stack: str) -> int:
        found = self.cluster.by_stack.get(stack, {}).values()
        return sum(t.live and t.status.ready for t in found)


def usual(took: list[float]) -> float:
    """Return the median of those that did anything."""
    return statistics.median([one for one in took if one > 0.001] or [0.0])


async def measure(count: int, nodes: int, profiled: str) -> None:
    """Bring a stack up, change one task, scale it, start the controller anew."""
    bench = Bench(nodes)
    real: Any = ControlLoop._pass

    async def timed(self: ControlLoop) -> float | None:
        began = time.thread_time()
        try:
            due: float | None = await real(self)
        finally:
            bench.passes.append(time.thread_time() - began)
        return due

    ControlLoop._pass = timed  # type: ignore[method-assign]
    with Turns(beside="measure.<locals>.step") as turns:
        await bench.begin()

        async def step(name: str, do: Callable[[], Awaitable[Any]], done: Any) -> None:
            bench.passes.clear()
            bench.sets.clear()
            turns.clear()
            profile = cProfile.Profile(time.thread_time) if profiled == name else None
            if profile is not None:
                profile.enable()
            cpu = time.process_time()
            await do()
            await bench.until(done)
            await asyncio.sleep(3)
            if profile is not None:
                profile.disable()
                pstats.Stats(profile).sort_stats("tottime").print_stats(45)
                pstats.Stats(profile).sort_stats("cumtime").print_stats(70)
            worst = ", ".join(
                f"{owner.rpartition('.')[0] or owner} {1000 * took:.1f}"
                for owner, took in sorted(turns.longest.items(), key=lambda i: -i[1])[:4]
            )
            print(
                f"{name}: {time.process_time() - cpu:.2f} CPU s; {len(bench.passes)} passes, "
                f"the usual {1000 * usual(bench.passes):.1f} ms, longest "
                f"{1000 * max(bench.passes):.1f} ms; a node's set, the usual "
                f"{1000 * usual(bench.sets):.1f} ms; "
                f"longest turn {1000 * turns.all:.1f} ms; of one task, in ms: {worst}",
                flush=True,
            )

        files = project(web=replicas(count, healthcheck={"test": ["CMD", "true"]}))
        request = Deploy(key="1", project=files, client=ClientMachine())
        # What loads with the first stack is no pass's cost.
        small = project(web={})
        small["networks"]["default"]["name"] = "small_default"
        await step(
            "first",
            lambda: bench.control.deploy(
                "small", Deploy(key="0", project=small, client=ClientMachine())
            ),
            lambda: bench.ready("small") == 1,
        )
        await step(
            "up",
            lambda: bench.control.deploy("app", request),
            lambda: bench.ready("app") == count,
        )

        async def flip() -> None:
            task = next(iter(bench.cluster.by_stack["app"].values()))
            quick = bench.quick[task.node or ""]
            for number in range(20):
                await quick.say(task.id, ready=bool(number % 2))
                await asyncio.sleep(0.5)

        await step("one changes", flip, lambda: bench.ready("app") == count)

        async def watch() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(15):
                    await flip()

        await step("one changes again", watch, lambda: bench.ready("app") == count)

        async def again() -> None:
            await bench.halt()
            await bench.boot()

        await step("controller anew", again, lambda: bench.ready("app") == count)
        await step(
            "scale to 0",
            lambda: bench.control.scale("app", {"web": 0}),
            lambda: not bench.cluster.by_stack["app"],
        )
        await step(
            "scale back",
            lambda: bench.control.scale("app", {"web": count}),
            lambda: bench.ready("app") == count,
        )
        await bench.halt()


if __name__ == "__main__":
    wanted = [int(text) for text in sys.argv[1:3]] + [1000, 10][len(sys.argv[1:3]) :]
    install()
    gc.collect()
    gc.freeze()  # as a daemon does with what it imported
    with collecting.aside():
        in_virtual_time(measure(*wanted, os.environ.get("PROFILE", "")))
