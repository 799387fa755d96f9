"""The controller's HTTP API on a unix socket: the route table, and serving it.

The straight line enters the controller here. Every command is one store
transaction inside Control; nothing here decides or keeps state.
"""

from __future__ import annotations

import contextlib
import json
import logging
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.api import logs, nodes, problems, stacks, streams, tasks
from orchestrator.api.answers import NodeRows, Releases, Stacks, TaskIds, Tasks
from orchestrator.api.routes import LARGE, Parts, Query, Route, read_body
from orchestrator.errors import Conflict
from specs import api
from specs.kit.door import listen
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


log = logging.getLogger(__name__)

DRAIN = 1.0  # seconds open requests have at shutdown; streams are broken off at once
MAX_HEADERS = 16 * 1024


async def version(parts: Parts, _request: web.Request, _: None) -> api.Version:
    return parts.version()


async def events(parts: Parts, request: web.Request, _: None) -> web.StreamResponse:
    return await streams.respond(request, parts.control.events(request.query.get("stack")))


async def openapi(parts: Parts, _request: web.Request, _: None) -> web.Response:
    # Asked for rarely, and importing it builds every model's schema.
    from orchestrator.api.openapi import document  # noqa: PLC0415

    body = json.dumps(document(ROUTES, parts.version().version))
    return web.Response(text=body, content_type="application/json")


_TIMEOUT = Query("timeout", "number", text="seconds between the stop signal and the kill")

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/version", version, "Version, cluster and epoch", answer=api.Version),
    Route("GET", "/v1/openapi.json", openapi, "This document"),
    Route("GET", "/v1/nodes", nodes.nodes, "All nodes", answer=NodeRows),
    Route("GET", "/v1/nodes/{name}", nodes.node, "One node, with facts", answer=api.NodeDetail),
    Route("POST", "/v1/nodes", nodes.add, "Add a machine", body=api.AddNode, stream=api.Progress),
    Route(
        "PATCH",
        "/v1/nodes/{name}",
        nodes.patch,
        "Change labels or availability",
        body=api.PatchNode,
        answer=api.NodeRow,
    ),
    Route(
        "DELETE",
        "/v1/nodes/{name}",
        nodes.remove,
        "Drain a node and take corral off it",
        stream=api.Progress,
        query=(Query("force", "flag", text="forget it without asking it"),),
    ),
    Route("GET", "/v1/stacks", stacks.stacks, "All stacks", answer=Stacks),
    Route("GET", "/v1/stacks/{stack}", stacks.stack, "One stack", answer=api.StackDetail),
    Route(
        "POST",
        "/v1/stacks/{stack}/releases",
        stacks.deploy,
        "Make a release",
        body=api.Deploy,
        limit=LARGE,
        answer=api.ReleaseRow,
    ),
    Route("GET", "/v1/stacks/{stack}/releases", stacks.releases, "Releases", answer=Releases),
    Route(
        "GET",
        "/v1/stacks/{stack}/progress",
        stacks.progress,
        "What happens to a release, until it ends",
        stream=api.Progress,
        query=(Query("release", "integer", text="its number; the newest without it"),),
    ),
    Route(
        "DELETE",
        "/v1/stacks/{stack}",
        stacks.remove,
        "Stop and remove a stack",
        answer=api.StackRow,
        query=(Query("volumes", "flag", text="named volumes too"), _TIMEOUT),
    ),
    Route(
        "POST",
        "/v1/stacks/{stack}/scale",
        stacks.scale,
        "Set replicas",
        body=api.Scale,
        answer=api.StackRow,
    ),
    Route(
        "POST",
        "/v1/stacks/{stack}/restart",
        stacks.restart,
        "Restart tasks in place",
        body=api.Restart,
        answer=TaskIds,
    ),
    Route(
        "POST",
        "/v1/stacks/{stack}/stop",
        stacks.stop,
        "Stop all tasks, keep the stack",
        body=api.Stop,
        answer=api.StackRow,
    ),
    Route(
        "GET",
        "/v1/stacks/{stack}/tasks",
        stacks.tasks,
        "Tasks",
        answer=Tasks,
        query=(Query("all", "flag", text="also those that have ended"),),
    ),
    Route(
        "GET",
        "/v1/stacks/{stack}/logs",
        logs.logs,
        "What the containers print, merged by time",
        stream=api.StackLogLine,
        query=(
            Query("service", repeated=True, text="only these services"),
            Query("follow", "flag", text="go on with what comes"),
            Query("tail", "integer", text="last lines of each task"),
            Query("since", "number", text="not before this time, seconds since the epoch"),
            Query("timestamps", "flag", text="for the reader; lines always carry their time"),
        ),
    ),
    Route("GET", "/v1/tasks/{id}", tasks.task, "One task, whole", answer=Task),
    Route("GET", "/v1/tasks/{id}/exec", tasks.execute, "Run a command in a task", websocket=True),
    Route(
        "GET",
        "/v1/events",
        events,
        "Events from now on",
        stream=api.Event,
        query=(Query("stack", text="only of this stack"),),
    ),
)


def make(parts: Parts) -> web.Application:
    """Return the application, every route behind the problem middleware."""
    app = web.Application(middlewares=[problems.middleware])
    app[streams.OPEN] = set()
    app.on_shutdown.append(streams.break_off)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, partial(_handle, parts, route))
    return app


async def _handle(parts: Parts, route: Route, request: web.Request) -> web.StreamResponse:
    if route.changes and (why := parts.superseded()):
        raise Conflict(why)
    body = await read_body(request, route)
    answer = await route.handler(parts, request, body)
    if isinstance(answer, web.StreamResponse):
        return answer
    return web.Response(body=answer.model_dump_json().encode(), content_type="application/json")


@contextlib.asynccontextmanager
async def serve(app: web.Application, path: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve on a unix socket that only root and the group corral may open.

    Yields what opens the socket again, for specs.kit.door.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN, max_field_size=MAX_HEADERS)
    await runner.setup()

    async def enter() -> None:
        old = list(runner.sites)
        await web.SockSite(runner, listen(path), backlog=128).start()
        for site in old:
            await site.stop()  # what is connected stays so

    try:
        await enter()
        yield enter
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        await runner.cleanup()
