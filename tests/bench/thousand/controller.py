"""The controller's process: ``python -m tests.bench.thousand.controller FOLDER COUNT HEARTBEAT``.

The product's own ``controller.run``, store and all. Two things differ: its nodes are members
already when it starts (joining is SSH), and where it would open a channel of an SSH connection to
an agent's socket it opens a socket of ``FOLDER/nodes``. What is said over it is the same bytes.

Beside it a thread of the product's watchdog looks at the loop's turns; here it also notes the
longest one of each look in ``FOLDER/turns``. SIGUSR2 begins a profile, and ends it into
``FOLDER/profile``.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from orchestrator import controller
from orchestrator.config import ControllerConfig
from orchestrator.errors import Unavailable
from orchestrator.keys import vault
from orchestrator.nodes.machines import Machines
from orchestrator.store import keys
from orchestrator.store.base import Put
from orchestrator.store.sqlite import SqliteStore
from specs.kit import allocator, collecting, log, stalls
from specs.node import Node
from tests.bench.thousand.agents import names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BATCH = 100


class Sockets(Machines):
    """The way to simulated nodes: one that is gone cannot be reached, as over SSH."""

    folder = Path()

    @contextlib.asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[aiohttp.BaseConnector]:
        path = self.folder / f"{node.name}.sock"
        if not path.exists():
            raise Unavailable(f"{node.name} does not answer")
        connector = aiohttp.UnixConnector(path=str(path), limit=512)
        try:
            yield connector
        finally:
            await connector.close()


async def join(config: ControllerConfig, count: int) -> None:
    """Make the nodes members, as the state of a cluster that was grown before."""
    controller.folders(config)
    vault.load(config.key, fresh=True)
    store = await SqliteStore.open(config.database)
    nodes = [
        Node(
            id=f"n-{name}",
            name=name,
            address=f"root@{name}",
            underlay=f"192.0.{2 + number // 250}.{1 + number % 250}",
            overlay=f"10.210.{number // 250}.{1 + number % 250}",
            mtu=1500,
            joined_at=time.time(),
        )
        for number, name in enumerate(names(count))
    ]
    for at in range(0, count, BATCH):
        writes = tuple(Put(keys.node(n.id), n.encode()) for n in nodes[at : at + BATCH])
        await store.txn((), writes)
    await store.close()


def note_turns(file: Path) -> None:
    """Have the watchdog write down the longest turn of each of its looks."""
    real: Any = stalls.Watch.look

    def look(self: Any, now: float, *, last: bool = False) -> None:
        longest = self._turns.longest[1]
        if longest > 0.005:
            with file.open("a") as out:
                out.write(f"{time.time():.3f} {longest:.4f}\n")
        real(self, now, last=last)

    stalls.Watch.look = look  # type: ignore[method-assign]


def profile_on_signal(file: Path) -> None:
    running: list[cProfile.Profile] = []

    def toggle() -> None:
        if running:
            profile = running.pop()
            profile.disable()
            profile.dump_stats(str(file))
        else:
            running.append(cProfile.Profile(time.thread_time))
            running[0].enable()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, toggle)


async def main(folder: Path, count: int, heartbeat: float) -> None:
    config = ControllerConfig(
        state_dir=folder / "state", run_dir=folder / "run", heartbeat=heartbeat
    )
    if not config.database.exists():
        await join(config, count)
    Sockets.folder = folder / "nodes"
    controller.Machines = Sockets  # type: ignore[misc]
    note_turns(folder / "turns")
    profile_on_signal(folder / "profile")
    await controller.run(config, embedded=False)


if __name__ == "__main__":
    allocator.frugal()
    log.configure()
    os.umask(0o077)
    with collecting.aside():
        stalls.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
