"""The API on a real unix socket over fakes, and a client for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import stat
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from orchestrator.api import app as api_app
from orchestrator.api.routes import ApiParts
from orchestrator.errors import Unavailable
from orchestrator.nodes.members import Nodes
from orchestrator.store.memory import MemoryStore
from specs.api import Release, Stack, Version
from specs.images import ForgottenImages
from specs.inside import NodeProcesses, NodeUsage, TaskProcess, TaskUsage
from specs.kit.clock import SystemClock
from specs.node import Node, NodeFacts
from specs.stack import Port, ServiceSpec, StackSpec, TaskSpec
from specs.states import ReleaseState, TaskState
from specs.task import Run, Task, TaskStatus
from tests.fakes.control import FakeCluster, FakeControl


@dataclass
class FakeAgents:
    """Log lines and exec, by task; a node in ``away`` is not reached."""

    lines: dict[str, list] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    inside: dict[str, tuple[TaskUsage, tuple[TaskProcess, ...]]] = field(default_factory=dict)
    instead: dict[str, Any] = field(default_factory=dict)  # by node: what answers in its place
    signals: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self):
        self.more = asyncio.Condition()

    async def add(self, task, *lines):
        async with self.more:
            known = self.lines.setdefault(task, [])
            for line in lines:
                place = (1, 1, len(known) + 1)
                known.append(line.model_copy(update={"place": place}))
            self.more.notify_all()

    def check(self, node):
        if node in self.away:
            raise Unavailable(f"node {node} is not reached: no answer in time")

    async def logs(self, node, task, query):
        self.asked.append((task, query))
        self.check(node)
        sent = 0
        found = [
            e
            for e in self.lines.get(task, [])
            if e.time >= (query.since or 0) and e.place > (query.after or (0, 0, 0))
        ]
        if query.tail is not None:
            found = found[len(found) - min(query.tail, len(found)) :]
        sent = len(self.lines.get(task, []))
        for line in found:
            yield line
        while query.follow:
            async with self.more:
                await self.more.wait_for(lambda: len(self.lines.get(task, [])) > sent)  # noqa: B023
            self.check(node)
            for line in self.lines.get(task, [])[sent:]:
                yield line
            sent = len(self.lines.get(task, []))

    async def exec(self, node, task, websocket):
        self.check(node)
        async for message in websocket:
            await websocket.send_bytes(b"\x01" + str(message.data).upper().encode())
            await websocket.send_str(json.dumps({"exit": 0}))
            return

    async def usage(self, node, stack):
        await self.replaced(node)
        found = {task: of[0] for task, of in self.inside.items()}
        return NodeUsage(tasks=found, memory=8 << 30)

    async def processes(self, node, stack):
        await self.replaced(node)
        return NodeProcesses(tasks={task: of[1] for task, of in self.inside.items()})

    async def replaced(self, node):
        self.check(node)
        if node in self.instead:
            await self.instead[node]()

    async def signal(self, node, request):
        self.check(node)
        self.signals.append((node, request.number, request.tasks))
        return request.tasks

    async def forget_images(self, node, request):
        await self.replaced(node)
        self.asked.append((node, request))
        names = [one.name for one in request.images if not set(one.digests) & set(request.keep)]
        kept = {
            one.name: f"{request.keep[digest]} uses it"
            for one in request.images
            for digest in one.digests
            if digest in request.keep
        }
        return ForgottenImages(removed=tuple(names), kept=kept)

    async def leave(self, node):
        self.check(node)
        self.left.append(node)


@dataclass
class Api:
    http: aiohttp.ClientSession
    parts: ApiParts
    cluster: FakeCluster
    control: FakeControl
    agents: FakeAgents
    store: MemoryStore
    path: Any
    reopen: Any = None

    async def call(self, method, path, **more):
        """Return (status, decoded JSON)."""
        async with self.http.request(method, path, **more) as answer:
            return answer.status, json.loads(await answer.read())

    async def lines(self, path, *, count=None, method="GET"):
        """Return the decoded lines of a stream; with ``count`` leave after so many."""
        found = []
        async with asyncio.timeout(300), self.http.request(method, path) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "application/x-ndjson"
            async for line in answer.content:
                if line.strip():
                    found.append(json.loads(line))
                if count is not None and len(found) >= count:
                    break
        return found

    async def problem(self, method, path, status, **more):
        """Make a request that must be refused; return the problem."""
        async with self.http.request(method, path, **more) as answer:
            assert answer.status == status, await answer.text()
            assert answer.content_type == "application/problem+json"
            found = json.loads(await answer.read())
        assert found["status"] == status
        return found

    # What is there.

    async def add_node(self, node_id="n1", **changes):
        from orchestrator.store.base import Put

        node = Node(id=node_id, name=f"node-{node_id}", facts=NodeFacts(cpus=2.0), **changes)
        result = await self.store.txn(writes=(Put(f"/nodes/{node_id}", node.encode()),))
        await self.cluster.reached(result.revision)

    def add_stack(self, name="shop", **changes):
        spec = StackSpec(
            name=name,
            services={
                "web": ServiceSpec(
                    name="web",
                    task=TaskSpec(image="nginx", ports=(Port(target=80, published=8080),)),
                    replicas=2,
                ),
                "migrate": ServiceSpec(name="migrate", task=TaskSpec(image="tool")),
            },
        )
        self.cluster.parts[f"hash-{name}"] = spec
        self.cluster.releases[name, 1] = Release(
            stack=name, number=1, spec=f"hash-{name}", state=ReleaseState.DEPLOYED
        )
        fields = {"name": name, "release": 1, "running": 1}
        self.cluster.stacks[name] = Stack(**{**fields, **changes})

    async def add_task(self, task_id, *, service="web", slot=1, stack="shop", **changes):
        from orchestrator.store.base import Put

        status = TaskStatus(
            state=TaskState.RUNNING, ready=True, runs=(Run(number=1, pid=1, started_at=1.0),)
        )
        fields = {
            "id": task_id, "stack": stack, "service": service, "slot": slot,
            "name": f"{stack}-{service}-{slot}", "release": 1, "spec_hash": "h", "node": "n1",
            "status": status,
        }  # fmt: skip
        task = Task(**{**fields, **changes})
        self.cluster.tasks[task_id] = task
        result = await self.store.txn(writes=(Put(f"/tasks/{stack}/{task_id}", task.encode()),))
        await self.cluster.reached(result.revision)


@pytest.fixture
async def api(tmp_path):
    store, cluster, control, agents = MemoryStore(), FakeCluster(), FakeControl(), FakeAgents()
    clock = SystemClock()
    nodes = Nodes(
        store=store,
        cluster=cluster,
        agents=agents,
        pool="10.210.0.0/16",
        clock=clock,
        rng=random.Random(1),
    )
    parts = ApiParts(
        store=store,
        cluster=cluster,
        control=control,
        agents=agents,
        nodes=nodes,
        clock=clock,
        version=lambda: Version(version="1.2.3", cluster="c1", epoch=4),
    )
    path = tmp_path / "controller.sock"
    following = asyncio.create_task(cluster.follow(store))
    connector = aiohttp.UnixConnector(str(path))
    async with (
        api_app.serve(api_app.make(parts), path) as reopen,
        aiohttp.ClientSession("http://corral", connector=connector) as http,
    ):
        yield Api(http, parts, cluster, control, agents, store, path, reopen)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)
