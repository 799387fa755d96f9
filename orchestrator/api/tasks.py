"""Single tasks over HTTP: the record, and a shell in its container through its agent."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.control.mirror.serving import is_ready
from orchestrator.errors import Conflict, NotFound, RequestError
from specs.states import FINAL

if TYPE_CHECKING:
    from orchestrator.api.routes import ApiParts
    from specs.task import Task

MAX_MESSAGE = 1024 * 1024


def find(parts: ApiParts, request: web.Request) -> Task:
    """Return the task of that id, or the live one of that name. Raises NotFound."""
    wanted = request.match_info["id"]
    if task := parts.cluster.tasks.get(wanted):
        return task
    named = [t for t in parts.cluster.tasks.values() if t.name == wanted and t.state not in FINAL]
    if named:
        # Two for a while: a lost one and its replacement, an old one and the new.
        return max(named, key=lambda t: (is_ready(parts.cluster, t), t.live, t.created_at, t.id))
    raise NotFound(f"there is no task {wanted}", hint="corral ps shows the tasks of a stack")


async def task(parts: ApiParts, request: web.Request, _: None) -> Task:
    return find(parts, request)


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
