"""A simulated node that speaks specs/wire.py on a real unix socket.

Instructions, tasks and reports are the agent's own (``tests/fakes/simulator.py``); images,
builds, logs and exec are scripted here. A test says how containers turn out::

    async with FakeAgent(tmp_path / "agent.sock") as agent:
        agent.behave("web", Behaviour(exit_code=3, log_tail=("boom",)))

A stopped agent that is started again on the same object remembers what an agent's
journal would.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aiohttp import WSMsgType, web

from agent.tasks.held import Held
from specs import skew
from specs.api import ApiProblem
from specs.node import NodeFacts
from specs.wire import (
    PROTOCOL,
    UNKEPT,
    BuildEvent,
    BuildImage,
    ExecRequest,
    ImageInfo,
    Instructions,
    LeaveCluster,
    LogLine,
    NodeSelf,
    Refused,
    Report,
    ResolvedImage,
    ResolveImage,
    json_line,
)
from tests.fakes.simulator import Behaviour, SimulatedNode

if TYPE_CHECKING:
    from specs.api import Stack
    from specs.wire import Objects, Stamp

GOOD = Behaviour()


@dataclass
class FakeAgent:
    socket: Path
    facts: NodeFacts = field(
        default_factory=lambda: NodeFacts(
            hostname="fake",
            cpus=4.0,
            memory=8 << 30,
            addresses=("192.0.2.1",),
            agent_version="0",
            wire=PROTOCOL,
        )
    )
    heartbeat: float = 0.5
    mute: bool = False  # True: no report lines at all, as a frozen agent
    received: list[Instructions] = field(default_factory=list)
    greeted: int = 0  # how often a controller asked who is here
    heartbeats: int = 0  # report lines that said nothing but "alive"
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    missing_images: set[str] = field(default_factory=set)
    later_images: set[str] = field(default_factory=set)  # registry down
    resolved: list[ResolveImage] = field(default_factory=list)
    built: list[BuildImage] = field(default_factory=list)
    build_events: tuple[BuildEvent, ...] | None = None
    log_lines: dict[str, list[LogLine]] = field(default_factory=dict)
    removed_volumes: list[str] = field(default_factory=list)
    left: int = 0
    leaving: asyncio.Event | None = None  # until it is set, leaving takes time
    stays: str = ""  # why it cannot leave
    asked_to_leave: LeaveCluster | None = None  # as it was asked last
    unkept: str = ""  # why its disk keeps no instructions
    speaks: int = PROTOCOL  # the version of the wire it tells
    exec_requests: list[ExecRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="corral-agent-"))
        self.simulated = SimulatedNode(
            self._base,
            lambda assignment: self.behaviours.get(assignment.service, GOOD),
            facts=self.facts,
            virtual=False,
        )
        self._runner: web.AppRunner | None = None
        self._odd: list[bytes] = []
        self._logged = asyncio.Condition()
        self._instructed = asyncio.Condition()

    # Life.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        while self._base.exists():  # a thread of what was cut off may be at work in it
            with contextlib.suppress(OSError):
                shutil.rmtree(self._base)
            await asyncio.sleep(0)

    async def start(self) -> None:
        await self.simulated.boot()
        app = web.Application(client_max_size=64 << 20, middlewares=[self._alive])
        app.router.add_get("/v1/hello", self._hello)
        app.router.add_get("/v1/held", self._held_set)
        app.router.add_put("/v1/instructions", self._instructions)
        app.router.add_get("/v1/reports", self._reports)
        app.router.add_get("/v1/tasks/{id}/logs", self._logs)
        app.router.add_get("/v1/tasks/{id}/exec", self._exec)
        app.router.add_post("/v1/images/resolve", self._resolve)
        app.router.add_post("/v1/builds", self._builds)
        app.router.add_get("/v1/images", self._images)
        app.router.add_delete("/v1/volumes/{name}", self._volume)
        app.router.add_post("/v1/leave", self._leave)
        self.socket.unlink(missing_ok=True)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        """Die as by SIGKILL: connections break, what is known stays."""
        await self.simulated.halt()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            self.socket.unlink(missing_ok=True)
            async with self._logged:
                self._logged.notify_all()
            await runner.cleanup()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @web.middleware
    async def _alive(self, request: web.Request, handler) -> web.StreamResponse:
        """Cut requests that reach a stopped agent's old connections: the dead do not answer."""
        if not self._serves(request):
            request.transport.abort()
            return web.Response(status=500)
        return await handler(request)

    def _serves(self, request: web.Request) -> bool:
        return self._runner is not None and request.app is self._runner.app

    # What a test says and asks.

    def behave(self, service: str, behaviour: Behaviour) -> None:
        """From now on what is done with the service's tasks turns out so."""
        self.behaviours[service] = behaviour

    def say_facts(self, facts: NodeFacts) -> None:
        self.simulated.say_facts(facts)

    def hold_network(self) -> None:
        """Let no network state come into force until ``apply``."""
        self.simulated.network.gate.clear()

    def apply(self) -> None:
        """Let the network state of the newest generation come into force."""
        self.simulated.network.gate.set()

    @property
    def _held(self) -> Held:
        return self.simulated.holdings.held

    def _remember(self, held: Held) -> None:
        self.simulated.holdings.held = self.simulated.journal.held = held

    @property
    def applied(self) -> int:
        return self.simulated.holdings.applied

    @property
    def objects(self) -> Objects:
        return self._held.objects

    @property
    def stamp(self) -> Stamp | None:
        return self._held.stamp

    @stamp.setter
    def stamp(self, stamp: Stamp) -> None:
        """Remember another controller's words."""
        self._remember(Held(stamp, self._held.me, self._held.objects))

    def remember_stack(self, stack: Stack) -> None:
        """Remember a stack as a controller told it."""
        objects = self.objects.model_copy(update={"stacks": {stack.name: stack}})
        self._remember(Held(self.stamp, self._held.me, objects, revision=self._held.revision))

    async def say(self, line: bytes) -> None:
        """Say a line that no agent of ours would say."""
        self._odd.append(line)
        while self._odd:
            await asyncio.sleep(self.heartbeat / 5)

    def be_node(self, node: str) -> None:
        """Remember to be another node."""
        self._remember(Held(self.stamp, NodeSelf(node=node, name=node), self.objects))

    async def log(self, task: str, *lines: LogLine) -> None:
        async with self._logged:
            self.log_lines.setdefault(task, []).extend(lines)
            self._logged.notify_all()

    async def instructed(self, count: int, *, timeout: float = 300.0) -> None:
        """Return when ``count`` instructions have been taken since the start."""
        async with asyncio.timeout(timeout), self._instructed:
            await self._instructed.wait_for(lambda: len(self.received) >= count)

    async def beats(self, count: int, *, timeout: float = 300.0) -> None:
        """Return when ``count`` more heartbeats were said."""
        target = self.heartbeats + count
        async with asyncio.timeout(timeout):
            while self.heartbeats < target:
                await asyncio.sleep(self.heartbeat / 5)

    # The protocol.

    async def _hello(self, _: web.Request) -> web.Response:
        self.greeted += 1
        hello = await self.simulated.hello()
        told = hello.model_copy(update={"protocol": self.speaks})
        return web.Response(body=skew.encode(told, self.speaks), content_type="application/json")

    async def _held_set(self, _: web.Request) -> web.Response:
        return _json(await self.simulated.held())

    async def _instructions(self, request: web.Request) -> web.Response:
        instructions = Instructions.model_validate_json(await request.read())
        if self.unkept:
            problem = {"title": "The disk", "status": UNKEPT, "detail": self.unkept}
            return web.json_response(problem, status=UNKEPT)
        answer = await self.simulated.instruct(instructions)
        if isinstance(answer, Refused):
            return _json(answer, status=409)
        self.received.append(instructions)
        async with self._instructed:
            self._instructed.notify_all()
        return _json(answer)

    async def _reports(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        stream = self.simulated.reports(silence=0.0)
        following = asyncio.ensure_future(anext(stream))
        try:
            while self._serves(request):
                await asyncio.wait({following}, timeout=self.heartbeat)
                if following.done():
                    report = following.result()
                    following = asyncio.ensure_future(anext(stream))
                else:
                    report = Report(applied=self.applied)
                    self.heartbeats += 1
                while self._odd:
                    await response.write(self._odd.pop() + b"\n")
                if not self.mute:
                    await response.write(json_line(report))
        except ConnectionError:
            pass
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await stream.aclose()
        return response

    # The rest of the API.

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        task = request.match_info["id"]
        if task not in self.simulated.records and task not in self.log_lines:
            return _problem(404, f"no task {task}")
        since = float(request.query.get("since", "-inf"))
        lines = [line for line in self.log_lines.get(task, []) if line.time >= since]
        if "tail" in request.query:
            tail = int(request.query["tail"])
            lines = lines[-tail:] if tail else []
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        sent = len(self.log_lines.get(task, []))
        for line in lines:
            await response.write(json_line(line))
        with contextlib.suppress(ConnectionError):
            while request.query.get("follow") == "1" and self._runner is not None:
                async with self._logged:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await self._logged.wait()
                known = self.log_lines.get(task, [])
                for line in known[sent:]:
                    await response.write(json_line(line))
                sent = len(known)
                if task not in self.simulated.records:
                    break
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        """Echo stdin to stdout in capitals; ``exit N`` ends with that code."""
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        first = await websocket.receive()
        wanted = ExecRequest.model_validate_json(first.data)
        self.exec_requests.append(wanted)
        await websocket.send_bytes(b"\x01" + " ".join(wanted.command).encode() + b"\n")
        code = 0
        async for message in websocket:
            if message.type is not WSMsgType.BINARY:
                continue
            data = message.data[1:]
            if data.startswith(b"exit "):
                code = int(data[5:])
                break
            if not data:
                break
            await websocket.send_bytes(b"\x01" + data.upper())
        await websocket.send_str(json.dumps({"exit": code}))
        await websocket.close()
        return websocket

    async def _resolve(self, request: web.Request) -> web.Response:
        wanted = ResolveImage.model_validate_json(await request.read())
        self.resolved.append(wanted)
        if wanted.image in self.missing_images:
            return _problem(422, f"image {wanted.image} does not exist", "check the name")
        if wanted.image in self.later_images:
            return _problem(503, f"the registry of {wanted.image} does not answer")
        return _json(ResolvedImage(image=wanted.image, digest=digest(wanted.image), size=1))

    async def _builds(self, request: web.Request) -> web.StreamResponse:
        wanted = BuildImage.model_validate_json(await request.read())
        self.built.append(wanted)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        events = self.build_events or (
            BuildEvent(line=f"building {wanted.tag}"),
            BuildEvent(digest=digest(wanted.tag + wanted.build.model_dump_json())),
        )
        for event in events:
            await response.write(json_line(event))
        return response

    async def _images(self, _: web.Request) -> web.Response:
        infos = [ImageInfo(digest=digest(r.image), names=(r.image,)) for r in self.resolved]
        return web.json_response({"images": [info.model_dump(mode="json") for info in infos]})

    async def _volume(self, request: web.Request) -> web.Response:
        self.removed_volumes.append(request.match_info["name"])
        return web.Response(status=204)

    async def _leave(self, request: web.Request) -> web.Response:
        self.left += 1
        data = await request.read()
        asked = LeaveCluster.model_validate_json(data) if data else None
        self.asked_to_leave = asked
        if self.leaving is not None:
            await self.leaving.wait()
        if self.stays:
            return _problem(503, self.stays)
        left = await self.simulated.leave(asked)
        if isinstance(left, Refused):
            return web.json_response(left.model_dump(mode="json"), status=409)
        return web.Response(status=204)


def digest(text: str) -> str:
    """Return the digest the fake resolves a name to."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _json(model: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=model.encode(), content_type="application/json")


def _problem(status: int, detail: str, hint: str = "") -> web.Response:
    problem = ApiProblem(type="x", title="x", status=status, detail=detail, hint=hint)
    return web.Response(
        status=status, body=problem.encode(), content_type="application/problem+json"
    )
