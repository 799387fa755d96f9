"""A control plane without a kernel: memory store, real loops, nodes that pretend.

``Rig`` runs ``Control`` in virtual time; a ``FakeNode`` behaves as an agent does: takes
what it should hold, moves tasks on, reports, acknowledges. ``behave`` says how the
containers of a service turn out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from orchestrator.control.control import ControlLoop
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.errors import Invalid, Unavailable
from orchestrator.store import keys
from orchestrator.store.base import Delete, Put
from orchestrator.store.memory import MemoryStore
from specs.api import ClientMachine, Deploy
from specs.node import Node, NodeFacts
from specs.states import FINAL, Desired, Health, TaskState
from specs.task import MACHINE_RESTARTED, Run, Task, TaskStatus
from specs.wire import BuildEvent, Hello, Objects, Report, ResolvedImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class LoopClock:
    """The loop's (virtual) time."""

    def wall(self) -> float:
        return 1_700_000_000.0 + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class PlainSealer:
    """Sealing that a test can look through."""

    def seal(self, data: bytes) -> bytes:
        return b"sealed:" + data

    def open(self, sealed: bytes) -> bytes:
        assert sealed.startswith(b"sealed:")
        return sealed.removeprefix(b"sealed:")

    def fingerprint(self, data: bytes) -> str:
        return f"fp-{data!r}"


@dataclass
class Behaviour:
    """How a service's containers turn out."""

    prepare: float = 0.01
    start: float = 0.01  # until started
    healthy: float = 0.0  # until healthy after the start; a service with a check
    exit_code: int | None = None  # ends by itself with this code
    runs_for: float = 0.05  # until it does
    stop: float = 0.01
    never_ready: bool = False
    sick: bool = False  # unhealthy instead of healthy, and marked only
    reject: str = ""
    log_tail: tuple[str, ...] = ()


@dataclass
class FakeTask:
    status: TaskStatus
    step: asyncio.Task[None] | None = None
    doing: str = ""


class FakeNode:
    """One agent. ``power`` False: it is cut off or dead, by what the test does to its tasks."""

    def __init__(self, rig: Rig, node: Node) -> None:
        self.rig = rig
        self.node = node
        self.tasks: dict[str, FakeTask] = {}
        self.wanted = Objects()
        self.late = 0.0  # seconds before it acknowledges
        self.reached: frozenset[str] = frozenset()  # tasks its kernel sends traffic to
        self.history: list[str] = []  # "web-1 running", in order
        self._session: asyncio.Task[None] | None = None
        self.dirty: set[str] = set()
        self.gone: set[str] = set()
        self.report = asyncio.Event()

    async def connect(self) -> None:
        assert self._session is None
        self._session = self.rig.group.create_task(self._run())

    async def cut(self, reason: str = "said nothing for 9 s") -> None:
        """Lose the session; what runs runs on."""
        assert self._session is not None
        self._session.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._session
        self._session = None
        self.rig.control.disconnected(self.node.id, reason)

    async def crash(self) -> None:
        """Power off: containers die with the machine."""
        await self.cut()
        for task in self.tasks.values():
            if task.step is not None:
                task.step.cancel()
        self.tasks.clear()

    async def reboot(self, boot: str = "again", *, ends: bool = False) -> None:
        """Lose the power and have it again, without a session: what ran is cut off, not over.

        ``ends``: as agents did that took the end of the machine for the end of the task.
        """
        await self.cut()
        for task_id, task in self.tasks.items():
            if task.step is not None:
                task.step.cancel()
            task.doing = ""
            wanted, run = self.wanted.tasks.get(task_id), task.status.run
            if wanted is None or wanted.desired is not Desired.RUNNING:
                continue
            if task.status.state in FINAL or run is None:
                continue
            run = run.with_end(self.rig.clock.wall(), None, MACHINE_RESTARTED)
            keep = ends or wanted.spec.on_reboot == "keep"
            update: dict[str, Any] = {"ready": False, "runs": (run,), "health": Health.NONE}
            if keep:
                update["state"] = TaskState.FAILED
            elif wanted.after:
                update["held"] = boot
            task.status = task.status.model_copy(update=update)

    async def _run(self) -> None:
        control = self.rig.control
        await control.connected(self.node.id, Hello(node=self.node.id, facts=self.node.facts))
        changed = control.changed(self.node.id)
        changed.clear()
        self._take()
        self.dirty.clear()
        self.gone.clear()
        await control.ingest(
            self.node.id,
            Report(full=True, tasks={t: f.status for t, f in self.tasks.items()}),
        )
        self._applied(self.rig.cluster.revision, self._endpoints())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(changed))
            group.create_task(self._speak())

    async def _listen(self, changed: asyncio.Event) -> None:
        while True:
            await changed.wait()
            await asyncio.sleep(0.001)
            changed.clear()
            revision = self.rig.cluster.revision
            self._take()
            endpoints = self._endpoints()
            if self.late:
                self.rig.group.create_task(self._late(revision, endpoints))
            else:
                self._applied(revision, endpoints)

    async def _late(self, revision: int, endpoints: frozenset[str]) -> None:
        await asyncio.sleep(self.late)
        self._applied(revision, endpoints)

    def _applied(self, revision: int, endpoints: frozenset[str]) -> None:
        """The set has come to the kernel: only now does traffic follow it."""
        self.reached = endpoints
        self.rig.control.acknowledged(self.node.id, revision)

    def _endpoints(self) -> frozenset[str]:
        services = self.wanted.services.values()
        return frozenset(e.task for service in services for e in service.endpoints)

    async def _speak(self) -> None:
        while True:
            await self.report.wait()
            self.report.clear()
            tasks = {t: self.tasks[t].status for t in self.dirty if t in self.tasks}
            gone, self.gone = tuple(self.gone), set()
            self.dirty = set()
            if tasks or gone:
                await self.rig.control.ingest(self.node.id, Report(tasks=tasks, gone=gone))

    def _take(self) -> None:
        _, self.wanted = self.rig.control.wanted(self.node.id)
        self.rig.check_wanted(self)
        for task_id, assignment in self.wanted.tasks.items():
            known = self.tasks.get(task_id)
            if known is None:
                if assignment.desired is Desired.REMOVED:
                    self.gone.add(task_id)
                    self.report.set()
                    continue
                known = self.tasks[task_id] = FakeTask(TaskStatus())
            self._drive(task_id, known)

    def _drive(self, task_id: str, task: FakeTask) -> None:
        assignment = self.wanted.tasks[task_id]
        behaviour = self.rig.behaviour(assignment.service, assignment.spec.image)
        state = task.status.state
        if assignment.desired in (Desired.SHUTDOWN, Desired.REMOVED):
            goal = "stop"
        elif assignment.desired is Desired.RUNNING and state is TaskState.PREPARED:
            goal = "start"
        elif assignment.desired is Desired.RUNNING and _cut_off(task.status):
            if task.status.held != assignment.admitted and task.status.held:
                return
            goal = "start"
        elif state is TaskState.ASSIGNED:
            goal = "prepare"
        else:
            return
        if task.doing == goal:
            return
        if task.step is not None:
            task.step.cancel()
        task.doing = goal
        step = {"stop": self._stop, "start": self._start, "prepare": self._prepare}[goal]
        task.step = self.rig.group.create_task(step(task_id, task, behaviour))

    def say(self, task_id: str, **update: Any) -> None:
        task = self.tasks[task_id]
        before = task.status
        task.status = before.model_copy(update=update)
        if before.state is not task.status.state:
            name = self.rig.cluster.tasks[task_id].name
            self.history.append(f"{name} {task.status.state.value}")
            self.rig.history.append(f"{name} {task.status.state.value}")
        self.dirty.add(task_id)
        self.report.set()

    async def _prepare(self, task_id: str, task: FakeTask, how: Behaviour) -> None:
        self.say(task_id, state=TaskState.PREPARING)
        await asyncio.sleep(how.prepare)
        if how.reject:
            self.say(task_id, state=TaskState.REJECTED, reason=how.reject)
            return
        self.say(task_id, state=TaskState.PREPARED)
        self._drive(task_id, task)

    async def _start(self, task_id: str, task: FakeTask, how: Behaviour) -> None:
        again = _cut_off(task.status)
        self.say(task_id, state=task.status.state if again else TaskState.STARTING, held="")
        await asyncio.sleep(how.start)
        now = self.rig.clock.wall()
        run = Run(number=1, pid=1, started_at=now)
        self.rig.started(self, task_id)
        if how.healthy or how.never_ready:
            self.say(task_id, runs=(run,), health=Health.STARTING)
            await asyncio.sleep(how.healthy)
            if how.sick:
                self.unhealthy(task_id)
                return
            if how.never_ready:
                return
            self.say(
                task_id, runs=(run,), state=TaskState.RUNNING, health=Health.HEALTHY, ready=True
            )
        else:
            self.say(task_id, runs=(run,), state=TaskState.RUNNING, ready=True)
        if how.exit_code is not None:
            await asyncio.sleep(how.runs_for)
            self.end(task_id, how.exit_code, how.log_tail)

    def unhealthy(self, task_id: str) -> None:
        """Its check failed too often, and it runs on."""
        words = {"reason": "unhealthy: 3 failed checks in a row", "health_output": "no answer"}
        self.say(task_id, ready=False, health=Health.UNHEALTHY, **words)

    def end(self, task_id: str, code: int, log_tail: tuple[str, ...] = ()) -> None:
        """The container ends by itself and its policy allows no local restart."""
        now = self.rig.clock.wall()
        run = Run(number=1, started_at=now, finished_at=now, exit_code=code)
        state = TaskState.COMPLETE if code == 0 else TaskState.FAILED
        self.say(task_id, runs=(run,), state=state, ready=False, log_tail=log_tail)

    async def _stop(self, task_id: str, task: FakeTask, how: Behaviour) -> None:
        if task.status.state not in FINAL:
            self.rig.stopping(self, task_id)
            self.say(task_id, ready=False)
            await asyncio.sleep(how.stop)
            self.say(task_id, state=TaskState.SHUTDOWN)
        while self.wanted.tasks.get(task_id) is not None:
            if self.wanted.tasks[task_id].desired is Desired.REMOVED:
                break
            await asyncio.sleep(0.01)
        del self.tasks[task_id]
        self.gone.add(task_id)
        self.report.set()


def _cut_off(status: TaskStatus) -> bool:
    return status.run is not None and status.run.cut_off and status.state not in FINAL


@dataclass
class FakeAgents:
    """What the dispatcher gives: images resolve, builds work, volumes are removed."""

    rig: Rig
    digests: dict[str, str] = field(default_factory=dict)
    fail: dict[str, Exception] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    removed: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    delay: float = 0.0

    async def resolve_image(self, node: str, request: Any) -> ResolvedImage:
        self.asked.append((request.image, request.policy))
        if self.rig.nodes[node]._session is None:
            raise Unavailable(f"node {node} is not reached")
        await asyncio.sleep(self.delay)
        if request.image in self.fail:
            raise self.fail[request.image]
        if request.policy == "never" and request.image in self.missing:
            raise Invalid(detail=f"{request.image} is not on this node")
        digest = self.digests.get(request.image, f"sha256:{request.image}")
        return ResolvedImage(image=request.image, digest=digest)

    async def build(self, node: str, request: Any) -> AsyncIterator[BuildEvent]:
        yield BuildEvent(line=f"STEP 1: building {request.tag}")
        if request.tag in self.fail:
            yield BuildEvent(error=str(self.fail[request.tag]))
            return
        self.missing.discard(request.tag)
        yield BuildEvent(digest=f"sha256:built-{request.tag}")

    async def remove_volume(self, node: str, name: str) -> None:
        self.removed.append((node, name))


class Rig:
    """Everything of one test; ``async with Rig(nodes=3) as rig``."""

    def __init__(self, nodes: int = 1, store: Any = None) -> None:
        self.store = store or MemoryStore()
        self.clock = LoopClock()
        self.rng = random.Random(7)
        self.count = nodes
        self.nodes: dict[str, FakeNode] = {}
        self.agents = FakeAgents(self)
        self.how: dict[str, Behaviour] = {}
        self.history: list[str] = []
        self.watchers: list[Callable[[FakeNode, str, str], None]] = []
        self.deploys = 0

    async def __aenter__(self) -> Self:
        for number in range(1, self.count + 1):
            await self.add_node(number)
        self._outer = asyncio.TaskGroup()
        self.group = await self._outer.__aenter__()
        await self.boot()
        for fake in self.nodes.values():
            await fake.connect()
        await self.until(
            lambda: (
                all(c.status == "ready" for c in self.cluster.conditions.values())
                and len(self.cluster.conditions) == self.count
            )
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.halt()
        for fake in self.nodes.values():
            if fake._session is not None:
                fake._session.cancel()
            for task in fake.tasks.values():
                if task.step is not None:
                    task.step.cancel()
        await self._outer.__aexit__(None, None, None)

    async def add_node(self, number: int, **update: Any) -> Node:
        node = Node(
            id=f"n{number}",
            name=f"host{number}",
            address="" if number == 1 else f"root@host{number}",
            underlay=f"192.0.2.{number}",
            overlay=f"10.210.0.{number}",
            facts=NodeFacts(
                hostname=f"host{number}", boot_id=f"boot{number}", cpus=4.0, memory=8 << 30
            ),
        ).model_copy(update=update)
        await self.store.txn((), (Put(keys.node(node.id), node.encode()),))
        self.nodes[node.id] = FakeNode(self, node)
        return node

    async def remove_node(self, node_id: str) -> None:
        await self.store.txn((), (Delete(keys.node(node_id)),))

    async def put_node(self, node: Node) -> None:
        await self.store.txn((), (Put(keys.node(node.id), node.encode()),))

    async def boot(self) -> None:
        """Start a controller over the store."""
        self.cluster = await Cluster.open(self.store, self.clock)
        self.control = ControlLoop(
            self.store, self.cluster, self.clock, self.rng, PlainSealer(), self.agents
        )
        self._follow = self.group.create_task(self.cluster.follow())
        self._loop = self.group.create_task(self.control.run())

    async def halt(self) -> None:
        """Kill the controller where it stands."""
        for task in (self._follow, self._loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def restart_controller(self) -> None:
        for fake in self.nodes.values():
            if fake._session is not None:
                fake._session.cancel()
                fake._session = None
        await self.halt()
        await self.boot()
        for fake in self.nodes.values():
            await fake.connect()

    def behaviour(self, service: str, image: str) -> Behaviour:
        return self.how.get(image) or self.how.get(service) or Behaviour()

    def check_wanted(self, node: FakeNode) -> None:
        """Laws that hold for every set any node ever gets."""
        seen: dict[tuple[str, str], str] = {}
        for service in node.wanted.services.values():
            for endpoint in service.endpoints:
                key = (service.network, endpoint.address)
                assert seen.setdefault(key, endpoint.task) == endpoint.task, (
                    f"law: an address is never given twice, {key}"
                )

    def started(self, node: FakeNode, task_id: str) -> None:
        for watch in self.watchers:
            watch(node, task_id, "started")

    def stopping(self, node: FakeNode, task_id: str) -> None:
        for watch in self.watchers:
            watch(node, task_id, "stopping")

    # what tests do

    async def up(self, project: dict[str, Any], stack: str = "app", **more: Any) -> int:
        self.deploys += 1
        more.setdefault("client", ClientMachine(hostname="host1", boot_id="boot1"))
        for network in project["networks"].values():
            if network.get("name") == "app_default":
                network["name"] = f"{stack}_default"
        request = Deploy(key=f"key-{self.deploys}", project=project, **more)
        row = await self.control.deploy(stack, request)
        return row.number

    async def deployed(self, stack: str = "app", *, within: float = 60.0) -> None:
        """Wait for the newest release to be deployed."""
        end = await self.end_of(stack, within=within)
        assert end.ok, f"{end.state}: {end.message}"

    async def end_of(self, stack: str = "app", *, within: float = 60.0) -> Any:
        async with asyncio.timeout(within):
            async with contextlib.aclosing(self.control.progress(stack, None)) as lines:
                async for line in lines:
                    if line.kind == "end":
                        return line
        raise AssertionError("progress ended without an end")

    async def until(self, check: Callable[[], object], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while not check():
                await asyncio.sleep(0.005)

    def tasks(self, service: str | None = None, stack: str = "app") -> list[Task]:
        found = self.cluster.by_stack.get(stack, {}).values()
        return sorted(
            (t for t in found if service in (None, t.service)),
            key=lambda t: (t.service, t.slot, t.created_at),
        )

    def live(self, service: str | None = None, stack: str = "app") -> list[Task]:
        return [t for t in self.tasks(service, stack) if t.live]

    def ready(self, service: str, stack: str = "app") -> list[Task]:
        return [t for t in self.live(service, stack) if t.status.ready]

    def release(self, stack: str = "app") -> Any:
        return self.cluster.releases[(stack, self.cluster.stacks[stack].release)]

    def fake_of(self, task: Task) -> FakeNode:
        assert task.node is not None
        return self.nodes[task.node]
