"""One simulated machine: its kernel (containers, links, images, volumes), its disk, and its agent.

The kernel outlives the agent, as containers outlive it; a power cut ends both. The agent is the
product's own: ``agent.tasks.compose`` with the real journal on the simulated disk. What a real
kernel would do wrong is done wrong here: start slowly, hang, end without a word, refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent.errors import Later
from agent.network import endpoints, reach
from agent.runtime.bundle import NodeTraits
from agent.runtime.failure import RuntimeFailure
from agent.tasks.compose import compose
from agent.tasks.effects import Effects
from agent.tasks.guarded import SPARE
from agent.tasks.journal import Journal
from agent.tasks.leases import MemoryLeases
from agent.vocabulary import Attachment, BoundMount, Exit, FoundRun, ImageConfig, Process
from specs.lease import KILL, TERM
from specs.node import NodeFacts
from specs.stack import Healthcheck
from specs.wire import PROTOCOL
from tests.fakes.hooks import FakeHooks
from tests.fakes.node import NoPeers
from tests.sim import loop as sim_loop
from tests.sim.disk import SimDisk
from tests.sim.loop import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from agent.network.wanted import Wanted
    from specs.wire import Assignment
    from tests.sim.world import World

SIGKILL = 9
RUNTIME_PATIENCE = 60.0  # seconds after which a call of the runtime is given up
KEEP_EVERY = 1.0
PROBE = 0.5


class SimClock:
    """A process's clocks: the monotonic one is the loop's, the wall may be set by hand."""

    def __init__(self, machine: SimHost | None) -> None:
        self._machine = machine
        self.monotonic = asyncio.get_running_loop().time

    def wall(self) -> float:
        jumped = self._machine.jumped if self._machine is not None else 0.0
        return 1_700_000_000.0 + self.monotonic() + jumped


@dataclass
class Container:
    """What the kernel has of one task's run."""

    task: str
    assignment: Assignment
    run: int
    process: Process
    begun_at: float = 0.0
    state: str = "created"  # running, stopped
    told: bool = False  # it has its stop signal
    frozen: bool = False
    deaf: bool = False
    end: asyncio.Future[Exit] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def runs(self) -> bool:
        return self.state == "running"


class SimContainers:
    """conmon and the runtime of one machine, behind ``agent.tasks.effects.Containers``."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._pids = 100
        self.bundles: dict[str, dict[str, Any]] = {}
        self.there: dict[str, Container] = {}

    def write(self, task: str, config: dict[str, Any]) -> None:
        alive()
        self.bundles[task] = config

    def config(self, task: str) -> dict[str, Any]:
        if task not in self.bundles:
            raise RuntimeFailure(f"no bundle of {task}")
        return self.bundles[task]

    async def create(self, task: str, run: int, spec: Any, *, once: bool = False) -> Any:
        host = self._host
        assignment = host.assignment_of(task)
        try:
            await host.pace("create")
        except BaseException:
            # Whoever asked is gone; the runtime may have been told already.
            asking = sim_loop.PROCESS.get()
            lost = asking is not None and asking.dead and host.on and task not in self.there
            if lost and host.chance.random() < 0.5:
                self._make(task, assignment, run)
            raise
        alive()
        host.world.laws.creates(host, task, assignment)
        if task in self.there:
            raise RuntimeFailure(f"container {task} exists")
        made = self._make(task, assignment, run)
        return made.process, Process(pid=made.process.pid + 1, start=1)

    def _make(self, task: str, assignment: Assignment, run: int) -> Container:
        self._pids += 2
        made = Container(task, assignment, run, Process(pid=self._pids, start=1))
        self.there[task] = made
        self._host.say("created", assignment.name, f"run {run}")
        return made

    async def start(self, task: str) -> None:
        await self._host.pace("start")
        alive()
        found = self.there.get(task)
        if found is None:
            raise RuntimeFailure(f"container {task} does not exist")
        if found.state != "created":
            return
        host = self._host
        host.world.laws.starts(host, found)
        found.state, found.begun_at = "running", asyncio.get_running_loop().time()
        host.say("started", found.assignment.name, f"run {found.run}", found.task)
        how = host.world.how(found.assignment)
        found.deaf = how.deaf
        if how.exit_code is not None:
            self._later(how.runs_for, found, how.exit_code)

    def _later(self, seconds: float, found: Container, code: int | None) -> None:
        # A kernel's doing: of no process that could be killed.
        loop = asyncio.get_running_loop()
        token = sim_loop.PROCESS.set(None)
        try:
            loop.call_later(seconds, self.ended, found, code)
        finally:
            sim_loop.PROCESS.reset(token)

    def ended(self, found: Container, code: int | None, reason: str = "") -> None:
        """The run ends now, by whatever."""
        if found.state == "stopped":
            return
        was, found.state = found.state, "stopped"
        self._host.say("ended", found.assignment.name, f"run {found.run} code {code}", found.task)
        self._host.world.laws.ended(self._host, found, code, ran=was == "running")
        if not found.end.done():
            found.end.set_result(Exit(code, reason=reason))

    async def state(self, task: str) -> str | None:
        alive()
        found = self.there.get(task)
        return None if found is None else found.state

    async def find(self, task: str) -> FoundRun | None:
        alive()
        found = self.there.get(task)
        if found is None:
            return None
        now = asyncio.get_running_loop().time()
        begun = found.state != "created"
        return FoundRun(
            found.run,
            found.process,
            Process(pid=found.process.pid + 1, start=1),
            begun=begun,
            age=now - found.begun_at if begun else 0.0,
            paused=found.frozen,
        )

    async def follow(self, task: str, process: Process, monitor: Process) -> Exit:
        found = self.there.get(task)
        if found is None or found.process != process:
            return Exit(None, reason="nobody saw how it ended")
        end = await asyncio.shield(found.end)
        alive()
        return end

    def send(self, process: Process, number: int) -> bool:
        alive()
        found = next((c for c in self.there.values() if c.process == process), None)
        if found is None or found.state == "stopped":
            return False
        host = self._host
        host.world.laws.told_to_stop(host, found, number)
        found.told = True
        host.say("signal", found.assignment.name, str(number))
        if number == SIGKILL:
            self._later(0.005, found, 128 + number)
        elif not found.deaf:
            self._later(host.world.how(found.assignment).stop, found, 0)
        return True

    async def freeze(self, task: str, *, paused: bool) -> None:
        alive()
        self.there[task].frozen = paused

    async def clear(self, task: str) -> None:
        await self._host.pace("clear")
        alive()
        found = self.there.get(task)
        if found is not None:
            if found.state == "running":
                self._host.world.laws.told_to_stop(self._host, found, SIGKILL)
            self.ended(found, 137)
            self.there.pop(task, None)

    async def erase(self, task: str) -> None:
        await self.clear(task)
        self.bundles.pop(task, None)

    def last_lines(self, task: str, count: int) -> list[str]:
        return []

    def known(self) -> set[str]:
        alive()
        return {*self.bundles, *self.there}


@dataclass
class SimImages:
    """Images take as long as their service says; the registry may be down."""

    host: SimHost
    root: Path
    mounted: set[str] = field(default_factory=set)

    def transfer(self, _image: str) -> tuple[int, int]:
        return 0, 0

    async def ensure(self, image: str, digest: str) -> ImageConfig:
        if image not in self.host.pulled:
            await asyncio.sleep(self.host.chance.uniform(0.05, 0.8))
            alive()
            if self.host.world.registry_down:
                raise Later(f"the registry of {image} does not answer")
            self.host.pulled.add(image)
        alive()
        check = Healthcheck(test=("CMD", "true"), interval=5.0, timeout=2.0, retries=3)
        return ImageConfig(digest=digest, command=("serve",), healthcheck=check)

    async def mount(self, task: str, _: str) -> Path:
        alive()
        self.mounted.add(task)
        return self.root

    async def unmount(self, task: str) -> None:
        alive()
        self.mounted.discard(task)

    async def discard(self, task: str) -> None:
        alive()
        self.mounted.discard(task)

    def close(self) -> None:
        pass


class SimVolumes:
    """Named volumes are names with a home; who first mounts one makes its data."""

    def __init__(self, host: SimHost) -> None:
        self._host = host

    async def prepare(
        self, assignment: Any, image: Any, root: Any, contents: Any, owner: Any
    ) -> Any:
        alive()
        for reference in (*assignment.spec.secrets, *assignment.spec.configs):
            if reference.content not in contents:
                raise Later(f"waits for the controller to send {reference.source}")
        for name in assignment.volumes.values():
            self._host.volumes.setdefault(name, assignment.id)
        return tuple(BoundMount(m.source or m.target, m.target) for m in assignment.spec.mounts)

    async def enter(self, assignment: Any) -> None:
        alive()

    async def take(self, task: str, slot: str) -> None:
        alive()

    async def claim(self, task: str, slot: str, *, fresh: bool = False) -> None:
        alive()

    def owns(self, task: str) -> bool:
        return False

    async def release(self, task: str, kept: Any) -> None:
        alive()

    async def remove(self, name: str) -> None:
        alive()
        self._host.volumes.pop(name, None)

    async def sweep(self, kept: Any) -> None:
        alive()

    async def adopt(self, tasks: Any, kept: Any) -> None:
        alive()

    def held(self) -> tuple[str, ...]:
        return tuple(sorted(self._host.volumes))

    async def look(self, sources: Any) -> Any:
        return dict.fromkeys(sources, "there")


class SimLeases(MemoryLeases):
    """Leases that outlive the agent, and the guard that kills by them whatever the agent does."""

    def __init__(self, host: SimHost) -> None:
        super().__init__()
        self._host = host

    def put(self, until: Mapping[str, float], members: tuple[str, ...]) -> None:
        super().put(until, members)
        for end in set(until.values()):
            self._host.world.later(
                max(end - TERM + KILL + SPARE - self._host.world.now, 0), self.guard
            )

    def guard(self) -> None:
        """Kill what is over."""
        now = self._host.world.now
        for task, end in self.until.items():
            found = self._host.containers.there.get(task)
            if found is not None and found.runs and end - TERM + KILL + SPARE <= now:
                self._host.containers.ended(found, 128 + SIGKILL)


class SimPeers(NoPeers):
    """Other machines' agents, as this one reaches them: all that are on and do not hang."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self.vouch: Callable[[], bool] = lambda: False

    def answer_by(self, vouch: Callable[[], bool]) -> None:
        self.vouch = vouch

    async def without_controller(self, nodes: Collection[str]) -> frozenset[str]:
        await asyncio.sleep(self._host.chance.uniform(0.002, 0.02))
        alive()
        world = self._host.world
        names = {
            n: p.name for n, p in (self._host.kernel.peers if self._host.kernel else {}).items()
        }
        found = set()
        for node in sorted(nodes):
            other = world.host(names[node]) if node in names else None
            agent = other.agent if other is not None and other.on else None
            hangs = other is None or other.frozen_until > world.now
            if agent is not None and agent.ready.is_set() and not hangs and agent.peers.vouch():
                found.add(node)
        await asyncio.sleep(self._host.chance.uniform(0.002, 0.02))
        alive()
        return frozenset(found)


class SimNetwork:
    """Links of tasks, and what the kernel was told last; endpoints as the product filters them."""

    def __init__(self, host: SimHost) -> None:
        self._host = host

    async def apply(self, wanted: Wanted) -> None:
        await self._host.pace("network")
        alive()
        if self._host.network_broken:
            raise OSError(5, "nft failed")
        self._host.world.laws.applied(self._host, wanted.assignments)
        self._host.kernel = wanted

    async def attach(self, assignment: Any) -> Attachment:
        from pathlib import Path

        await self._host.pace("attach")
        alive()
        self._host.attached.add(assignment.id)
        return Attachment(Path(), "nameserver 127.0.0.11\n", "127.0.0.1 localhost\n")

    async def detach(self, task: str) -> None:
        alive()
        found = self._host.containers.there.get(task)
        if found is not None and found.runs:
            self._host.world.laws.cut_off(self._host, found)
        self._host.attached.discard(task)

    async def adopt(self, tasks: set[str]) -> None:
        alive()
        for task in sorted(self._host.attached - set(tasks)):
            await self.detach(task)

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()

    @property
    def trouble(self) -> str:
        return ""

    @property
    def underlay_mtu(self) -> int:
        return 1500

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def leave(self) -> None:
        alive()

    async def close(self) -> None:
        pass


class Agent(sim_loop.Process):
    """One life of a machine's agent."""

    def __init__(self, host: SimHost) -> None:
        super().__init__(f"{host.name} agent", host)
        self.ready = asyncio.Event()
        self.parts: Any = None
        self.connections: list[Any] = []

    async def run(self) -> None:
        host = self.host
        journal = await asyncio.to_thread(
            Journal,
            host.disk.path("state", "journal"),
            host.disk.path("state", "tasks"),
            host.disk.path("run", "agent"),
        )
        self.peers = SimPeers(host)
        self.parts = compose(
            Effects(host.images, host.volumes_part, host.network, self.peers),  # type: ignore[arg-type]
            journal=journal,
            containers=host.containers,  # type: ignore[arg-type]
            prober=host.probe,
            hooks=FakeHooks(),
            clock=SimClock(host),
            boot=host.boot_id,
            traits=NodeTraits(runtime="runc"),
            tasks=host.disk.path("state", "tasks"),  # type: ignore[arg-type]
            facts=host.facts(),
            look=host.look,
            room=lambda: "no room is left" if host.disk.full else "",
            leases=host.leases,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.parts.worker.run(), name=f"{self.name} worker")
            group.create_task(self._keep_records(journal), name=f"{self.name} records")
            await self.parts.worker.adopted.wait()
            host.say("agent", "up", f"adopted {len(self.parts.holdings.runners)}")
            host.agent_since = host.world.now
            host.world.laws.adopted(host, self.parts.holdings.held)
            group.create_task(host.probe_peers(), name=f"{self.name} probes")
            self.ready.set()
            await asyncio.Event().wait()

    async def _keep_records(self, journal: Journal) -> None:
        """As agent.daemon does it."""
        while True:
            await asyncio.sleep(KEEP_EVERY)
            if not journal.whole():
                with contextlib.suppress(OSError):
                    journal.restore(self.parts.holdings.records())

    def kill(self) -> None:
        super().kill()
        for connection in list(self.connections):
            connection.agent_died()
        self.connections.clear()


class SimHost:
    """A machine. ``address`` is what the controller dials; empty = its own machine."""

    def __init__(self, world: World, name: str, number: int, root: Path) -> None:
        self.world = world
        self.name = name
        self.number = number
        self.root = root
        self.chance = world.chance(f"host {name}")
        self.disk = SimDisk(name)
        self.on = True
        self.jumped = 0.0  # seconds its wall clock was set forward
        self.speaks = PROTOCOL
        self.frozen_until = 0.0  # its agent and runtime do nothing before
        self.hung: dict[str, float] = {}  # call of the runtime -> until when it does not return
        self.pace_factor = 1.0
        self.network_broken = False
        self.boots = 1
        self.agent: Agent | None = None
        self.wants_agent = True  # whoever restarts a dead agent does so
        self._new_kernel()
        self.pulled: set[str] = set()
        self.volumes: dict[str, str] = {}
        self.images = SimImages(self, root)
        self.volumes_part = SimVolumes(self)
        self.network = SimNetwork(self)
        self.highest_epoch = 0
        self.down_since: float | None = None
        self.sick: set[str] = set()  # tasks whose check fails
        self.off_since = 0.0
        self.on_since = -1.0
        self.agent_since = 0.0

    def _new_kernel(self) -> None:
        self.containers = SimContainers(self)
        self.attached: set[str] = set()
        self.leases = SimLeases(self)
        self.kernel: Wanted | None = None
        self.histories: dict[str, reach.History] = {}  # node -> what its echoes say
        self.met: set[str] = set()  # machines that answered it, this boot

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot{self.boots}"

    @property
    def address(self) -> str:
        return "" if self.number == 1 else f"root@{self.name}"

    def facts(self) -> NodeFacts:
        return NodeFacts(
            hostname=self.name,
            boot_id=self.boot_id,
            cpus=8.0,
            memory=16 << 30,
            addresses=(f"192.0.2.{self.number}",),
            agent_version="0",
            wire=self.speaks,
        )

    async def look(self) -> NodeFacts:
        return self.facts()

    def say(self, what: str, *words: str) -> None:
        self.world.trace(self.name, what, *words)

    def assignment_of(self, task: str) -> Assignment:
        assert self.agent is not None
        found: Assignment = self.agent.parts.holdings.runners[task].record.assignment
        return found

    # Life.

    def begin_agent(self) -> None:
        if self.on and self.agent is None:
            self.agent = Agent(self)
            self.agent.root = self.agent.begin(self.agent.run())
            self.agent.root.add_done_callback(self._agent_ended)
            self.disk.on_kill = self.kill_agent

    def _agent_ended(self, task: asyncio.Task[Any]) -> None:
        if self.agent is not None and self.agent.root is task:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, OSError):  # it cannot make its folders: it says so, and ends
                self.say("agent", "ends:", str(error))
            else:
                self.world.crashed(f"agent of {self.name}", error)
            self.kill_agent()

    def kill_agent(self) -> None:
        """SIGKILL; whoever keeps it running starts the next one."""
        if self.agent is not None:
            agent, self.agent = self.agent, None
            self.say("agent", "killed")
            self.down_since = self.world.now
            agent.kill()
            if self.wants_agent and self.on:
                self.world.later(self.chance.uniform(0.2, 2.0), self.begin_agent)

    def power_off(self, *, lucky: bool) -> None:
        """Everything that ran has ended; the disk has what was synced."""
        if not self.on:
            return
        self.on, self.off_since = False, self.world.now
        self.say("power", "off", "lucky" if lucky else "")
        self.world.laws.powered_off(self)
        if self.agent is not None:
            agent, self.agent = self.agent, None
            agent.connections.clear()  # a machine that dies says nothing
            agent.kill()
        for connection in self.world.wire.of(self):
            connection.machine_died()
        self.disk.power_cut(lucky=lucky)
        self.disk.kill_at = 0
        for found in self.containers.there.values():
            found.state = "stopped"
        self._new_kernel()
        self.images.mounted.clear()
        self.boots += 1
        self.hung.clear()
        self.frozen_until = 0.0

    def power_on(self) -> None:
        if not self.on:
            self.on, self.on_since = True, self.world.now
            self.say("power", "on")
            self.begin_agent()

    # What the kernel sends where.

    def traffic_to(self) -> dict[str, set[str]]:
        """Return the machines each service is sent to, by what is told and what answers.

        As the product decides it; worked out when somebody looks, which is seldom.
        """
        if self.kernel is None:
            return {}
        lost = reach.unreachable(self.histories)
        wanted = replace(self.kernel, unreachable=lost)
        names = {node: peer.name for node, peer in wanted.peers.items()}
        return {
            key: {names.get(e.node, self.name) for e in endpoints.see(wanted, key, service).ready}
            for key, service in wanted.services.items()
        }

    async def probe_peers(self) -> None:
        """Ask every peer for an echo, which its kernel gives."""
        while True:
            await asyncio.sleep(PROBE)
            alive()
            now, peers = self.world.now, self.kernel.peers if self.kernel is not None else {}
            for node, peer in peers.items():
                answers = self.world.host(peer.name).on
                if answers:
                    self.met.add(peer.name)
                before = self.histories.get(node, reach.History())
                if answers and before.row_since is not None and not (before.missed or before.lost):
                    continue  # one more answer in the row moves only when the last probe was
                history = reach.sent(before, now)
                if answers:
                    history = reach.answered(history, now)
                self.histories[node] = reach.judged(history, now)
            for node in [n for n in self.histories if n not in peers]:
                del self.histories[node]

    @property
    def off_for(self) -> float:
        """Return the seconds since its power went."""
        return 0.0 if self.on else self.world.now - self.off_since

    # How fast things are.

    async def pace(self, call: str) -> None:
        """Take the time a call of the kernel or the runtime takes."""
        alive()
        now = self.world.now
        until = max(self.hung.get(call, 0.0), self.frozen_until)
        if until > now:
            patience = min(until - now, RUNTIME_PATIENCE)
            await asyncio.sleep(patience)
            alive()
            if until - now > RUNTIME_PATIENCE:
                raise RuntimeFailure(f"the runtime did not answer within {RUNTIME_PATIENCE:g} s")
        if call != "network":
            await asyncio.sleep(self.chance.uniform(0.004, 0.03) * self.pace_factor)
        else:
            await asyncio.sleep(0.003 * self.pace_factor)

    async def probe(self, task: str, command: tuple[str, ...], timeout: float) -> tuple[int, str]:
        alive()
        found = self.containers.there.get(task)
        if found is None or not found.runs:
            raise RuntimeFailure(f"container {task} does not run")
        how = self.world.how(found.assignment)
        if task in self.sick or how.sick:
            return 1, "no answer"
        return (1, "not yet") if self.world.now - found.begun_at < how.healthy else (0, "")

    def running(self) -> list[Container]:
        return [c for c in self.containers.there.values() if c.runs]
