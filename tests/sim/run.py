"""Run one seed: the cluster comes up, faults and users have their time, then it must heal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.sim import schedule
from tests.sim.ending import BOUND, differences
from tests.sim.faults import Faults
from tests.sim.loop import Spinning
from tests.sim.user import Users
from tests.sim.world import World, made

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.sim.laws import Broken

LENGTH = 60.0  # simulated seconds of faults
COMES_UP = 90.0
LEAK_AGAIN = 3.0  # seconds for what is on its way out to be gone


@dataclass
class Outcome:
    """What became of a seed."""

    seed: int
    broken: Broken | None
    events: list[schedule.Event]
    simulated: float
    cpu: float
    digest: str
    trace: list[str] = field(default_factory=list)
    healed: float = 0.0  # simulated seconds from the end of the faults until all was as wanted
    checks: int = 0

    @property
    def words(self) -> str:
        if self.broken is None:
            cost = f"{self.simulated:.0f} s in {self.cpu:.2f} s of CPU"
            return f"seed {self.seed}: every law held ({cost})"
        law, at = self.broken.law, self.broken.at
        return f"seed {self.seed}: law: {law}: {self.broken.words} (at {at:.3f} s)"


def run(
    seed: int,
    *,
    length: float = LENGTH,
    only: Collection[int] | None = None,
    log: bool = False,
    exclusive: bool = False,
) -> Outcome:
    """Run a seed; ``only`` these events of its schedule; ``exclusive``: with such a service."""
    began = time.process_time()
    events = schedule.make(seed, length)
    if only is not None:
        events = [event for event in events if event.number in only]
    with made(seed, log=log) as world:
        world.users = Users(world)
        if exclusive:
            world.users.add_exclusive()
        story = Story(world, events, length)
        try:
            world.loop.run_until_complete(story.tell())
        except Spinning as error:
            world.broke("no circles", str(error))
        return Outcome(
            seed=seed,
            broken=world.broken,
            events=events,
            simulated=world.now,
            cpu=time.process_time() - began,
            digest=world.traced.digest(),
            trace=world.traced.log if world.traced.log is not None else world.traced.lines,
            healed=story.healed,
            checks=world.laws.checks,
        )


class Story:
    """The three parts of a run."""

    def __init__(self, world: World, events: list[schedule.Event], length: float) -> None:
        self.world = world
        self.events = events
        self.length = length
        self.healed = 0.0

    async def tell(self) -> None:
        telling = asyncio.ensure_future(self._tell())
        over = asyncio.ensure_future(self.world.over.wait())
        await asyncio.wait({telling, over}, return_when=asyncio.FIRST_COMPLETED)
        for one in (telling, over):
            one.cancel()
        if not telling.cancelled() and telling.done() and telling.exception() is not None:
            raise telling.exception()  # type: ignore[misc] - it is not None

    async def _tell(self) -> None:
        world, users = self.world, self.world.users
        for host in world.hosts:
            host.begin_agent()
        world.begin_controller()
        for host in world.hosts:
            users.away.add(host.name)
            users.begin(f"node add {host.name}", "nodes", partial(users.add_node, host.name))
        for name in users.files:
            users.begin(f"up {name}", name, partial(users.up, name))
        await self._until_as_wanted(COMES_UP)
        world.trace("all is up")
        faults, start = Faults(world), world.now
        for event in self.events:
            world.later(event.at, lambda event=event: faults.do(event))
        while world.now < start + self.length:
            if not int(world.now) % 5 and not world.rewound:
                world.backups.append((world.now, world.store.copy()))
            await asyncio.sleep(1.0)
            world.laws.look()
        faults.heal()
        world.trace("heal")
        for host in world.hosts:
            users.begin(f"node add {host.name}", "nodes", partial(users.add_node, host.name))
            users.begin(
                f"node active {host.name}", "nodes", partial(users.available, host.name, "active")
            )
        for name in users.files:
            users.begin(f"up {name}", name, partial(users.up, name))
        began = world.now
        await self._until_as_wanted(BOUND)
        self.healed = world.now - began

    async def _until_as_wanted(self, bound: float) -> None:
        world = self.world
        until, quiet = world.now + bound, 0.0
        while True:
            await asyncio.sleep(1.0)
            world.laws.look()
            found = differences(world)
            quiet = 0.0 if found else quiet + 1.0
            if quiet > LEAK_AGAIN:
                return
            if world.now >= until:
                law = "all as wanted"
                if found and "left on" in found[0]:
                    law = "nothing leaks"
                elif found and "is told" in found[0]:
                    law = "truly told"
                world.broke(law, "; ".join(found[:6]) or "not quiet")
                return
