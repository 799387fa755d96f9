"""One node, simulated: the agent's own worker, runners and reports on parts in memory.

What becomes of a task is decided by ``agent.tasks.lifecycle``, as on a real node; a test says
only how the things around it turn out (:class:`Behaviour`): how long an image takes, whether the
command ends, whether a probe finds it healthy. Time is the loop's, so it may be virtual::

    node = SimulatedNode(tmp_path, lambda assignment: Behaviour(exit_code=1))
    await node.boot()
    await node.instruct(instructions)
    async for report in node.reports(silence=9.0): ...

``instruct`` and ``reports`` are those of ``orchestrator.dispatch.agent.AgentClient``, without the
socket between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.errors import Later, NoRoom, Refusal
from agent.runtime.bundle import NodeTraits
from agent.runtime.failure import RuntimeFailure
from agent.tasks import lifecycle
from agent.tasks.compose import compose
from agent.tasks.effects import Effects
from agent.tasks.held import Held
from agent.tasks.holdings import Holdings
from agent.tasks.leases import MemoryLeases
from agent.tasks.record import Phase
from agent.vocabulary import BoundMount, ImageConfig
from specs.node import NodeFacts
from specs.stack import Healthcheck
from specs.states import Desired, TaskState
from specs.task import MACHINE_RESTARTED
from specs.wire import HEARTBEAT, PROTOCOL, SHORTEST_HEARTBEAT, HeldSet, Hello
from tests.fakes.containers import FakeContainers
from tests.fakes.hooks import FakeHooks
from tests.fakes.node import FakeNetwork, NoPeers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agent.tasks.effects import Peers
    from agent.tasks.record import Record
    from specs.paths import PathState
    from specs.wire import (
        Acknowledged,
        Assignment,
        Instructions,
        LeaseAnswer,
        LeaseQuestion,
        LeaveCluster,
        Refused,
        Report,
    )

SIGKILL = 9
NO_ANSWER = "no answer"
NOT_FOUND = 127  # as a shell says it: no run of this container will ever start


@dataclass
class Behaviour:
    """How a service's containers turn out; seconds are of the loop's clock."""

    prepare: float = 0.01  # until its image is there
    start: float = 0.01  # until started
    healthy: float = 0.0  # until healthy after the start; a service with a check
    exit_code: int | None = None  # ends by itself with this code
    runs_for: float = 0.05  # until it does
    again: bool = False  # and does so whenever it is restarted here; False: here it never will be
    crashes: int = 0  # so many runs end so, each restarted here; the next one stays
    stop: float = 0.01  # between the stop signal and its end
    never_ready: bool = False
    sick: bool = False  # unhealthy instead of healthy
    reject: str = ""
    log_tail: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()  # that its image declares

    @property
    def checked(self) -> bool:
        return self.never_ready or self.sick or self.healthy > 0


BEGAN = 1_700_000_000.0


@dataclass
class LoopClock:
    """The loop's (virtual) time; the wall clock is ``off`` by so many seconds."""

    off: float = 0.0

    def wall(self) -> float:
        return BEGAN + asyncio.get_running_loop().time() + self.off

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class AtOnce(ThreadPoolExecutor):
    """Does the work where it is asked for: virtual time must not run on while a thread works."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class MemoryJournal:
    """The journal's promises without a disk; ``saved`` is told every record written."""

    saved: Callable[[Record], None]
    held: Held = field(default_factory=Held)
    kept: dict[str, Record] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    behind: str = ""
    fault: str = ""

    def load(self) -> Held:
        return self.held

    def records(self) -> dict[str, Record]:
        return dict(self.kept)

    def strays(self, known: set[str]) -> set[str]:
        return set(self.kept) - known

    def accept(self, _: Instructions, held: Held) -> None:
        self.held = held

    def put(self, record: Record, **_: bool) -> None:
        self.kept[record.id] = record
        self.saved(record)

    def put_beside(self, record: Record, **_: bool) -> asyncio.Future[None]:
        self.put(record)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def forget(self, task: str) -> None:
        self.kept.pop(task, None)

    def forget_again(self, task: str) -> None:
        self.kept.pop(task, None)

    def leave(self) -> None:
        self.held = Held()


@dataclass
class _Images:
    """Images take as long as the behaviour of who uses them says."""

    node: SimulatedNode
    root: Path
    mounted: set[str] = field(default_factory=set)

    def transfer(self, _image: str) -> tuple[int, int]:
        return 0, 0

    async def ensure(self, image: str, digest: str) -> ImageConfig:
        how = self.node.how_of_image(image)
        await asyncio.sleep(how.prepare)
        if how.reject:
            raise Refusal(how.reject)
        # An image may bring a check; so does that of a service that a test wants watched.
        check = Healthcheck(test=("CMD", "true")) if how.checked else None
        return ImageConfig(
            digest=digest, command=("serve",), healthcheck=check, volumes=how.volumes
        )

    async def mount(self, task: str, _: str) -> Path:
        if self.node.crowded:
            raise NoRoom(self.node.crowded)
        self.mounted.add(task)
        return self.root

    async def unmount(self, task: str) -> None:
        self.mounted.discard(task)

    async def discard(self, task: str) -> None:
        self.mounted.discard(task)

    def close(self) -> None:
        pass


class _Volumes:
    """Mounts by name only; contents must have been sent, as on a real node."""

    names: tuple[str, ...] = ()  # of the named volumes that are there

    async def prepare(self, assignment, image, root, contents, owner) -> tuple[BoundMount, ...]:
        references = (*assignment.spec.secrets, *assignment.spec.configs)
        for reference in references:
            if reference.content not in contents:
                raise Later(f"waits for the controller to send {reference.source}")
        return tuple(
            BoundMount(mount.source or mount.target, mount.target)
            for mount in assignment.spec.mounts
        )

    async def enter(self, assignment: Assignment) -> None:
        pass

    async def take(self, task: str, slot: str) -> None:
        pass

    async def claim(self, task: str, slot: str, *, fresh: bool = False) -> None:
        pass

    def owns(self, task: str) -> bool:
        return False

    async def release(self, task: str, kept: Callable[[str], bool]) -> None:
        pass

    async def remove(self, name: str) -> None:
        pass

    async def sweep(self, kept: Callable[[str], bool]) -> None:
        pass

    async def adopt(self, tasks: set[str], kept: Callable[[str], bool]) -> None:
        pass

    def held(self) -> tuple[str, ...]:
        return self.names

    async def look(self, sources) -> dict[str, PathState]:
        return dict.fromkeys(sources, "there")


@dataclass
class _Network(FakeNetwork):
    """``late`` = seconds a change needs to be in force; ``reached`` = who gets traffic."""

    late: float = 0.0
    reached: frozenset[str] = frozenset()
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # closed: nothing comes into force

    def __post_init__(self) -> None:
        self.gate.set()

    async def apply(self, wanted) -> None:
        await self.gate.wait()
        await asyncio.sleep(self.late)
        self.reached = frozenset(
            endpoint.task for service in wanted.services.values() for endpoint in service.endpoints
        )


@dataclass
class _Containers(FakeContainers):
    """Containers that start, end and stop as their behaviour says."""

    node: SimulatedNode = None  # type: ignore[assignment] - after fields with defaults
    doomed: dict[str, int] = field(default_factory=dict)  # task -> code it ends with, for good

    async def create(self, task, run, spec, *, once=False):
        await asyncio.sleep(self.node.how(task).start)
        if task in self.doomed:
            raise RuntimeFailure(f"exited with {self.doomed[task]}", NOT_FOUND)
        return await super().create(task, run, spec)

    async def start(self, task):
        how = self.node.how(task)
        self.node.happened(task, "started")
        self.states[task] = "running"
        loop = asyncio.get_running_loop()
        record = self.node.journal.kept[task]
        stays = bool(how.crashes) and record.run is not None and record.run.number > how.crashes
        if how.exit_code is not None and not stays:
            loop.call_later(how.runs_for, self._over, task, self.alive[task].pid, how)
        if how.sick:
            loop.call_later(how.healthy, self.node.fail_checks, task)

    def _over(self, task, pid, how):
        if not self.ends[pid].done():
            if not how.again and not how.crashes:
                self.doomed[task] = how.exit_code
            self.end(pid, how.exit_code)

    def end(self, pid, code):
        task = next((t for t, p in self.alive.items() if p.pid == pid), "")
        if task and not self.ends[pid].done():
            self.node.happened(task, "ended")
        super().end(pid, code)

    def send(self, process, number):
        self.sent.append((process.pid, number))
        task = next((t for t, p in self.alive.items() if p == process), "")
        if task and number != SIGKILL:
            self.node.happened(task, "stopping")
        wait = 0.0 if number == SIGKILL or not task else self.node.how(task).stop
        asyncio.get_running_loop().call_later(wait, self.end, process.pid, 128 + number)
        return True

    def last_lines(self, task, count):
        return list(self.node.how(task).log_tail[-count:])


class SimulatedNode:
    """The agent of one node. What it remembers outlives :meth:`halt`; the machine may too."""

    def __init__(
        self,
        base: Path,
        behaviour: Callable[[Assignment], Behaviour],
        *,
        facts: NodeFacts | None = None,
        moved: Callable[[Record], None] = lambda _: None,
        happened: Callable[[str, str], None] = lambda _task, _what: None,
        virtual: bool = True,
    ) -> None:
        self.base = base
        self.facts = facts or NodeFacts()
        self.happened = happened
        self.clock = LoopClock()
        if not virtual:  # as the others of this machine see it
            self.clock.off = time.time() - time.monotonic() - BEGAN
        self.network = _Network()
        self.volumes = _Volumes()
        root = base / "root"
        (root / "etc").mkdir(parents=True, exist_ok=True)
        self.images = _Images(self, root)
        self.containers = _Containers(node=self)
        self.journal = MemoryJournal(self._saved)
        self._behaviour = behaviour
        self._moved = moved
        self._virtual = virtual
        self._states: dict[str, str] = {}
        self._boots = 1
        self._boot = "boot1"
        self._sick: set[str] = set()
        self.told_to_end = False  # the agent has its SIGTERM
        self.full = ""  # why its disk has no room, by its own word
        self.crowded = ""  # why no task can be prepared, which it finds out with the first one
        self.holdings = Holdings()
        self.leases = MemoryLeases()
        self.peers: Peers = NoPeers()
        self._running: asyncio.Task[Any] | None = None

    # Life.

    async def boot(self) -> None:
        """Start the agent; after :meth:`halt` it adopts what runs."""
        self.told_to_end = False
        loop = asyncio.get_running_loop()
        if self._virtual:
            loop.set_default_executor(AtOnce())
        parts = compose(
            Effects(self.images, self.volumes, self.network, self.peers),
            journal=self.journal,
            containers=self.containers,
            prober=self._probe,
            hooks=FakeHooks(),
            clock=self.clock,
            boot=self._boot,
            traits=NodeTraits(runtime="runc"),
            tasks=self.base / "tasks",
            facts=self.facts,
            look=self._look,
            ending=lambda: self.told_to_end,
            room=lambda: self.full,
            leases=self.leases,
        )
        self.keeper = parts.leases
        self._worker, self._reports, self.holdings = parts.worker, parts.reports, parts.holdings
        self._running = loop.create_task(self._worker.run(), name=f"agent in {self.base.name}")
        await self._worker.adopted.wait()

    async def halt(self) -> None:
        """Kill the agent; containers run on."""
        if self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def power_off(self, *, remembers: bool, boot: str = "") -> None:
        """The machine stops, with every container on it; ``remembers`` = its disk is kept."""
        await self.halt()
        self.leases = MemoryLeases()
        self._boots += 1
        self._boot = boot or f"boot{self._boots}"
        if not remembers:
            self.journal = MemoryJournal(self._saved)
            self.containers.doomed.clear()
        for process in list(self.containers.alive.values()):
            self.containers.end(process.pid, None)
        self.containers.alive.clear()
        self.containers.states.clear()
        self.containers.written.clear()
        self.network.attached.clear()
        self.images.mounted.clear()

    @property
    def alive(self) -> bool:
        return self._running is not None

    # What tests say and ask.

    def how(self, task: str) -> Behaviour:
        record = self.journal.kept.get(task)
        return self._behaviour(record.assignment) if record else Behaviour()

    def how_of_image(self, image: str) -> Behaviour:
        """Return the behaviour of who waits for the image; the images' seam knows no tasks."""
        waiting = [
            record.assignment
            for record in self.holdings.records()
            if record.assignment.spec.image == image and not record.prepared
        ]
        return self._behaviour(waiting[-1]) if waiting else Behaviour()

    def end(self, task: str, code: int) -> None:
        """The container ends by itself, and cannot be started again here."""
        self.containers.doomed[task] = code
        self.containers.end(self.containers.alive[task].pid, code)

    def fail_checks(self, task: str) -> None:
        """Its check fails as often as it takes, now instead of within minutes, and goes on so."""
        self._sick.add(task)
        runner = self.holdings.runners[task]
        check = lifecycle.check_of(runner.record)
        for _ in range(max(check.retries, 1) if check else 0):
            runner._save(
                lifecycle.probed(
                    runner.record,
                    healthy=False,
                    output=NO_ANSWER,
                    counts=True,
                    now=self.clock.monotonic(),
                )
            )
        runner._wake.set()

    def forget_that_it_was_the_machine(self, boot: str) -> None:
        """Note the end of every run as that of its task, as agents did before they knew better."""
        for record in list(self.journal.kept.values()):
            if record.phase is Phase.RUNNING and record.assignment.desired is Desired.RUNNING:
                run = record.run.with_end(self.clock.wall(), None, MACHINE_RESTARTED)
                self.journal.kept[record.id] = record.moved(TaskState.FAILED).having(
                    boot=boot,
                    phase=Phase.ENDED,
                    process=None,
                    monitor=None,
                    prepared=False,
                    runs=record.with_run(run),
                )

    @property
    def records(self) -> dict[str, Record]:
        """Return the tasks there is anything of."""
        return {record.id: record for record in self.journal.kept.values() if not record.erased}

    # The controller's side: what AgentClient offers.

    async def hello(self) -> Hello:
        held = self.holdings.held
        return Hello(
            heartbeat=SHORTEST_HEARTBEAT,
            protocol=PROTOCOL,
            node=held.me.node if held.me else "",
            stamp=held.stamp,
            revision=held.revision,
            stacks={name: stack.stamp for name, stack in held.objects.stacks.items()},
            facts=self.facts,
        )

    async def held(self) -> HeldSet:
        held = self.holdings.held
        tasks = {record.id: record.status() for record in self.holdings.records()}
        return HeldSet(
            stamp=held.stamp, me=held.me, revision=held.revision, objects=held.objects, tasks=tasks
        )

    async def instruct(self, instructions: Instructions) -> Acknowledged | Refused:
        return await self._worker.accept(instructions)

    async def lease(self, answer: LeaseAnswer) -> LeaseQuestion | Refused:
        return self.keeper.answered(answer)

    def reports(self, *, silence: float, heartbeat: float = HEARTBEAT) -> AsyncIterator[Report]:
        return self._reports.stream(heartbeat)

    async def leave(self, asked: LeaveCluster | None = None) -> list[str] | Refused:
        return await self._worker.leave(asked)

    def say_facts(self, facts: NodeFacts) -> None:
        """Have the machine changed, and the agent see it now instead of at its next look."""
        self.facts = self._reports.facts = facts
        for subscriber in self._reports._subscribers:
            subscriber.facts = True
            subscriber.event.set()

    # Behind the agent's seams.

    async def _look(self) -> NodeFacts:
        return self.facts

    async def _probe(self, task: str, command: tuple[str, ...], timeout: float) -> tuple[int, str]:
        how, record = self.how(task), self.journal.kept[task]
        age = self.clock.monotonic() - record.run_started_at
        if task in self._sick:
            return 1, NO_ANSWER
        return (1, "not yet") if how.never_ready or age < how.healthy else (0, "")

    def _saved(self, record: Record) -> None:
        if self._states.get(record.id) != record.state.value:
            self._states[record.id] = record.state.value
            self._moved(record)
