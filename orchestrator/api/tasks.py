"""Single tasks over HTTP: the record, and a shell in its container through its agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.control.mirror.effective import Specs, of_oneoff
from orchestrator.control.mirror.placed import spec_there
from orchestrator.control.mirror.released import task_spec
from orchestrator.control.mirror.serving import is_ready, stands_by
from orchestrator.errors import Conflict, NotFound, RequestError
from specs.api import TaskMade
from specs.oneoff import TaskStreams
from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from orchestrator.api.routes import ApiParts
    from specs.task import Task

MAX_MESSAGE = 1024 * 1024
TELL_AFTER = 1.0  # seconds something waits before that is said
LOOK_AGAIN = 0.5


def find(parts: ApiParts, request: web.Request) -> Task:
    """Return the task of that id, or of that name: one that lives, else the last that ended.

    Raises NotFound.
    """
    wanted = request.match_info["id"]
    if task := parts.cluster.tasks.get(wanted):
        return task
    called = [
        t
        for t in parts.cluster.tasks.values()
        if t.name == wanted and t.desired is not Desired.REMOVED
    ]
    if named := [t for t in called if t.state not in FINAL] or called:
        # Two for a while: a lost one and its replacement, an old one and the new.
        cluster = parts.cluster
        serves = [t for t in named if not stands_by(cluster, t)] or named
        return max(serves, key=lambda t: (is_ready(cluster, t), t.live, t.created_at, t.id))
    for one in parts.cluster.oneoffs.values():
        if wanted == one.id or (wanted == one.task.name and one.shown):
            return one.task
    raise NotFound(f"there is no task {wanted}", hint="corral ps shows the tasks of a stack")


async def task(parts: ApiParts, request: web.Request, _: None) -> Task:
    return find(parts, request)


async def made(parts: ApiParts, request: web.Request, _: None) -> TaskMade:
    """Return the task with what it was made from."""
    found = find(parts, request)
    one = parts.cluster.oneoffs.get(found.id)
    if one is not None:
        effective = of_oneoff(one)
    elif (known := Specs(parts.cluster).of(found.stack, found.release, found.service)) is not None:
        effective = known
    else:
        return TaskMade(task=found)
    node = parts.cluster.nodes.get(found.node or "")
    spec = spec_there(parts.cluster, found, effective)
    return TaskMade(task=found, spec=spec, volumes=effective.volume_names(spec, found.slot, node))


async def streams_of(parts: ApiParts, request: web.Request, _: None) -> TaskStreams:
    """Say whether the task has a terminal, and takes input."""
    found = find(parts, request)
    one = parts.cluster.oneoffs.get(found.id)
    spec = one.service.task if one is not None else task_spec(parts.cluster, found)
    if spec is None:
        return TaskStreams()
    return TaskStreams(tty=spec.tty, stdin_open=spec.stdin_open)


async def execute(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    """Join the client's WebSocket to the agent's (specs/wire.py says what goes through)."""
    found = find(parts, request)
    run = found.status.run
    if found.node is None or found.state in FINAL or run is None or run.finished_at is not None:
        raise Conflict(
            f"{found.name} is not running ({found.state.value})",
            hint="corral ps shows which tasks run",
        )
    if found.status.paused:
        raise Conflict(f"{found.name} is paused", hint="corral unpause lets it go on")
    websocket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE)
    if not websocket.can_prepare(request).ok:
        raise Conflict("exec is a WebSocket; this request is none")
    await websocket.prepare(request)
    try:
        await parts.agents.exec(found.node, found.id, websocket)
    except RequestError as exc:
        with contextlib.suppress(ConnectionError):
            await websocket.send_str(json.dumps({"error": exc.detail}))
    with contextlib.suppress(ConnectionError):
        await websocket.close()
    return websocket


async def attach(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    """Join the client's WebSocket to the task's own process, once it has a node.

    One that has ended is answered with its code; of one that is only remembered, too.
    """
    found = find(parts, request)
    websocket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE)
    if not websocket.can_prepare(request).ok:
        raise Conflict("attach is a WebSocket; this request is none")
    await websocket.prepare(request)
    with contextlib.suppress(ConnectionError):
        try:
            placed = await _placed(parts, found.id, websocket)
            if isinstance(placed, dict):
                await websocket.send_json(placed)
            elif placed is not None and placed.node is not None:
                await parts.agents.attach(placed.node, placed.id, websocket)
        except RequestError as exc:
            await websocket.send_json({"lost": exc.detail})
        await websocket.close()
    return websocket


async def _placed(
    parts: ApiParts, task_id: str, websocket: web.WebSocketResponse
) -> Task | dict[str, object] | None:
    """Return the task once it has a node, or the last word on one that has ended.

    None: the client has gone. Why it waits is said once it takes a while.
    """
    told, since = "", parts.clock.monotonic()
    while not websocket.closed:
        one = parts.cluster.oneoffs.get(task_id)
        task = one.task if one is not None else parts.cluster.tasks.get(task_id)
        if task is None:
            return {"error": "it was removed", "exit": 1}
        if task.state in FINAL:
            return ended(task)
        if task.node is not None:
            return task
        waited = parts.clock.monotonic() - since
        if waited > TELL_AFTER and task.pending_reason not in ("", told):
            told = task.pending_reason
            await websocket.send_json({"waits": told})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN):
                await parts.cluster.reached(parts.cluster.revision + 1)
    return None


def ended(task: Task) -> dict[str, object]:
    """Return the last word on a task that has ended: its code, or why it never began."""
    run = task.status.run
    if run is not None and run.started_at is not None and run.exit_code is not None:
        return {"exit": run.exit_code}
    begun = run is not None and run.started_at is not None
    why = task.status.reason or task.pending_reason or task.state.value
    code = run.exit_code if run is not None and run.exit_code else 1
    return {"error": f"{task.name} {'ended' if begun else 'did not start'}: {why}", "exit": code}
