"""A mirror and control loops in memory, driven by the test: orchestrator.contracts by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specs.api import ReleaseRow, Rescaled, Restarted, RolledBack, Started
from specs.inside import Forgotten, Paused
from specs.node import Node, NodeCondition
from specs.objects import ContentRows, DroppedObject, MadeObject, NetworkRows, VolumeRows
from specs.oneoff import ActedOn, OneOffProgress
from specs.plans import Plan
from specs.schedule import ScheduleActed, ScheduleRow
from specs.states import ReleaseState
from specs.why import Why
from specs.wire import NodeSelf, Objects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from orchestrator.contracts import EventQuery
    from specs.api import Deploy, Progress, Release, Restart, Stack, Start
    from specs.events import Event
    from specs.oneoff import ActOnOneOffs, OneOff, StartOneOff
    from specs.schedule import ActOnSchedule, Schedule
    from specs.stack import StackSpec
    from specs.task import Task
    from specs.wire import Hello, Report


@dataclass
class FakeCluster:
    """The mirror; a test writes the dictionaries. ``follow`` copies nodes from a store."""

    revision: int = 0
    ranges: tuple[str, ...] = ("10.210.0.0/16",)
    stacks: dict[str, Stack] = field(default_factory=dict)
    releases: dict[tuple[str, int], Release] = field(default_factory=dict)
    parts: dict[str, StackSpec] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    oneoffs: dict[str, OneOff] = field(default_factory=dict)
    schedules: dict[tuple[str, str], Schedule] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    conditions: dict[str, NodeCondition] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nodes_changed = asyncio.Event()
        self.followed = asyncio.Condition()

    def nodes_changed(self) -> asyncio.Event:
        return self._nodes_changed

    def releases_of(self, stack: str) -> list[Release]:
        return [release for (owner, _), release in self.releases.items() if owner == stack]

    def tasks_of(self, stack: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.stack == stack]

    def tasks_on(self, node: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.node == node]

    def network_name(self, network: str) -> str:
        return network

    def path_home(self, stack: str, path: str) -> str | None:
        return None

    def add_node(self, node: Node) -> None:
        self.nodes[node.id] = node
        self._nodes_changed.set()

    def drop_node(self, node_id: str) -> None:
        del self.nodes[node_id]
        self._nodes_changed.set()

    async def reached(self, revision: int) -> None:
        async with asyncio.timeout(300), self.followed:
            await self.followed.wait_for(lambda: self.revision >= revision)

    async def follow(self, store) -> None:
        """Mirror the store's nodes, and every revision, until cancelled."""
        async for batch in store.watch("/", self.revision):
            for change in batch.changes:
                if change.key.startswith("/nodes/"):
                    if change.value is None:
                        self.drop_node(change.key.removeprefix("/nodes/"))
                    else:
                        self.add_node(Node.model_validate_json(change.value))
            async with self.followed:
                self.revision = batch.revision
                self.followed.notify_all()


class NoLeases:
    """There is no exclusive service."""

    def __init__(self) -> None:
        self.some = asyncio.Event()

    def answer(self, node, question, stamp):
        raise AssertionError

    def asked(self, node, told, question):
        raise AssertionError


class FakeControl:
    """Keeps what it is told; wants what the test puts into ``wants``."""

    def __init__(self) -> None:
        self.wants: dict[str, Objects] = {}
        self.leases = NoLeases()
        self.calls: list[tuple[object, ...]] = []
        self.reports: list[tuple[str, Report]] = []
        self.hellos: list[tuple[str, Hello]] = []
        self.lost: list[tuple[str, str]] = []
        self.machines: list[str] = []  # that let the dispatcher in
        self.agentless: list[str] = []  # lost there: the machine answers, its agent does not
        self.clocks: dict[str, float] = {}
        self.acknowledgements: list[tuple[str, int]] = []
        self.progress_lines: list[Progress] = []
        self.event_queue: asyncio.Queue[Event] = asyncio.Queue()
        self.event_queries: list[EventQuery] = []
        self.noted: list[Event] = []
        self.error: Exception | None = None
        self.arriving: list[Callable[[], object]] = []  # what comes of deploys under way
        self._changed: dict[str, asyncio.Event] = {}
        self._stirred = asyncio.Condition()
        self.rows_of_networks = NetworkRows()
        self.rows_of_volumes = VolumeRows()
        self.rows_of_contents = ContentRows()

    def want(self, node_id: str, objects: Objects) -> None:
        self.wants[node_id] = objects
        self.changed(node_id).set()

    async def until(self, condition, timeout: float = 300.0) -> None:
        """Return when the condition holds; it is looked at after every call from outside."""
        async with asyncio.timeout(timeout), self._stirred:
            await self._stirred.wait_for(condition)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def deploy(self, stack: str, request: Deploy) -> ReleaseRow:
        self._called("deploy", stack, request)
        return ReleaseRow(stack=stack, number=1, state=ReleaseState.PENDING)

    async def plan(self, stack: str, request: Deploy, *, within=None) -> Plan:
        self._called("plan", stack, request)
        return Plan(stack=stack, next=1)

    async def arrived(self, stack: str) -> None:
        for arrive in self.arriving:
            arrive()

    async def scale(self, stack: str, services, by=None) -> Rescaled:
        self._called("scale", stack, dict(services))
        return Rescaled()

    async def rollback(self, stack: str, asked) -> RolledBack:
        self._called("rollback", stack, asked)
        return RolledBack(stack=stack, number=9, state=ReleaseState.PENDING, to=asked.to or 1)

    async def restart(self, stack: str, request: Restart) -> Restarted:
        self._called("restart", stack, request.services, request.timeout)
        return Restarted(tasks=("t1",), started=("job",))

    async def start(self, stack: str, request: Start) -> Started:
        self._called("start", stack, request)
        return Started(stack=stack, release=1)

    async def stop(self, stack: str, timeout, services=()) -> None:
        self._called("stop", stack, timeout, *([services] if services else []))

    async def pause(
        self, stack: str, services: tuple[str, ...], *, paused: bool, tasks=()
    ) -> Paused:
        self._called("pause", stack, services, paused, *([sorted(tasks)] if tasks else []))
        return Paused(tasks=("t1",))

    async def forget(self, stack: str, services: tuple[str, ...]) -> Forgotten:
        self._called("forget", stack, services)
        return Forgotten()

    async def remove(self, stack: str, *, volumes: bool, timeout) -> None:
        self._called("remove", stack, volumes, timeout)

    async def make(self, asked) -> MadeObject:
        self._called("make", asked)
        return MadeObject(id="o1", name=asked.name)

    async def drop(self, kind: str, name: str) -> DroppedObject:
        self._called("drop", kind, name)
        return DroppedObject(name=name)

    def networks(self) -> NetworkRows:
        return self.rows_of_networks

    def volumes(self) -> VolumeRows:
        return self.rows_of_volumes

    def contents(self, *, secret: bool) -> ContentRows:
        return self.rows_of_contents

    def config_data(self, content: str) -> bytes:
        return b"what is in it"

    async def start_oneoff(self, stack: str, request: StartOneOff) -> AsyncIterator[OneOffProgress]:
        self._called("start_oneoff", stack, request)
        yield OneOffProgress(kind="end", ok=True, task="t1", name=f"{stack}-web-run-1")

    async def act_on_oneoffs(self, stack: str, request: ActOnOneOffs) -> ActedOn:
        self._called("act_on_oneoffs", stack, request)
        return ActedOn(names=request.names)

    async def act_on_schedule(
        self, stack: str, service: str, request: ActOnSchedule
    ) -> ScheduleActed:
        self._called("act_on_schedule", stack, service, request)
        row = ScheduleRow(stack=stack, service=service, cron="0 2 * * *")
        return ScheduleActed(schedule=row, number=int(request.action == "run"))

    def _called(self, *call: object) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(call)

    async def progress(self, stack: str, release: int | None) -> AsyncIterator[Progress]:
        self._called("progress", stack, release)
        for line in self.progress_lines:
            yield line

    async def events(self, query: EventQuery) -> AsyncIterator[Event]:
        self.event_queries.append(query)
        while query.follow:
            event = await self.event_queue.get()
            if query.stack in (None, event.stack):
                yield event

    async def why(self, name: str, stack: str) -> Why:
        self._called("why", name, stack)
        return Why(what="service", name=name, stack=stack, answer=f"{name}: 1 of 1 serve")

    def note(self, event: Event) -> None:
        self.noted.append(event)

    def wanted(self, node_id: str) -> tuple[NodeSelf, Objects]:
        return NodeSelf(node=node_id, name=node_id), self.wants.get(node_id, Objects())

    def changed(self, node_id: str) -> asyncio.Event:
        return self._changed.setdefault(node_id, asyncio.Event())

    async def connected(self, node_id: str, hello: Hello) -> None:
        self.hellos.append((node_id, hello))
        await self._stir()

    def reached(self, node_id: str) -> None:
        self.machines.append(node_id)

    def disconnected(self, node_id: str, reason: str, *, host: bool = False) -> None:
        self.lost.append((node_id, reason))
        if host:
            self.agentless.append(node_id)
        self._stir_soon()

    async def ingest(self, node_id: str, report: Report) -> None:
        if self.error is not None:
            raise self.error
        self.reports.append((node_id, report))
        await self._stir()

    def shows(self, node_id: str, moment: float) -> None:
        self.clocks[node_id] = moment

    def acknowledged(self, node_id: str, revision: int) -> None:
        self.acknowledgements.append((node_id, revision))
        self._stir_soon()

    async def _stir(self) -> None:
        async with self._stirred:
            self._stirred.notify_all()

    def _stir_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._stir())
        self._keep = task  # the loop itself holds tasks weakly
