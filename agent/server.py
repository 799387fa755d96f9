"""The agent's HTTP API on its unix socket: what the controller dials (``specs/wire.py``).

Instructions come in, reports go out, and logs, exec, images and builds pass through.
Nothing is decided here. Routes and their handlers are one piece: who looks for a path finds both.
Every error is problem+json; bad input is never a traceback.
The socket's file mode is the access control: root and the group, nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, TypeVar

from aiohttp import WSMsgType, web
from pydantic import BaseModel, ValidationError

from agent import facts
from agent.attaching import Attaching
from agent.copying import Copying, NoSuchPath
from agent.errors import Later, Refusal
from agent.inside import Inside
from agent.moving import Moving
from agent.runtime import exec as execution
from agent.runtime.failure import RuntimeFailure
from agent.runtime.logreading import Reader, closing_words
from agent.saving import NoSuchVolume, Saving
from agent.shuttle import Shuttle
from agent.tasks.journal import safe_id
from agent.tasks.record import Phase
from specs import skew
from specs.api import ApiProblem
from specs.images import ForgetImages
from specs.inside import SignalTasks
from specs.kit import callers
from specs.kit.errnos import in_words
from specs.states import FINAL, Desired
from specs.wire import (
    HEARTBEAT,
    PROTOCOL,
    SHORTEST_HEARTBEAT,
    UNKEPT,
    AskPaths,
    BuildEvent,
    BuildImage,
    ExecRequest,
    HeldSet,
    Hello,
    Instructions,
    LeaseAnswer,
    LeaveCluster,
    Refused,
    ResolveImage,
    json_line,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.linux.inotify import Inotify
    from agent.runtime.containers import OciContainers
    from agent.tasks.compose import TaskParts
    from agent.tasks.effects import Effects
    from agent.tasks.record import Record

log = logging.getLogger(__name__)

BODY_MAX = 64 << 20  # a full set with its configs and secrets
M = TypeVar("M", bound=BaseModel)


class Fault(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, kind: str, title: str, detail: str = "", hint: str = ""
    ) -> None:
        super().__init__(detail or title)
        self.problem = ApiProblem(type=kind, title=title, status=status, detail=detail, hint=hint)


def problem_response(problem: ApiProblem, *, unread: bool = False) -> web.Response:
    """Return a problem as an HTTP answer. ``unread``: a body is still on its way."""
    response = web.Response(
        status=problem.status, body=problem.encode(), content_type="application/problem+json"
    )
    if unread or problem.status in callers.UNREAD:
        response.force_close()
    return response


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every error into problem+json."""
    try:
        with callers.answering(request.protocol):
            return await handler(request)
    except Fault as fault:
        problem = fault.problem
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10]
        )
        problem = ApiProblem(
            type="invalid",
            title="The message is not valid",
            status=400,
            detail=where,
            hint="nothing was changed; who sent it may be of a newer version: corral node ls",
        )
    except Refusal as refusal:
        problem = ApiProblem(
            type="invalid", title="It cannot be done as asked", status=422, detail=str(refusal)
        )
    except (Later, RuntimeFailure) as error:
        problem = ApiProblem(
            type="unavailable", title="It did not work now", status=503, detail=str(error)
        )
    except OSError as error:
        problem = ApiProblem(
            type="unavailable",
            title="The node could not do it",
            status=503,
            detail=f"{error.filename or 'a file'}: {in_words(error)}",
        )
    except (NoSuchPath, NoSuchVolume) as missing:
        problem = ApiProblem(
            type="not-found", title="No such thing here", status=404, detail=str(missing)
        )
    except web.HTTPException as error:
        kind = "not-found" if error.status == 404 else "invalid"
        problem = ApiProblem(type=kind, title=error.reason, status=error.status)
    except Exception:
        log.exception("a request failed", extra={"path": request.path})
        problem = ApiProblem(
            type="bug",
            title="The agent failed",
            status=500,
            hint="see the agent's log; please report it",
        )
    return problem_response(problem, unread=not request.content.at_eof())


class Server:
    """The API of one agent."""

    def __init__(
        self,
        *,
        tasks: TaskParts,
        containers: OciContainers,
        effects: Effects,
        inotify: Inotify,
        leave: Callable[[LeaveCluster | None], Awaitable[list[str] | Refused]],
        figures: Callable[[web.Request], Awaitable[web.Response]],
    ) -> None:
        self._tasks = tasks
        self._figures = figures
        self._holdings = tasks.holdings
        self._containers = containers
        self._inside = Inside(tasks, containers)
        self._attaching = Attaching(tasks, containers)
        self._copying = Copying(tasks.holdings, effects.images, effects.volumes)
        self._saving = Saving(tasks.holdings, effects.volumes)
        self._moving = Moving(self._saving, effects.volumes)
        self._images = effects.images
        self._volumes = effects.volumes
        self._peers = effects.peers
        self._inotify = inotify
        self._leave = leave

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[problems], client_max_size=BODY_MAX)
        app.add_routes(
            [
                web.get("/v1/hello", self.hello),
                web.put("/v1/instructions", self.instructions),
                web.get("/v1/held", self.held),
                web.get("/v1/metrics", self._figures),
                web.get("/v1/reports", self.reports),
                web.get("/v1/tasks/{id}/logs", self.logs),
                web.get("/v1/tasks/{id}/exec", self.exec),
                web.get("/v1/tasks/{id}/attach", self.attach),
                web.get("/v1/tasks/{id}/archive", self.read_archive),
                web.put("/v1/tasks/{id}/archive", self.write_archive),
                web.post("/v1/images/resolve", self.resolve),
                web.post("/v1/builds", self.build),
                web.get("/v1/images", self.images),
                web.get("/v1/images/transfer", self.transfer),
                web.post("/v1/images/forget", self.forget_images),
                web.get("/v1/listening", self.listening),
                web.post("/v1/paths", self.paths),
                web.get("/v1/usage", self.usage),
                web.get("/v1/processes", self.processes),
                web.post("/v1/signal", self.signal),
                web.delete("/v1/volumes/{name}", self.remove_volume),
                web.get("/v1/volumes/{name}/archive", self.read_volume),
                web.put("/v1/volumes/{name}/archive", self.write_volume),
                *self._moving.routes(),
                web.post("/v1/lease", self.lease),
                web.post("/v1/leave", self.leave),
            ]
        )
        return app

    async def hello(self, request: web.Request) -> web.Response:
        held, version = self._holdings.held, _version(request)
        answer = Hello(
            heartbeat=SHORTEST_HEARTBEAT,
            protocol=version,
            node=held.me.node if held.me else "",
            stamp=held.stamp,
            revision=held.revision,
            stacks={name: stack.stamp for name, stack in held.objects.stacks.items()},
            facts=self._tasks.reports.facts,
            signing_request=await self._peers.signing_request(),
        )
        return web.Response(body=skew.encode(answer, version), content_type="application/json")

    async def held(self, _request: web.Request) -> web.Response:
        held = self._holdings.held
        tasks = {one.id: one.status() for one in self._holdings.records() if not one.erased}
        return _json(
            HeldSet(
                stamp=held.stamp,
                me=held.me,
                revision=held.revision,
                objects=held.objects,
                tasks=tasks,
            )
        )

    async def instructions(self, request: web.Request) -> web.Response:
        # Nothing unknown is left out here: these are specs to execute.
        _version(request)
        told = await _body(request, Instructions)
        try:
            answer = await self._tasks.worker.accept(told)
        except OSError as error:
            # Not heard, rather than forgotten: who instructs us keeps listening and says it again.
            raise Fault(
                *(UNKEPT, "unavailable", "The node's disk does not keep what it is told"),
                f"{error.filename or 'a file'}: {in_words(error)}",
            ) from error
        return _json(answer, status=409 if isinstance(answer, Refused) else 200)

    async def reports(self, request: web.Request) -> web.StreamResponse:
        version = _version(request)
        response = await _ndjson(request)
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(
                self._tasks.reports.stream(_heartbeat(request))
            ) as reports:
                async for report in reports:
                    await response.write(skew.encode(report, version) + b"\n")
        return response

    async def logs(self, request: web.Request) -> web.StreamResponse:
        version = _version(request)
        task = self._task(request)
        directory = self._containers.logs(task)
        known = self._holdings.record(task)
        if known is None and not directory.exists():
            raise _no_task(task)
        tail = _number(request, "tail")
        since = _number(request, "since")
        follow = request.query.get("follow", "") in ("1", "true")
        # So that its first line wakes us; of a task that is being erased nothing is made again.
        if known is not None and known.assignment.desired is not Desired.REMOVED:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

        def over() -> bool:
            record = self._holdings.record(task)
            return (
                record is None
                or record.erased
                or (record.state in FINAL and record.phase in (Phase.NONE, Phase.ENDED))
            )

        response = await _ndjson(request)
        read = Reader(directory, self._inotify).read(
            tail=None if tail is None else int(tail),
            since=since,
            follow=follow,
            over=over,
            after=_place(request),
        )
        lines = closing_words(read, lambda: self._containers.rotation.losing(task))
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(lines):
                async for line in lines:
                    await response.write(skew.encode(line, version) + b"\n")
                await response.write_eof()
        return response

    async def exec(self, request: web.Request) -> web.StreamResponse:
        task = self._task(request)
        record = self._record(request)
        if record.phase is not Phase.RUNNING:
            raise Fault(
                *(409, "conflict", "The task is not running"),
                f"task {task} is {record.state}: {record.reason or 'no run'}",
            )
        if record.paused:
            raise Fault(
                *(409, "conflict", "The task is paused"), f"task {task} is paused", "corral unpause"
            )
        # No heartbeat: its answer would wait behind input the command does not read, or output
        # the user does not, and a slow reader is not a dead one. See _inward.
        websocket = web.WebSocketResponse(max_msg_size=4 << 20)
        await websocket.prepare(request)
        with contextlib.suppress(ConnectionError):
            await self._converse(websocket, task)
        await websocket.close()
        return websocket

    async def attach(self, request: web.Request) -> web.StreamResponse:
        task = self._task(request)
        websocket = web.WebSocketResponse(max_msg_size=4 << 20)
        await websocket.prepare(request)
        with contextlib.suppress(ConnectionError):
            await self._attaching.serve(websocket, task)
        await websocket.close()
        return websocket

    async def _converse(self, websocket: web.WebSocketResponse, task: str) -> None:
        try:
            first = await websocket.receive(timeout=10.0)
            if first.type is not WSMsgType.TEXT:
                return
            asked = ExecRequest.model_validate_json(first.data)
            session = await execution.begin(self._containers, task, asked)
        except (RuntimeFailure, Refusal, OSError) as error:
            await websocket.send_json({"error": str(error)})
            return
        except (ValidationError, TimeoutError):
            await websocket.send_json({"error": "the first message must be an ExecRequest"})
            return
        try:
            await Shuttle(websocket, session).run()
        finally:
            session.close()

    async def read_archive(self, request: web.Request) -> web.StreamResponse:
        return await self._copying.read(self._record(request), request)

    async def write_archive(self, request: web.Request) -> web.Response:
        return _json(await self._copying.write(self._record(request), request))

    async def resolve(self, request: web.Request) -> web.Response:
        return _json(await self._images.resolve(await _body(request, ResolveImage)))

    async def build(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request, BuildImage)
        response = await _ndjson(request)
        try:
            async for event in self._images.build(asked):
                await response.write(json_line(event))
        except (Refusal, Later, OSError) as error:
            await response.write(json_line(BuildEvent(error=str(error))))
        return response

    async def images(self, _request: web.Request) -> web.Response:
        found = await self._images.list()
        rows = [json.loads(one.encode()) for one in found]
        return web.json_response({"images": rows})

    async def transfer(self, request: web.Request) -> web.Response:
        done, total = await asyncio.to_thread(self._images.transfer, request.query.get("image", ""))
        return web.json_response({"done": done, "total": total})

    async def forget_images(self, request: web.Request) -> web.Response:
        """Remove images; what a task of this node has or is to have stays."""
        asked = await _body(request, ForgetImages)
        mine = {
            record.assignment.spec.image_digest: record.assignment.name
            for record in self._holdings.records()
            if not record.erased
        }
        used = asked.keep | {digest: f"container {name}" for digest, name in mine.items()}
        return _json(await self._images.forget(asked.images, used))

    async def listening(self, _request: web.Request) -> web.Response:
        """Say which ports local processes hold at this moment; the facts are some seconds old."""
        ports = await asyncio.to_thread(lambda: facts.listening(own=facts.own_sockets()))
        return web.json_response({"ports": list(ports)})

    async def paths(self, request: web.Request) -> web.Response:
        asked = await _body(request, AskPaths)
        return web.json_response({"paths": await self._volumes.look(asked.paths)})

    async def usage(self, request: web.Request) -> web.Response:
        return _json(await self._inside.usage(request.query.get("stack")))

    async def processes(self, request: web.Request) -> web.Response:
        return _json(await self._inside.processes(request.query.get("stack")))

    async def signal(self, request: web.Request) -> web.Response:
        got = self._inside.signal(await _body(request, SignalTasks))
        return web.json_response({"tasks": got})

    async def remove_volume(self, request: web.Request) -> web.Response:
        await self._volumes.remove(request.match_info["name"])
        return web.json_response({})

    async def read_volume(self, request: web.Request) -> web.StreamResponse:
        return await self._saving.read(request.match_info["name"], request)

    async def write_volume(self, request: web.Request) -> web.Response:
        return _json(await self._saving.write(request.match_info["name"], request))

    async def lease(self, request: web.Request) -> web.Response:
        """Take the controller's answer to the last question for leases; ask the next one."""
        answer = self._tasks.leases.answered(await _body(request, LeaseAnswer))
        return _json(answer, status=409 if isinstance(answer, Refused) else 200)

    async def leave(self, request: web.Request) -> web.Response:
        """Forget the cluster; a controller one release older does not say who it is."""
        asked = await _body(request, LeaveCluster) if request.can_read_body else None
        left = await self._leave(asked)
        if isinstance(left, Refused):
            return _json(left, status=409)
        if left:
            raise Fault(
                *(503, "unavailable", "The node could not be cleaned"),
                f"these tasks would not go: {', '.join(left)}",
                "ask again; the agent's log says what holds them",
            )
        return web.json_response({})

    def _record(self, request: web.Request) -> Record:
        task = self._task(request)
        record = self._holdings.record(task)
        if record is None:
            raise _no_task(task)
        return record

    @staticmethod
    def _task(request: web.Request) -> str:
        task = request.match_info["id"]
        if not safe_id(task):
            raise _no_task(task)
        return task


def _no_task(task: str) -> Fault:
    return Fault(404, "not-found", "No such task", f"task {task!r} is not on this node")


def _json(model: BaseModel, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=model.model_dump_json(exclude_defaults=True).encode(),
        content_type="application/json",
    )


async def _body(request: web.Request, kind: type[M]) -> M:
    """Return the decoded body; what is too large or packed is refused before it is read."""
    try:
        data = await callers.read_body(request, BODY_MAX)
    except callers.BodyRefused as refused:
        detail = f"the limit is {BODY_MAX >> 20} MiB" if refused.status == 413 else ""
        raise Fault(refused.status, "invalid", refused.title, detail, refused.hint) from None
    return kind.model_validate_json(data or b"{}")


async def _ndjson(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    return response


def _version(request: web.Request) -> int:
    """Return the version to speak with who asked. Raises Fault where that is none of ours."""
    text = request.headers.get(skew.HEADER, "1")
    asked = int(text) if text.isdecimal() and len(text) < 9 else 0
    if asked < skew.OLDEST:
        raise Fault(
            *(409, "conflict", "Too far apart"),
            f"this agent speaks version {PROTOCOL} of the wire and {skew.OLDEST}, not {text[:9]}",
            "containers run on; bring controller and agents to the same version of corral",
        )
    return min(asked, PROTOCOL)


def _place(request: web.Request) -> tuple[int, int, int] | None:
    words = request.query.get("after", "").split(".")
    if words == [""]:
        return None
    if len(words) != 3 or not all(word.isdecimal() and len(word) < 20 for word in words):
        raise Fault(400, "invalid", "after is no place in a log", f"after={request.query['after']}")
    run, sequence, offset = map(int, words)
    return run, sequence, offset


def _heartbeat(request: web.Request) -> float:
    """Return the seconds between report lines that were asked for, within what there is."""
    asked = _number(request, "heartbeat")
    return HEARTBEAT if asked is None else min(max(asked, SHORTEST_HEARTBEAT), HEARTBEAT)


def _number(request: web.Request, name: str) -> float | None:
    text = request.query.get(name, "")
    if text in ("", "all"):
        return None
    try:
        value = float(text)
    except ValueError:
        raise Fault(400, "invalid", f"{name} is not a number", f"{name}={text!r}") from None
    if not 0 <= value < 1e15:
        raise Fault(400, "invalid", f"{name} is out of range", f"{name}={text!r}")
    return value
