"""What a large stack costs the controller: the real control loop over simulated nodes.

python -m tests.bench.passes [REPLICAS [PORTS [NODES]]]     by hand; a minute or two

Virtual time, so what is waited for costs nothing; what is counted is the CPU the controller's own
code takes: each pass of the control loop, and the longest turn of the event loop that belongs to
the controller (passes and sessions with nodes) and not to the simulated nodes beside it. The
figures are in docs/benchmarks.md; the bounds they led to in specs/bounds.py.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Self

from orchestrator.control.control import ControlLoop
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig
from tests.virtual_time import in_virtual_time, install

_OURS = ("ControlLoop", "AgentSession", "Cluster.", "Streams", "FakeNode._run")


class Turns:
    """The longest turns of the event loop: of what ran, and of all that ran in one turn.

    The daemons' watch (``specs.kit.stalls``) counts the latter.
    """

    def __init__(self, beside: str = "") -> None:
        self.longest: dict[str, float] = {}
        self.all: float = 0.0
        self._beside = beside  # whose work does not count
        self._now: dict[str, float] = {}
        self.made_of: dict[str, float] = {}  # the longest
        self._run: Any = asyncio.events.Handle._run
        self._run_once: Any = asyncio.base_events.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def clear(self) -> None:
        self.longest, self.all, self.made_of = {}, 0.0, {}

    def __enter__(self) -> Self:
        turns = self

        def timed(handle: Any) -> None:
            began = time.thread_time()
            turns._run(handle)
            took = time.thread_time() - began
            owner = getattr(handle._callback, "__self__", None)
            coroutine = owner.get_coro() if isinstance(owner, asyncio.Task) else None
            name = getattr(coroutine, "__qualname__", "") or "callback"
            turns.longest[name] = max(turns.longest.get(name, 0.0), took)
            turns._now[name] = turns._now.get(name, 0.0) + took

        def once(loop: Any) -> None:
            turns._now = {}
            turns._run_once(loop)
            took = sum(s for name, s in turns._now.items() if name != turns._beside)
            if took > turns.all:
                turns.all, turns.made_of = took, turns._now

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]
        asyncio.base_events.BaseEventLoop._run_once = once  # type: ignore[attr-defined]
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.events.Handle._run = self._run  # type: ignore[method-assign]
        asyncio.base_events.BaseEventLoop._run_once = self._run_once  # type: ignore[attr-defined]

    @property
    def ours(self) -> float:
        """Return the longest turn of the controller's own tasks."""
        return max((s for name, s in self.longest.items() if name.startswith(_OURS)), default=0.0)


def _memory() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def measure(count: int, ports: int, nodes: int) -> None:
    """Bring a stack up, change one task, scale it to nothing; print what each step took."""
    passes: list[float] = []
    real: Any = ControlLoop._pass

    async def timed(self: ControlLoop) -> float | None:
        began = time.thread_time()
        try:
            due: float | None = await real(self)
        finally:
            passes.append(time.thread_time() - began)
        return due

    ControlLoop._pass = timed  # type: ignore[method-assign]
    published = [{"target": 1 + n, "published": str(20000 + n)} for n in range(ports)]
    files = project(web=replicas(count - 1), gate={"image": "gate", "ports": published})
    before = _memory()
    with Turns() as turns:
        async with Rig(nodes=nodes) as rig:

            async def step(name: str, do: Any, done: Any) -> None:
                passes.clear()
                turns.longest.clear()
                began, cpu = rig.clock.monotonic(), time.process_time()
                await do()
                await rig.until(done, within=3600)
                await asyncio.sleep(3)
                worst = max(passes, default=0.0)
                middle = statistics.median(passes) if passes else 0.0
                print(
                    f"{name}: {rig.clock.monotonic() - began - 3:.1f} s simulated, "
                    f"{time.process_time() - cpu:.1f} CPU s with the nodes' simulators, "
                    f"{len(passes)} passes, median {middle:.3f} s, longest {worst:.3f} s, "
                    f"longest turn {turns.ours:.3f} s, memory {_memory() - before:.0f} MiB",
                    flush=True,
                )

            await step("up", lambda: rig.up(files), lambda: len(rig.ready("web")) == count - 1)
            task = rig.ready("web")[0]

            async def end() -> None:
                rig.nodes[task.node or ""].unhealthy(task.id)

            await step("one changes", end, lambda: len(rig.ready("web")) >= count - 2)
            await step(
                "scale to 0",
                lambda: rig.control.scale("app", {"web": 0}),
                lambda: not rig.live("web"),
            )


if __name__ == "__main__":
    wanted = [int(text) for text in sys.argv[1:]] + [3000, 1000, 10][len(sys.argv) - 1 :]
    install()
    in_virtual_time(measure(*wanted))
