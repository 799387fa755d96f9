"""Who uses the cluster: the files, the commands, and what was acknowledged of them.

A user does one thing at a time to one stack, and tries again until it is acknowledged (with the
same key, so that it happens once). What was acknowledged is the wanted state that the cluster is
held to in the end; nothing of it is read back from the cluster.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Conflict, NotFound, RequestError, Unavailable
from orchestrator.store.base import StoreUnavailable
from specs.api import Deploy, Restart, Start
from tests.sim import loop as sim_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sim.controller import Controller
    from tests.sim.world import World

DECIDED = 20.0  # seconds after which what was taken over is as any other task
ANSWER = 20.0  # seconds a command waits for its answer
CHECK = {
    "test": ["CMD", "true"],
    "interval": "5s",
    "retries": 3,
    "timeout": "2s",
    "start_period": "8s",
    "start_interval": "400ms",
}


def service(image: str, replicas: int, **more: Any) -> dict[str, Any]:
    """Return a canonical service."""
    deploy = {"replicas": replicas, **more.pop("deploy", {})}
    usual = {"image": f"{image}:1", "networks": {"default": None}, "restart": "always"}
    return {**usual, "deploy": deploy, **more}


def volume(name: str) -> dict[str, Any]:
    return {"volumes": [{"type": "volume", "source": name, "target": "/data"}]}


def files() -> dict[str, dict[str, Any]]:
    """Return the stacks, about 34 tasks."""
    start_first = {"update_config": {"order": "start-first", "parallelism": 2, "monitor": "1s"}}
    stop_first = {"update_config": {"parallelism": 1, "monitor": "1s"}}
    healthy = {"condition": "service_healthy"}
    stacks = {
        "front": {
            "web": service("web", 6, healthcheck=CHECK, deploy=start_first),
            "api": service("api", 4, healthcheck=CHECK, deploy=stop_first),
            "cache": service("cache", 3),
        },
        "data": {
            "db": service("db", 1, healthcheck=CHECK, deploy=stop_first, **volume("db")),
            "log": service("log", 1, deploy=stop_first, **volume("log")),
            "work": service("work", 3, depends_on={"db": healthy}),
        },
        "calm": {
            "steady": service("steady", 6, healthcheck=CHECK),
            "each": {
                "image": "each:1",
                "restart": "always",
                "networks": {"default": None},
                "deploy": {"mode": "global"},
            },
        },
        "jobs": {
            "batch": service("batch", 3),
            "slow": service("slow", 2, stop_grace_period="4s"),
        },
    }
    made = {}
    for name, services in stacks.items():
        used = {v["source"] for s in services.values() for v in s.get("volumes", ())}
        made[name] = {
            "name": name,
            "services": services,
            "networks": {"default": {"name": f"{name}_default"}},
            "volumes": {v: {"name": f"{name}_{v}"} for v in sorted(used)},
        }
    return made


GLOBAL = {("calm", "each")}
SINGLE = {("data", "db"), ("data", "log")}  # one writer, one volume


@dataclass
class WantedStack:
    """What the user was told is so."""

    up: bool = False
    version: int = 0
    scaled: dict[str, int] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    releases: int = 0  # the highest number that was acknowledged
    touched: float = 0.0  # when a command was given last
    asking: int = 0  # commands under way
    down_done: bool = True


class Users:
    """Everybody who types commands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.files = files()
        self.wanted = {name: WantedStack() for name in self.files}
        self.availability = {host.name: "active" for host in world.hosts}
        self.away: set[str] = set()  # machines that are no members
        self.busy = 0
        # Who decides what the state is waits for nobody: all others wait for him, with their locks.
        self._locks = {name: asyncio.Lock() for name in (*self.files, "nodes", "state")}
        self._keys = 0
        self._versions: dict[str, dict[str, int]] = {name: {} for name in self.files}

    def add_exclusive(self) -> None:
        """Have one more service, of which never two copies may run."""
        one = service("sole", 1, **{"x-corral": {"exclusive": True}})
        self.files["jobs"]["services"]["sole"] = one

    def begin(self, what: str, target: str, work: Callable[[], Awaitable[None]]) -> None:
        """Have somebody do it, behind whoever does something to the same."""
        process = sim_loop.Process(f"user of {target}")

        async def in_turn() -> None:
            self.busy += 1
            try:
                async with self._locks[target]:
                    stack = self.wanted.get(target)
                    if stack is not None:
                        stack.asking += 1
                        stack.touched = self.world.now
                    self.world.trace("user", what)
                    try:
                        await work()
                    finally:
                        if stack is not None:
                            stack.asking -= 1
                            stack.touched = self.world.now
            finally:
                self.busy -= 1

        process.root = process.begin(in_turn())
        process.root.add_done_callback(self._checked)

    def _checked(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.broke("no command fails for no reason", f"{type(error).__name__}: {error}")

    async def ask(self, call: Callable[[Controller], Awaitable[Any]]) -> Any:
        """Ask until there is an answer; what is refused for good is raised."""
        while True:
            controller = self.world.controller
            if controller is not None:
                try:
                    async with asyncio.timeout(ANSWER):
                        return await self._in(controller, call)
                except (Unavailable, Conflict, StoreUnavailable, TimeoutError, sim_loop.Killed):
                    pass
            await asyncio.sleep(0.7)

    async def _in(
        self,
        controller: Controller,
        call: Callable[[Controller], Awaitable[Any]],
        *,
        any_: bool = False,
    ) -> Any:
        """Run a request in the controller's process; it dies with it."""

        async def work() -> Any:
            return await call(controller if any_ else await controller.answering())

        task = controller.begin(work())
        ending = asyncio.ensure_future(self._ended(controller))
        try:
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            if not task.done():
                task.cancel()
        if controller.dead or not task.done() or task.cancelled():
            raise Unavailable("the connection broke")
        return task.result()

    async def _ended(self, controller: Controller) -> None:
        while not controller.dead:
            await asyncio.sleep(0.25)

    def _key(self) -> str:
        self._keys += 1
        return f"key-{self._keys}"

    # Commands.

    def project(self, name: str) -> dict[str, Any]:
        file = self.files[name]
        versions = self._versions[name]
        services = {
            key: {**one, "environment": {"VERSION": str(versions.get(key, 0))}}
            for key, one in file["services"].items()
        }
        return {**file, "services": services}

    async def up(self, name: str, changed: tuple[str, ...] = ()) -> None:
        for key in changed:
            self._versions[name][key] = self._versions[name].get(key, 0) + 1
        request = Deploy(key=self._key(), project=self.project(name))
        wanted = self.wanted[name]
        row = await self.ask(lambda c: c.control.deploy(name, request))
        if row.number < wanted.releases and wanted.up:
            self.world.broke(
                "release numbers never go back",
                f"{name} got release {row.number} after {wanted.releases}",
            )
        wanted.up, wanted.releases = True, row.number
        wanted.stopped = set()

    async def scale(self, name: str, key: str, count: int) -> None:
        if self.wanted[name].up and key not in self.wanted[name].stopped:
            await self.ask(lambda c: c.control.scale(name, {key: count}))
            self.wanted[name].scaled[key] = count

    async def stop(self, name: str, keys: tuple[str, ...]) -> None:
        if self.wanted[name].up:
            await self.ask(lambda c: c.control.stop(name, None, keys))
            self.wanted[name].stopped |= set(keys or self.files[name]["services"])

    async def start(self, name: str) -> None:
        if self.wanted[name].up:
            request = Start(key=self._key())
            await self.ask(lambda c: c.control.start(name, request))
            self.wanted[name].stopped = set()

    async def restart(self, name: str, key: str) -> None:
        wanted = self.wanted[name]
        if wanted.up and not wanted.stopped:
            await self.ask(lambda c: c.control.restart(name, Restart(services=(key,))))

    async def down(self, name: str) -> None:
        wanted = self.wanted[name]
        if not wanted.up:
            return

        async def remove(controller: Controller) -> None:
            if name in controller.cluster.stacks:
                await controller.control.remove(name, volumes=False, timeout=None)

        await self.ask(remove)
        # From now on it is wanted gone; it may still be there.
        wanted.up, wanted.scaled, wanted.stopped, wanted.releases = False, {}, set(), 0

    async def available(self, name: str, availability: str) -> None:
        if name in self.away:
            return
        await self.ask(lambda c: c.nodes.update(name, labels={}, availability=availability))
        self.availability[name] = availability

    async def remove_node(self, name: str) -> None:
        """node rm, until it says that it is gone; a node that cannot be emptied stays.

        That takes two minutes, and who waited for another command meanwhile did not ask yet:
        nothing was acknowledged. So nobody begins with it once all is to be well.
        """
        if name in self.away or self.world.healing:
            return

        async def remove(controller: Controller) -> bool:
            gone = False
            async for line in controller.nodes.remove(name, force=False):
                gone = line.kind == "end" and line.ok
            return gone

        async def tried(controller: Controller) -> bool:
            try:
                return await remove(controller)
            except NotFound:
                return True

        controller = self.world.controller
        if controller is None:
            return
        try:
            async with asyncio.timeout(150):
                gone = await self._in(controller, tried)
        except (RequestError, StoreUnavailable, TimeoutError):
            gone = False
        if not gone:  # ask what became of it
            gone = await self.ask(self._forgotten(name))
        if gone:
            self.away.add(name)
            self.availability[name] = "active"
            await self._forget_marks(name)
        self.world.trace("user", f"{name} is removed: {gone}")

    def _forgotten(self, name: str) -> Any:
        async def look(controller: Controller) -> bool:
            found = next((n for n in controller.cluster.nodes.values() if n.name == name), None)
            if found is None:
                return True
            if found.removing:  # half done: let it be a member again, as it was
                was = self.availability[name]
                await controller.nodes.update(name, labels={}, availability=was)
            return False

        return look

    async def _forget_marks(self, name: str) -> None:
        self.world.laws.left(self.world.host(name))

    async def add_node(self, name: str) -> None:
        """node add: the machine's agent says what it is, and it becomes a member."""
        host = self.world.host(name)
        if name not in self.away and self.world.now > 0:
            return

        async def join(controller: Controller) -> None:
            if any(n.name == name for n in controller.cluster.nodes.values()):
                return
            await controller.nodes.join(
                host.facts(), name=name, address=host.address, underlay=f"192.0.2.{host.number}"
            )

        await self.ask(join)
        self.away.discard(name)

    async def decide(self) -> None:
        """state adopt, where the controller asks; then say once more what is wanted."""
        while True:
            await asyncio.sleep(2.0)
            controller = self.world.controller
            if controller is None or not controller.ready.is_set():
                continue
            if controller.dispatcher.superseded:  # it met a newer word only later
                self.world.kill_controller(1.0)
                continue
            if controller.dispatcher.ready.is_set():
                break
            if controller.dispatcher.behind is None:
                continue
            self.world.deciding = self.world.adopting = True
            try:
                async with asyncio.timeout(ANSWER):
                    await self._in(
                        controller, lambda c: c.state.adopt(without_absent=True), any_=True
                    )
                self.world.trace("user", "state adopt")
            except (RequestError, StoreUnavailable, TimeoutError) as error:
                self.world.trace("user", "state adopt:", type(error).__name__)
            finally:
                self.world.adopting = False
        self.world.undecided = False
        await self.again()
        await asyncio.sleep(DECIDED)
        self.world.deciding = False

    async def again(self) -> None:
        """After an older state: say everything once more that was said since."""
        async with self._locks["nodes"]:
            members = await self.ask(self._members)
            self.away = {host.name for host in self.world.hosts} - members
            for host in self.world.hosts:
                self.availability[host.name] = "active"
                await self.add_node(host.name)
                await self.available(host.name, "active")
        for name, stack in self.wanted.items():
            async with self._locks[name]:
                stack.releases = 0
                if not stack.up:
                    stack.up = True
                    await self.down(name)
                    continue
                await self.up(name)
                for key, one in self.files[name]["services"].items():
                    if (name, key) not in GLOBAL:
                        count = int(stack.scaled.get(key, one["deploy"]["replicas"]))
                        await self.scale(name, key, count)

    async def _members(self, controller: Controller) -> set[str]:
        return {node.name for node in controller.cluster.nodes.values()}

    # What is wanted.

    def most(self, name: str, key: str) -> int:
        """Return how many tasks a service may have: one of each node keeps those of paused ones."""
        if (name, key) in GLOBAL and self.replicas(name, key):
            drained = [n for n, one in self.availability.items() if one == "drain"]
            return len({host.name for host in self.world.hosts} - self.away - {*drained})
        return self.replicas(name, key)

    def replicas(self, name: str, key: str) -> int:
        """Return how many tasks a service is to have."""
        wanted = self.wanted[name]
        if not wanted.up or key in wanted.stopped:
            return 0
        if (name, key) in GLOBAL:
            return sum(
                1
                for host in self.world.hosts
                if host.name not in self.away and self.availability[host.name] == "active"
            )
        file = self.files[name]["services"][key]
        return int(wanted.scaled.get(key, file["deploy"]["replicas"]))
