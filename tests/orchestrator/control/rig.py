"""A control plane without a kernel: memory store, real loops, real sessions, simulated nodes.

``Rig`` runs ``Control`` in virtual time; each ``FakeNode`` is a ``tests.fakes.simulator`` that
the controller's own ``AgentSession`` instructs and listens to: what becomes of a task is decided
by the agent's lifecycle. ``rig.how`` says how the containers of a service turn out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.control.control import ControlLoop
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.dispatch.session import AgentSession
from orchestrator.errors import Invalid, Unavailable
from orchestrator.store import keys
from orchestrator.store.base import Delete, Put
from orchestrator.store.memory import MemoryStore
from specs.api import ClientMachine, Deploy, Restart, Start, Steer
from specs.inside import NodeUsage
from specs.node import Node, NodeFacts
from specs.wire import HEARTBEAT, PROTOCOL, BuildEvent, Report, ResolvedImage, Stamp
from tests.fakes.sealer import PlainSealer
from tests.fakes.simulator import Behaviour, LoopClock, SimulatedNode
from tests.virtual_time import until_something_is_due

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agent.tasks.record import Record
    from specs.api import Restarted, Started, Steered
    from specs.inside import TaskUsage
    from specs.plans import Plan
    from specs.task import Task
    from specs.wire import (
        Acknowledged,
        Hello,
        Instructions,
        LeaseAnswer,
        LeaseQuestion,
        Objects,
        Refused,
    )

__all__ = ["Behaviour", "FakeNode", "LoopClock", "Rig"]

# Nodes lay out a few small folders a task; taking them away from a disk took as long as the test.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class FakeNode:
    """One node of the rig: a simulated agent, and the controller's real session with it."""

    def __init__(self, rig: Rig, node: Node) -> None:
        self.rig = rig
        self.node = node
        self.history: list[str] = []  # "web-1 running", in order
        self.agent = SimulatedNode(
            rig.base / node.id,
            lambda assignment: rig.behaviour(assignment.service, assignment.spec.image),
            facts=node.facts,
            moved=self._moved,
            happened=self._happened,
        )
        self._session: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> dict[str, Record]:
        """Return what the node has anything of."""
        return self.agent.records

    @property
    def wanted(self) -> Objects:
        """Return the newest set the node was told to hold."""
        return self.agent.holdings.held.objects

    @property
    def reached(self) -> frozenset[str]:
        """Return the tasks its kernel sends traffic to."""
        return self.agent.network.reached

    @property
    def late(self) -> float:
        """Return how many seconds its kernel needs for a change."""
        return self.agent.network.late

    @late.setter
    def late(self, seconds: float) -> None:
        self.agent.network.late = seconds

    async def connect(self) -> None:
        assert self._session is None
        if not self.agent.alive:
            await self.agent.boot()
        self._session = self.rig.group.create_task(self._run())

    async def cut(self, reason: str = "said nothing for 9 s") -> None:
        """Lose the session; what runs runs on."""
        await self.hang_up()
        self.rig.control.disconnected(self.node.id, reason)

    async def hang_up(self) -> None:
        """End the session without the controller being told."""
        if self._session is not None:
            session, self._session = self._session, None
            session.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await session

    async def lose_agent(self) -> None:
        """Its agent dies or hangs; the machine answers, and its containers run on."""
        await self.hang_up()
        await self.agent.halt()
        self.rig.control.disconnected(self.node.id, "said nothing for 9 s")
        await self.try_again(host=True)

    async def try_again(self, *, host: bool) -> None:
        """The controller dials once more, and finds the machine or does not; no agent answers."""
        if host:
            self.rig.control.reached(self.node.id)
        reason = "agent not answering, host reachable (open failed)" if host else "no route to host"
        self.rig.control.disconnected(self.node.id, reason, host=host)

    async def crash(self, *, remembers: bool = False) -> None:
        """Power off: containers die with the machine. It returns empty, or with its disk."""
        await self.cut()
        await self.agent.power_off(remembers=remembers)

    async def reboot(self, boot: str = "again", *, ends: bool = False) -> None:
        """Lose the power, without a session: what ran is cut off, not over. ``connect`` ends it.

        ``ends``: as agents did that took the end of the machine for the end of the task.
        """
        await self.cut()
        await self.agent.power_off(remembers=True, boot=boot)
        if ends:
            self.agent.forget_that_it_was_the_machine(boot)

    async def _run(self) -> None:
        session = AgentSession(
            node=self.node,
            client=self,
            control=self.rig.control,
            cluster=self.rig.cluster,
            stamp=Stamp(cluster="rig", epoch=self.rig.epoch, generation=0),
            generation=0,
            silence=9.0,
        )
        await self.rig.control.connected(self.node.id, await session.open())
        await session.run()

    # What the session asks of an agent.

    async def hello(self) -> Hello:
        return await self.agent.hello()

    async def instruct(self, instructions: Instructions) -> Acknowledged | Refused:
        answer = await self.agent.instruct(instructions)
        self.rig.check_wanted(self)
        return answer

    async def lease(self, answer: LeaseAnswer) -> LeaseQuestion | Refused:
        return await self.agent.lease(answer)

    def reports(self, *, silence: float, heartbeat: float = HEARTBEAT) -> AsyncIterator[Report]:
        return self.agent.reports(silence=silence, heartbeat=heartbeat)

    # What a test says.

    def say(self, task_id: str, **update: Any) -> None:
        """Report changed fields of a task, whatever the agent thinks of it."""
        status = self.tasks[task_id].status().model_copy(update=update)
        report = Report(tasks={task_id: status})
        self.rig.group.create_task(self.rig.control.ingest(self.node.id, report))

    def end(self, task_id: str, code: int) -> None:
        """The container ends by itself, and cannot be started again on this node."""
        self.agent.end(task_id, code)

    def unhealthy(self, task_id: str) -> None:
        """Its check failed too often, and goes on failing; the controller hears of it at once."""
        self.agent.fail_checks(task_id)
        self.say(task_id)

    def _moved(self, record: Record) -> None:
        line = f"{record.assignment.name} {record.state.value}"
        self.history.append(line)
        self.rig.history.append(line)

    def _happened(self, task_id: str, what: str) -> None:
        for watch in self.rig.watchers:
            watch(self, task_id, what)


@dataclass
class FakeAgents:
    """What the dispatcher gives: images resolve, builds work, volumes are removed."""

    rig: Rig
    digests: dict[str, str] = field(default_factory=dict)
    fail: dict[str, Exception] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # digests that nobody has
    removed: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    delay: float = 0.0
    transfers: dict[str, tuple[int, int]] = field(default_factory=dict)
    has: dict[str, dict[str, str]] = field(default_factory=dict)  # node -> path -> how it is
    deaf: set[str] = field(default_factory=set)  # nodes that do not say
    looked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    listens: dict[str, tuple[str, ...]] = field(default_factory=dict)  # node -> ports held now
    uses: Callable[[str], dict[str, TaskUsage]] = lambda _: {}  # node -> what its tasks use

    async def resolve_image(self, node: str, request: Any) -> ResolvedImage:
        self.asked.append((request.image, request.policy))
        if self.rig.nodes[node]._session is None:
            raise Unavailable(f"node {node} is not reached")
        await asyncio.sleep(self.delay)
        name, at, pinned = request.image.partition("@")
        if at:
            if pinned in self.gone:
                raise Invalid(detail=f"there is no {pinned}")
            return ResolvedImage(image=name, digest=pinned)
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
        self.missing -= {request.tag, *request.build.tags}
        yield BuildEvent(digest=f"sha256:built-{request.tag}")

    async def images(self, node: str) -> tuple[Any, ...]:
        return ()

    async def transfer(self, node: str, image: str) -> tuple[int, int]:
        return self.transfers.get(image, (0, 0))

    async def listening(self, node: str) -> tuple[str, ...]:
        if node not in self.listens:
            raise Unavailable(f"node {node} is not reached")
        return self.listens[node]

    async def paths(self, node: str, asked: Any) -> dict[str, Any]:
        self.looked.append((node, tuple(asked)))
        if node in self.deaf:
            raise Unavailable(f"node {node} is not reached")
        return {path: self.has.get(node, {}).get(path, "absent") for path in asked}

    async def usage(self, node: str, stack: str) -> NodeUsage:
        if self.rig.nodes[node]._session is None:
            raise Unavailable(f"node {node} is not reached")
        return NodeUsage(tasks=self.uses(node))

    async def remove_volume(self, node: str, name: str) -> None:
        self.removed.append((node, name))


class Rig:
    """Everything of one test; ``async with Rig(nodes=3) as rig``."""

    def __init__(self, nodes: int = 1, store: Any = None, **control: Any) -> None:
        self.store = store or MemoryStore()
        self.clock = LoopClock()
        self.rng = random.Random(7)
        self.count = nodes
        self.settings = control  # for the control loop
        self.nodes: dict[str, FakeNode] = {}
        self.agents = FakeAgents(self)
        self.how: dict[str, Behaviour] = {}
        self.history: list[str] = []
        self.watchers: list[Callable[[FakeNode, str, str], None]] = []
        self.deploys = 0
        self.epoch = 0
        self.base = Path(tempfile.mkdtemp(prefix="corral-rig-", dir=MEMORY))

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
            await fake.hang_up()
            await fake.agent.halt()
        await self._outer.__aexit__(None, None, None)
        shutil.rmtree(self.base)

    async def add_node(self, number: int, **update: Any) -> Node:
        node = Node(
            id=f"n{number}",
            name=f"host{number}",
            address="" if number == 1 else f"root@host{number}",
            underlay=f"192.0.2.{number}",
            overlay=f"10.210.0.{number}",
            facts=NodeFacts(
                hostname=f"host{number}",
                boot_id=f"boot{number}",
                cpus=4.0,
                memory=8 << 30,
                wire=PROTOCOL,
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
        self.epoch += 1
        self.cluster = await Cluster.open(self.store, self.clock)
        self.control = ControlLoop(
            self.store,
            self.cluster,
            self.clock,
            self.rng,
            PlainSealer(),
            self.agents,
            **self.settings,
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
            await fake.hang_up()
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

    # what tests do

    async def up(self, project: dict[str, Any], stack: str = "app", **more: Any) -> int:
        row = await self.control.deploy(stack, self.request(project, stack, **more))
        return row.number

    async def plan(self, project: dict[str, Any], stack: str = "app", **more: Any) -> Plan:
        return await self.control.plan(stack, self.request(project, stack, **more))

    async def start(self, *services: str, stack: str = "app") -> Started:
        self.deploys += 1
        request = Start(key=f"key-{self.deploys}", services=services)
        return await self.control.start(stack, request)

    async def steer(self, action: str, *services: str, stack: str = "app") -> Steered:
        self.deploys += 1
        asked = Steer(key=f"key-{self.deploys}", action=action, services=services)
        return await self.control.steer(stack, asked)

    async def restart(self, *services: str, stack: str = "app", **more: Any) -> Restarted:
        return await self.control.restart(stack, Restart(services=services, **more))

    def request(self, project: dict[str, Any], stack: str = "app", **more: Any) -> Deploy:
        self.deploys += 1
        more.setdefault("client", ClientMachine(hostname="host1", boot_id="boot1"))
        for network in project["networks"].values():
            if network.get("name") == "app_default":
                network["name"] = f"{stack}_default"
        return Deploy(key=f"key-{self.deploys}", project=project, **more)

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
                await until_something_is_due()

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

    def image_of(self, task: Task) -> str:
        """Return the image that the task's release names for its service."""
        release = self.cluster.releases[(task.stack, task.release)]
        return self.cluster.parts[release.spec].services[task.service].task.image

    def release(self, stack: str = "app") -> Any:
        return self.cluster.releases[(stack, self.cluster.stacks[stack].release)]

    def fake_of(self, task: Task) -> FakeNode:
        assert task.node is not None
        return self.nodes[task.node]
