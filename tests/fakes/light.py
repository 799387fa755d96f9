"""Many nodes in one process: agents that speak ``specs/wire.py`` and cost next to nothing.

``tests/fakes/simulator.py`` runs the agent's own worker for each node, which is too much for a
thousand. A :class:`LightAgent` keeps of what it is told only the stamp and what is wanted of each
task; who may instruct it is decided by the agent's own table (``agent.tasks.held.judge``), its
lines are of the wire's own models. What a controller sees of it is what it sees of the agent:
``tests/orchestrator/test_light_agents.py`` asks both the same.

    async with Fleet(folder, ["n1", "n2"]) as fleet:      # folder/n1.sock, folder/n2.sock
        fleet.kill("n1")
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from agent.tasks.held import judge
from specs import skew
from specs.node import NodeFacts
from specs.states import FINAL, Desired, Health, TaskState
from specs.task import Run, TaskStatus
from specs.wire import (
    HEARTBEAT,
    PROTOCOL,
    SHORTEST_HEARTBEAT,
    Acknowledged,
    Hello,
    Instructions,
    Refused,
    Report,
    ResolvedImage,
    Stamp,
)

if TYPE_CHECKING:
    from pathlib import Path

TOGETHER = 0.005  # seconds in which changes become one line, as agent/tasks/reports.py
TOLD = 143  # the exit code of a container that was told to end


class LightAgent:
    """One node. ``start`` = seconds a task takes to come up, ``stop`` = to end."""

    def __init__(self, name: str, number: int, *, start: float = 0.02, stop: float = 0.02) -> None:
        self.name = name
        self.start, self.stop = start, stop
        self.node = ""
        self.stamp: Stamp | None = None
        self.revision = 0
        self.wanted: dict[str, Desired] = {}
        self.statuses: dict[str, TaskStatus] = {}
        self.removed: set[str] = set()  # nothing is left of it; the controller is told
        self.facts = NodeFacts(
            hostname=name,
            boot_id=f"boot-of-{name}",
            cpus=16.0,
            memory=64 << 30,
            kernel="6.1.0",
            python="3.11.2",
            runtime="crun 1.8.1",
            agent_version="0",
            addresses=(f"192.0.{2 + number // 250}.{1 + number % 250}",),
            wire=PROTOCOL,
        )
        self.subscribers: set[_Subscriber] = set()
        self.transports: set[asyncio.BaseTransport] = set()
        self.dead = False

    # What it is told.

    def hello(self, version: int) -> Hello:
        return Hello(
            heartbeat=SHORTEST_HEARTBEAT,
            protocol=version,
            node=self.node,
            stamp=self.stamp,
            revision=self.revision,
            facts=self.facts,
        )

    def instruct(self, told: dict[str, Any]) -> Acknowledged | Refused:
        """Take instructions: the JSON of ``specs.wire.Instructions``."""
        stamp, base = Stamp(**told["stamp"]), told.get("base")
        if refused := judge(self.stamp, Instructions.model_construct(stamp=stamp, base=base)):
            return refused
        if stamp == self.stamp and base is not None:
            return Acknowledged(generation=stamp.generation)  # a repeated increment
        tasks = told.get("put", {}).get("tasks", {})
        self.stamp, self.node = stamp, told["me"]["node"]
        self.revision = max(self.revision, told.get("revision", 0))
        changed = {task: Desired(one["desired"]) for task, one in tasks.items()}
        if base is None:
            self.wanted = changed
        else:
            for task in told.get("remove", {}).get("tasks", ()):
                self.wanted.pop(task, None)
            self.wanted.update(changed)
        self.removed &= self.wanted.keys()
        for task in self.statuses.keys() - self.wanted.keys():
            changed[task] = Desired.REMOVED  # nobody wants it any more
        for task, desired in changed.items():
            self._follow(task, desired)
        for subscriber in self.subscribers:
            subscriber.event.set()  # what it was told of the network is in force
        return Acknowledged(generation=stamp.generation)

    def _follow(self, task: str, desired: Desired) -> None:
        """Begin to do what is wanted of one task."""
        known = self.statuses.get(task)
        loop = asyncio.get_running_loop()
        if desired is Desired.REMOVED:
            loop.call_later(self.stop if known else 0.0, self._remove, task)
        elif desired is Desired.SHUTDOWN:
            loop.call_later(self.stop, self._end, task)
        elif known is None or (known.state is TaskState.PREPARED and desired is Desired.RUNNING):
            if known is None:
                self._say(task, TaskStatus(state=TaskState.PREPARING))
            loop.call_later(self.start, self._begin, task)

    def _begin(self, task: str) -> None:
        known, desired = self.statuses.get(task), self.wanted.get(task)
        if known is None or known.state in FINAL or known.state is TaskState.RUNNING:
            return
        if desired is Desired.PREPARED:
            self._say(task, TaskStatus(state=TaskState.PREPARED))
        elif desired is Desired.RUNNING:
            run = Run(number=1, pid=1 + len(self.statuses), started_at=time.time())
            up = {"ready": True, "health": Health.HEALTHY, "runs": (run,)}
            self._say(task, TaskStatus(state=TaskState.RUNNING, **up))

    def _end(self, task: str) -> None:
        known = self.statuses.get(task)
        if known is None or known.state in FINAL:
            return
        runs = tuple(run.with_end(time.time(), TOLD, "stopped") for run in known.runs)
        self._say(task, TaskStatus(state=TaskState.SHUTDOWN, runs=runs))

    def _remove(self, task: str) -> None:
        if self.wanted.get(task, Desired.REMOVED) is Desired.REMOVED:
            self.statuses.pop(task, None)
            self.removed.add(task)
            for subscriber in self.subscribers:
                subscriber.gone.add(task)
                subscriber.event.set()

    def _say(self, task: str, status: TaskStatus) -> None:
        self.statuses[task] = status
        for subscriber in self.subscribers:
            subscriber.tasks.add(task)
            subscriber.event.set()

    # What it tells.

    @property
    def applied(self) -> int:
        return self.stamp.generation if self.stamp is not None else 0

    def full(self) -> Report:
        return Report(
            applied=self.applied,
            full=True,
            tasks=dict(self.statuses),
            gone=tuple(sorted(self.removed)),
            facts=self.facts,
            mtu=1500,
            volumes=(),
            clock=time.time(),
        )

    def changes(self, of: _Subscriber) -> Report:
        """Return what a reader was not told yet; an empty line is the heartbeat."""
        tasks = {task: self.statuses[task] for task in sorted(of.tasks) if task in self.statuses}
        gone = tuple(sorted(of.gone))
        of.tasks, of.gone = set(), set()
        of.event.clear()
        return Report(applied=self.applied, tasks=tasks, gone=gone, mtu=1500, clock=time.time())


class _Subscriber:
    """A reader of the reports: what it was not told yet."""

    def __init__(self) -> None:
        self.tasks: set[str] = set()
        self.gone: set[str] = set()
        self.event = asyncio.Event()


class Fleet:
    """Agents on unix sockets ``folder/NAME.sock``, all in this process."""

    def __init__(self, folder: Path, names: list[str], **times: float) -> None:
        self.folder = folder
        self.agents = {name: LightAgent(name, n, **times) for n, name in enumerate(names)}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/v1/hello", self._hello)
        app.router.add_put("/v1/instructions", self._instructions)
        app.router.add_get("/v1/reports", self._reports)
        app.router.add_post("/v1/images/resolve", self._resolve)
        app.router.add_get("/v1/images/transfer", self._transfer)
        app.router.add_get("/v1/listening", self._listening)
        app.router.add_post("/v1/paths", self._paths)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        for name in self.agents:
            await web.UnixSite(self._runner, str(self.path(name)), backlog=16).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        for name in self.agents:
            self.kill(name)
        await self._runner.cleanup()

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.sock"

    def kill(self, name: str) -> None:
        """The machine is gone: nothing answers, its connections break."""
        agent = self.agents[name]
        agent.dead = True
        self.path(name).unlink(missing_ok=True)
        for transport in list(agent.transports):
            transport.abort()  # type: ignore[attr-defined] - a socket's

    def _agent(self, request: web.Request) -> LightAgent:
        """Return whose socket it came in by."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        path = transport.get_extra_info("sockname")
        agent = self.agents[os.path.basename(path).removesuffix(".sock")]
        if agent.dead:
            transport.abort()
            raise ConnectionResetError
        agent.transports = {one for one in agent.transports if not one.is_closing()}
        agent.transports.add(transport)
        return agent

    async def _hello(self, request: web.Request) -> web.Response:
        version = min(int(request.headers.get(skew.HEADER, "1")), PROTOCOL)
        return _json(self._agent(request).hello(version))

    async def _instructions(self, request: web.Request) -> web.Response:
        agent = self._agent(request)
        answer = agent.instruct(json.loads(await request.read()))
        return _json(answer, status=409 if isinstance(answer, Refused) else 200)

    async def _reports(self, request: web.Request) -> web.StreamResponse:
        agent = self._agent(request)
        heartbeat = float(request.query.get("heartbeat", HEARTBEAT))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        me = _Subscriber()
        agent.subscribers.add(me)
        try:
            await response.write(agent.full().encode() + b"\n")
            while not agent.dead:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat):
                        await me.event.wait()
                    await asyncio.sleep(TOGETHER)
                await response.write(agent.changes(me).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            agent.subscribers.discard(me)
        return response

    async def _resolve(self, request: web.Request) -> web.Response:
        image = json.loads(await request.read())["image"]
        digest = "sha256:" + hashlib.sha256(image.encode()).hexdigest()
        return _json(ResolvedImage(image=image, digest=digest, size=1))

    async def _transfer(self, _: web.Request) -> web.Response:
        return web.json_response({"done": 0, "total": 0})

    async def _listening(self, _: web.Request) -> web.Response:
        return web.json_response({"ports": []})

    async def _paths(self, request: web.Request) -> web.Response:
        asked = json.loads(await request.read())["paths"]
        return web.json_response({"paths": dict.fromkeys(asked, "there")})


def _json(model: Any, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=model.encode(), content_type="application/json")
