"""One life of the controller: the product's parts over a store that outlives it.

The parts and their order are those of ``orchestrator.controller.compose``, less sockets, keys and
certificates. The store's engine is the one in memory, on what its disk has; it can be killed before
or after a commit, be full, fail, or be slow.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.control.control import ControlLoop
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.state import StateQuestion
from orchestrator.dispatch.behind import compare
from orchestrator.errors import Conflict, Unavailable
from orchestrator.keys import identity
from orchestrator.keys.sealing import SealedStore
from orchestrator.nodes.members import Nodes
from orchestrator.store.base import StoreUnavailable
from orchestrator.store.log import ChangeLog
from orchestrator.store.memory import MemoryStore
from tests.fakes.sealer import PlainSealer
from tests.sim import loop as sim_loop
from tests.sim.host import SimClock
from tests.sim.loop import Killed, alive
from tests.sim.wire import SimDispatcher

if TYPE_CHECKING:
    from orchestrator.store.base import Compare, Delete, Put, Result, Stored
    from tests.sim.world import World

__all__ = ["Controller", "StoreDisk", "compare"]


@dataclass
class StoreDisk:
    """What is in the state file; copies are made of it as backups are."""

    entries: dict[str, Stored] = field(default_factory=dict)
    revision: int = 0
    full: bool = False
    failing: bool = False
    slow: float = 0.0
    kill_in: int = 0  # at so many more commits the controller is killed
    kill_after: bool = False  # after it, so that it is there and nobody was told

    def copy(self) -> StoreDisk:
        return StoreDisk(dict(self.entries), self.revision)


class SimEngine(MemoryStore):
    """The engine in memory, over what the disk has."""

    def __init__(self, disk: StoreDisk, controller: Controller) -> None:
        super().__init__()
        self._entries = disk.entries
        self._log = ChangeLog(disk.revision)
        self._disk = disk
        self._controller = controller

    async def txn(
        self, compares: tuple[Compare, ...] = (), writes: tuple[Put | Delete, ...] = ()
    ) -> Result:
        alive()
        disk = self._disk
        if disk.slow:
            await asyncio.sleep(disk.slow)
            alive()
        if disk.full:
            raise StoreUnavailable("the state file: no space left on device")
        if disk.failing:
            raise StoreUnavailable("the state file: input/output error")
        dies = False
        if disk.kill_in and writes:
            disk.kill_in -= 1
            dies = disk.kill_in == 0
        if dies and not disk.kill_after:
            self._controller.world.kill_controller()
            raise Killed
        before = {write.key: self._entries.get(write.key) for write in writes}
        result = await super().txn(compares, writes)
        if result.ok:
            disk.revision = result.revision
            self._controller.world.laws.committed(self._controller, writes, before)
        if dies:
            self._controller.world.kill_controller()
            raise Killed
        return result


class Controller(sim_loop.Process):
    """A controller at ``place``; several may live at once, where one was cut off."""

    def __init__(self, world: World, disk: StoreDisk, place: str) -> None:
        super().__init__(f"controller {place}", world.hosts[0])
        self.world = world
        self.disk = disk
        self.place = place
        self.ready = asyncio.Event()
        self.cluster: Any = None
        self.control: Any = None
        self.dispatcher: Any = None

    async def run(self) -> None:
        world = self.world
        clock, rng = SimClock(self.host), world.chance(f"controller {len(world.controllers)}")
        sealer = PlainSealer()
        store = SealedStore(SimEngine(self.disk, self), sealer)
        self.store = store
        found = await self._identity(store, clock, rng)
        self.cluster = await Cluster.open(store, clock)
        self.dispatcher = SimDispatcher(
            store=store,
            cluster=self.cluster,
            identity=found,
            transport=None,  # type: ignore[arg-type] - it dials over the simulated wire
            clock=clock,
            rng=rng,
        )
        self.dispatcher.place, self.dispatcher.world = self.place, world
        self.dispatcher.process = self
        self.control = ControlLoop(store, self.cluster, clock, rng, sealer, self.dispatcher)
        self.nodes = Nodes(
            store=store,
            cluster=self.cluster,
            agents=self.dispatcher,
            pool=found.pool,
            clock=clock,
            rng=rng,
        )
        self.state = StateQuestion(store, self.cluster, sealer, self.dispatcher, clock)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cluster.follow(), name="mirror")
            group.create_task(self._control(), name="control")
            group.create_task(self.dispatcher.run(self.control), name="dispatcher")
            world.trace(self.name, "up", f"revision {self.disk.revision}")
            self.ready.set()

    async def _identity(self, store: Any, clock: Any, rng: Any) -> Any:
        while True:
            try:
                return await identity.load(store, clock=clock, rng=rng, routes=())
            except StoreUnavailable:
                await asyncio.sleep(1.0)  # it ends with words, and is started again

    async def _control(self) -> None:
        await self.dispatcher.ready.wait()
        self.world.trace(self.name, "epoch", str(self.dispatcher.identity.epoch))
        self.world.laws.took_epoch(self.dispatcher.identity.epoch)
        await self.control.run()

    async def answering(self) -> Controller:
        """Return it once the API would take a change. Raises Unavailable, Conflict."""
        if not self.ready.is_set():
            raise Unavailable("no controller answers")
        await self.dispatcher.settled.wait()
        behind = self.dispatcher.behind
        if why := behind.words if behind else self.dispatcher.superseded:
            raise Conflict(why)
        return self
