"""An agent in memory that speaks specs/wire.py on a real unix socket.

It keeps the protocol's rules (cluster pinned, epochs, generations, base) and lets a
test say what becomes of tasks::

    async with FakeAgent(tmp_path / "agent.sock") as agent:
        agent.behave("web", Behaviour(start="fail", exit_code=3, log_tail=("boom",)))

A stopped agent that is started again on the same object remembers what an agent's
journal would.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from aiohttp import WSMsgType, web

from specs.api import ApiProblem
from specs.node import NodeFacts
from specs.states import FINAL, Desired, Health, TaskState, may_move
from specs.task import Run, TaskStatus
from specs.wire import (
    KINDS,
    Acknowledged,
    BuildEvent,
    BuildImage,
    ExecRequest,
    Hello,
    ImageInfo,
    Instructions,
    LogLine,
    Objects,
    Refused,
    Report,
    ResolvedImage,
    ResolveImage,
    Stamp,
    json_line,
)

if TYPE_CHECKING:
    from pathlib import Path

    from specs.wire import Assignment


@dataclass(frozen=True)
class Behaviour:
    """What becomes of a service's tasks.

    ``prepare``: ok | reject | never (stays preparing). ``start``: ready (runs, gets
    traffic) | unready (runs, never ready) | starting (never healthy) | complete | fail.
    ``stop``: ok | never (ignores its stop signal).
    """

    prepare: Literal["ok", "reject", "never"] = "ok"
    start: Literal["ready", "unready", "starting", "complete", "fail"] = "ready"
    stop: Literal["ok", "never"] = "ok"
    exit_code: int = 0
    reason: str = ""
    log_tail: tuple[str, ...] = ()
    health: Health = Health.NONE
    delay: float = 0.0  # seconds before each move


GOOD = Behaviour()


@dataclass
class FakeAgent:
    socket: Path
    facts: NodeFacts = field(
        default_factory=lambda: NodeFacts(
            hostname="fake", cpus=4.0, memory=8 << 30, addresses=("192.0.2.1",), agent_version="0"
        )
    )
    heartbeat: float = 0.5
    stamp: Stamp | None = None
    node: str = ""
    objects: Objects = field(default_factory=Objects)
    statuses: dict[str, TaskStatus] = field(default_factory=dict)
    applied: int = 0
    apply_at_once: bool = True  # False: call ``apply()`` to acknowledge network state
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
    exec_requests: list[ExecRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self._listeners: set[asyncio.Queue[Report | None]] = set()
        self._logged = asyncio.Condition()
        self._timers: set[asyncio.TimerHandle] = set()
        self._instructed = asyncio.Condition()

    # Life.

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20, middlewares=[self._alive])
        app.router.add_get("/v1/hello", self._hello)
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
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            self.socket.unlink(missing_ok=True)
            for queue in list(self._listeners):
                queue.put_nowait(None)
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
        """From now on the service's tasks behave so; also those that are there."""
        self.behaviours[service] = behaviour
        self._step_all()

    def report_task(self, task: str, **changes: object) -> None:
        """Report changed fields of a task's status, whatever the behaviour says."""
        self.statuses[task] = self.statuses[task].model_copy(update=changes)
        self._say(Report(applied=self.applied, tasks={task: self.statuses[task]}))

    def say_facts(self, facts: NodeFacts) -> None:
        self.facts = facts
        self._say(Report(applied=self.applied, facts=facts))

    def apply(self) -> None:
        """Acknowledge the network state of the newest generation."""
        self.applied = self.stamp.generation if self.stamp else 0
        self._say(Report(applied=self.applied))

    async def log(self, task: str, *lines: LogLine) -> None:
        async with self._logged:
            self.log_lines.setdefault(task, []).extend(lines)
            self._logged.notify_all()

    async def instructed(self, count: int, *, timeout: float = 5.0) -> None:
        """Return when ``count`` instructions have been taken since the start."""
        async with asyncio.timeout(timeout), self._instructed:
            await self._instructed.wait_for(lambda: len(self.received) >= count)

    async def beats(self, count: int, *, timeout: float = 5.0) -> None:
        """Return when ``count`` more heartbeats were said."""
        target = self.heartbeats + count
        async with asyncio.timeout(timeout):
            while self.heartbeats < target:
                await asyncio.sleep(self.heartbeat / 5)

    # The protocol.

    async def _hello(self, _: web.Request) -> web.Response:
        self.greeted += 1
        return _json(Hello(node=self.node, stamp=self.stamp, facts=self.facts))

    async def _instructions(self, request: web.Request) -> web.Response:
        instructions = Instructions.model_validate_json(await request.read())
        refused = self._refusal(instructions)
        if refused is not None:
            return _json(refused, status=409)
        if instructions.base is None:
            self.objects = instructions.put
        else:
            self.objects = _increment(self.objects, instructions)
        self.stamp = instructions.stamp
        self.node = instructions.me.node
        if self.apply_at_once:
            self.applied = self.stamp.generation
        self.received.append(instructions)
        self._step_all(always=self.apply_at_once)
        async with self._instructed:
            self._instructed.notify_all()
        return _json(Acknowledged(generation=self.stamp.generation))

    def _refusal(self, instructions: Instructions) -> Refused | None:
        seen, told = self.stamp, instructions.stamp
        if seen is None:
            return None if instructions.base is None else Refused(reason="base", message="empty")
        if seen.cluster != told.cluster:
            return Refused(reason="cluster", message=f"belongs to {seen.cluster}", seen=seen)
        if told.epoch < seen.epoch:
            return Refused(reason="epoch", message="a newer controller has spoken", seen=seen)
        if instructions.base is not None and (
            told.epoch != seen.epoch or instructions.base != seen.generation
        ):
            return Refused(reason="base", message=f"has {seen.generation}", seen=seen)
        return None

    async def _reports(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        queue: asyncio.Queue[Report | None] = asyncio.Queue()
        queue.put_nowait(Report(applied=self.applied, full=True, tasks=dict(self.statuses)))
        self._listeners.add(queue)
        try:
            while self._serves(request):
                try:
                    report = await asyncio.wait_for(queue.get(), self.heartbeat)
                except TimeoutError:
                    report = Report(applied=self.applied)
                    self.heartbeats += 1
                if report is None:
                    break
                if not self.mute:
                    await response.write(json_line(report))
        except ConnectionError:
            pass
        finally:
            self._listeners.discard(queue)
        return response

    def _say(self, report: Report) -> None:
        for queue in self._listeners:
            queue.put_nowait(report)

    # Tasks.

    def _step_all(self, *, always: bool = False) -> None:
        """Move every task as its behaviour says; those with a delay when it has passed."""
        changed, delays = {}, set()
        for task in self.objects.tasks.values():
            behaviour = self.behaviours.get(task.service, GOOD)
            old = self.statuses.get(task.id)
            new = _next_status(task, old or TaskStatus(), behaviour)
            if new == old:
                continue
            if behaviour.delay:
                delays.add(behaviour.delay)
                new = old or TaskStatus()
            if new != old:
                self.statuses[task.id] = changed[task.id] = new
        self._tell(changed, always=always)
        for delay in delays:
            self._timers.add(asyncio.get_running_loop().call_later(delay, self._step_delayed))

    def _step_delayed(self) -> None:
        changed = {}
        for task in self.objects.tasks.values():
            old = self.statuses.get(task.id, TaskStatus())
            new = _next_status(task, old, self.behaviours.get(task.service, GOOD))
            if new != old:
                self.statuses[task.id] = changed[task.id] = new
        self._tell(changed)

    def _tell(self, changed: dict[str, TaskStatus], *, always: bool = False) -> None:
        gone = self._gone()
        if changed or gone or always:
            self._say(Report(applied=self.applied, tasks=changed, gone=gone))

    def _gone(self) -> tuple[str, ...]:
        """Forget tasks that are not wanted any more, or wanted removed."""
        gone = []
        for task_id in list(self.statuses):
            task = self.objects.tasks.get(task_id)
            if task is None or task.desired is Desired.REMOVED:
                behaviour = self.behaviours.get(task.service, GOOD) if task else GOOD
                if behaviour.stop == "ok":
                    del self.statuses[task_id]
                    gone.append(task_id)
        return tuple(gone)

    # The rest of the API.

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        task = request.match_info["id"]
        if task not in self.statuses and task not in self.log_lines:
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
                if task not in self.statuses:
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

    async def _leave(self, _: web.Request) -> web.Response:
        self.left += 1
        self.objects, self.stamp, self.node = Objects(), None, ""
        self.statuses.clear()
        return web.Response(status=204)


def digest(text: str) -> str:
    """Return the digest the fake resolves a name to."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _next_status(task: Assignment, old: TaskStatus, behaviour: Behaviour) -> TaskStatus:
    """Return where the task ends up; every jump on the way is legal (checked)."""
    new = _wanted_status(task, old, behaviour)
    assert may_move(old.state, new.state, by="agent"), (old.state, new.state)
    return new


def _wanted_status(task: Assignment, old: TaskStatus, behaviour: Behaviour) -> TaskStatus:
    if old.state in FINAL:
        return old
    if task.desired in (Desired.SHUTDOWN, Desired.REMOVED):
        stopped = old.model_copy(update={"state": TaskState.SHUTDOWN, "ready": False})
        return old if behaviour.stop == "never" else stopped
    if behaviour.prepare != "ok" and old.state in (TaskState.ASSIGNED, TaskState.PREPARING):
        if behaviour.prepare == "never":
            return TaskStatus(state=TaskState.PREPARING)
        return TaskStatus(state=TaskState.REJECTED, reason=behaviour.reason or "no such image")
    if task.desired is Desired.PREPARED:
        return old if old.state is not TaskState.ASSIGNED else TaskStatus(state=TaskState.PREPARED)
    return old.model_copy(update=_started(task, old, behaviour))


def _started(task: Assignment, old: TaskStatus, behaviour: Behaviour) -> dict[str, object]:
    run = old.run
    if run is None or run.finished_at is not None or task.restart > old.restart_done:
        number = run.number + 1 if run else 1
        run = Run(number=number, pid=4000 + number, started_at=time.time())
    ended = run.model_copy(update={"finished_at": time.time(), "exit_code": behaviour.exit_code})
    # A task that was running does not go back to starting; it is merely not ready.
    starting = TaskState.RUNNING if old.state is TaskState.RUNNING else TaskState.STARTING
    state, ready, last = {
        "ready": (TaskState.RUNNING, True, run),
        "unready": (TaskState.RUNNING, False, run),
        "starting": (starting, False, run),
        "complete": (TaskState.COMPLETE, False, ended),
        "fail": (TaskState.FAILED, False, ended),
    }[behaviour.start]
    return {
        "state": state,
        "ready": ready,
        "runs": (last,),
        "image_digest": task.spec.image_digest,
        "restart_done": task.restart,
        "restarts": old.restarts + (task.restart > old.restart_done),
        "reason": behaviour.reason,
        "health": behaviour.health,
        "log_tail": behaviour.log_tail if behaviour.start == "fail" else (),
    }


def _increment(old: Objects, instructions: Instructions) -> Objects:
    merged = {}
    for kind in KINDS:
        objects = {**getattr(old, kind), **getattr(instructions.put, kind)}
        for key in instructions.remove.get(kind, ()):
            objects.pop(key, None)
        merged[kind] = objects
    return Objects(**merged)


def _json(model: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=model.encode(), content_type="application/json")


def _problem(status: int, detail: str, hint: str = "") -> web.Response:
    problem = ApiProblem(type="x", title="x", status=status, detail=detail, hint=hint)
    return web.Response(
        status=status, body=problem.encode(), content_type="application/problem+json"
    )
