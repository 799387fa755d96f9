"""The controller's HTTP API on a unix socket: the route table, and serving it.

The straight line enters the controller here. Every command is one store
transaction inside Control; nothing here decides or keeps state. The route table is one piece:
who looks for a path finds it here, and the OpenAPI document is made of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.api import (
    archive,
    backups,
    events,
    history,
    images,
    inside,
    logs,
    metrics,
    nodes,
    objects,
    oneoffs,
    problems,
    schedules,
    sent,
    stacks,
    state,
    streams,
    tasks,
    volume_archive,
)
from orchestrator.api.answers import NodeRows, Releases, Stacks, Tasks
from orchestrator.api.routes import LARGE, ApiParts, ApiRoute, QueryField, read_body
from orchestrator.errors import Conflict
from specs import api
from specs.events import Event
from specs.history import Diff, ReleaseHistory
from specs.images import ImagesLeft, StackImages
from specs.inside import (
    Copied,
    ForgetTasks,
    Forgotten,
    InsideRows,
    Paused,
    PauseStack,
    Signalled,
    SignalStack,
)
from specs.kit.callers import IDLE_SECONDS, Callers
from specs.kit.door import Door
from specs.kit.failpoints import reached
from specs.objects import (
    ContentRow,
    ContentRows,
    CreateContent,
    CreateNetwork,
    CreateVolume,
    DroppedObject,
    MadeObject,
    MoveVolume,
    NetworkRow,
    NetworkRows,
    Restored,
    VolumeRow,
    VolumeRows,
)
from specs.oneoff import ActedOn, ActOnOneOffs, OneOffProgress, StartOneOff, TaskStreams
from specs.plans import Plan
from specs.schedule import ActOnSchedule, ScheduleActed, ScheduleRows
from specs.sent import AskChunks, MissingChunks, PutChunks, SentFolder, SentTree
from specs.task import Task
from specs.why import Why

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


log = logging.getLogger(__name__)

DRAIN = 1.0  # seconds open requests have at shutdown; streams are broken off at once
MAX_HEADERS = 16 * 1024
MOST_CALLERS = 512  # at once; a program may have 1,024 files open where nobody raised that
BACKLOG = 128


async def version(parts: ApiParts, _request: web.Request, _: None) -> api.Version:
    return parts.version()


async def openapi(parts: ApiParts, _request: web.Request, _: None) -> web.Response:
    version = parts.version().version

    def written() -> str:
        from orchestrator.api.openapi import document  # noqa: PLC0415 - builds every model's schema

        return json.dumps(document(ROUTES, version))

    body = await asyncio.to_thread(written)  # it takes a while, the first time
    return web.Response(text=body, content_type="application/json")


_TIMEOUT = QueryField("timeout", "number", text="seconds between the stop signal and the kill")
_SERVICES = QueryField("service", repeated=True, text="only these services")

ROUTES: tuple[ApiRoute, ...] = (
    ApiRoute("GET", "/v1/version", version, "Version, cluster and epoch", answer=api.Version),
    ApiRoute("GET", "/v1/openapi.json", openapi, "This document"),
    ApiRoute("GET", "/v1/metrics", metrics.own, "Figures of the controller, for Prometheus"),
    ApiRoute("GET", "/v1/nodes/{name}/metrics", metrics.node, "Figures of a node's agent"),
    ApiRoute("GET", "/v1/nodes", nodes.nodes, "All nodes", answer=NodeRows),
    ApiRoute("GET", "/v1/nodes/{name}", nodes.node, "One node, with facts", answer=api.NodeDetail),
    ApiRoute(
        "POST", "/v1/nodes", nodes.add, "Add a machine", body=api.AddNode, stream=api.Progress
    ),
    ApiRoute(
        "PATCH",
        "/v1/nodes/{name}",
        nodes.patch,
        "Change labels or availability",
        body=api.PatchNode,
        answer=api.NodeRow,
    ),
    ApiRoute(
        "DELETE",
        "/v1/nodes/{name}",
        nodes.remove,
        "Drain a node and take corral off it",
        stream=api.Progress,
        query=(QueryField("force", "flag", text="forget it without asking it"),),
    ),
    ApiRoute(
        "POST",
        "/v1/upgrade",
        nodes.upgrade,
        "Bring agents to this controller's version, one after the other",
        body=api.Upgrade,
        stream=api.Progress,
    ),
    ApiRoute(
        "POST",
        "/v1/cluster/ranges",
        nodes.extend,
        "Give the cluster another range of addresses",
        body=api.ExtendCluster,
        answer=api.ClusterRanges,
    ),
    ApiRoute(
        "POST",
        "/v1/sent/missing",
        sent.missing,
        "Which chunks of another machine's files are not here",
        body=AskChunks,
        limit=LARGE,
        answer=MissingChunks,
    ),
    ApiRoute(
        "POST",
        "/v1/sent/chunks",
        sent.put,
        "Keep chunks of another machine's files",
        body=PutChunks,
        limit=LARGE,
        answer=MissingChunks,
    ),
    ApiRoute(
        "POST",
        "/v1/sent/trees",
        sent.tree,
        "Make a folder of chunks",
        body=SentTree,
        limit=LARGE,
        answer=SentFolder,
    ),
    ApiRoute("GET", "/v1/stacks", stacks.stacks, "All stacks", answer=Stacks),
    ApiRoute("GET", "/v1/stacks/{stack}", stacks.stack, "One stack", answer=api.StackDetail),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/releases",
        stacks.deploy,
        "Make a release",
        body=api.Deploy,
        limit=LARGE,
        answer=api.ReleaseRow,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/plan",
        stacks.plan,
        "What a release would do; nothing is written",
        body=api.Deploy,
        limit=LARGE,
        answer=Plan,
        query=(QueryField("within", "number", text="seconds of work, then the rest is left out"),),
    ),
    ApiRoute("GET", "/v1/stacks/{stack}/releases", stacks.releases, "Releases", answer=Releases),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/history",
        history.history,
        "What each release changed, who made it and why",
        answer=ReleaseHistory,
        query=(
            QueryField("service", text="only releases that changed it"),
            QueryField("limit", "integer", text="so many, the newest"),
        ),
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/rollback",
        stacks.rollback,
        "Bring back what an earlier release asked for",
        body=api.Rollback,
        answer=api.RolledBack,
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/diff",
        history.diff,
        "What differs between two releases",
        answer=Diff,
        query=(
            QueryField("before", "integer", text="a release; without it the last two"),
            QueryField("after", "integer", text="another one; without it what runs"),
        ),
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/progress",
        stacks.progress,
        "What happens to a release, until it ends",
        stream=api.Progress,
        query=(QueryField("release", "integer", text="its number; the newest without it"),),
    ),
    ApiRoute(
        "DELETE",
        "/v1/stacks/{stack}",
        stacks.remove,
        "Stop and remove a stack",
        answer=api.StackRow,
        query=(QueryField("volumes", "flag", text="named volumes too"), _TIMEOUT),
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/scale",
        stacks.scale,
        "Set replicas",
        body=api.Scale,
        answer=api.ScaledRow,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/restart",
        stacks.restart,
        "Restart tasks in place, start what had ended",
        body=api.Restart,
        answer=api.Restarted,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/start",
        stacks.start,
        "Start what does not run, as it was",
        body=api.Start,
        answer=api.Started,
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/rollout",
        stacks.rollout,
        "How far the newest release's rollout is",
        answer=api.RolloutStatus,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/rollout",
        stacks.steer,
        "Pause a rollout, go on with it, take it back, promote a canary",
        body=api.Steer,
        answer=api.Steered,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/stop",
        stacks.stop,
        "Stop all tasks, or those of some services; keep the stack",
        body=api.StopStack,
        answer=api.StackRow,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/forget",
        stacks.forget,
        "Remove what has ended of services that do not run",
        body=ForgetTasks,
        answer=Forgotten,
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/images",
        images.images,
        "Images of a stack's services",
        answer=StackImages,
        query=(QueryField("built", "flag", text="only what is built under no name of its own"),),
    ),
    ApiRoute(
        "POST",
        "/v1/images/forget",
        images.forget,
        "Remove images from the nodes where nobody uses them",
        body=StackImages,
        answer=ImagesLeft,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/runs",
        oneoffs.start,
        "Run a command once in a container of a service",
        body=StartOneOff,
        limit=LARGE,
        stream=OneOffProgress,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/oneoffs",
        oneoffs.act,
        "Stop one-offs, or remove those that have ended",
        body=ActOnOneOffs,
        answer=ActedOn,
    ),
    ApiRoute(
        "GET",
        "/v1/schedules",
        schedules.schedules,
        "What runs by a schedule, when it is due next, and what came of it",
        answer=ScheduleRows,
        query=(QueryField("stack", text="only of this stack"),),
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/schedules/{service}",
        schedules.act,
        "Begin an iteration now, or have none begin by itself",
        body=ActOnSchedule,
        answer=ScheduleActed,
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/tasks",
        stacks.tasks,
        "Tasks",
        answer=Tasks,
        query=(
            QueryField("all", "flag", text="also those that have ended"),
            QueryField("oneoffs", "flag", text="of these also what `run` made"),
        ),
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/logs",
        logs.logs,
        "What the containers print, merged by time",
        stream=api.StackLogLine,
        query=(
            QueryField("service", repeated=True, text="only these services"),
            QueryField("follow", "flag", text="go on with what comes"),
            QueryField("tail", "integer", text="last lines of each task"),
            QueryField("since", "number", text="not before this time, seconds since the epoch"),
            QueryField("timestamps", "flag", text="for the reader; lines always carry their time"),
        ),
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/usage",
        inside.usage,
        "What running tasks use: processors, memory, network, disks",
        answer=InsideRows,
        query=(_SERVICES,),
    ),
    ApiRoute(
        "GET",
        "/v1/stacks/{stack}/processes",
        inside.processes,
        "The processes of running tasks",
        answer=InsideRows,
        query=(_SERVICES,),
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/signal",
        inside.signal,
        "Send a signal to running tasks",
        body=SignalStack,
        answer=Signalled,
    ),
    ApiRoute(
        "POST",
        "/v1/stacks/{stack}/pause",
        inside.pause,
        "Freeze running tasks, or let them go on",
        body=PauseStack,
        answer=Paused,
    ),
    ApiRoute("GET", "/v1/networks", objects.networks, "All networks", answer=NetworkRows),
    ApiRoute(
        "POST",
        "/v1/networks",
        objects.make_network,
        "Make a network that belongs to no stack",
        body=CreateNetwork,
        answer=MadeObject,
    ),
    ApiRoute("GET", "/v1/networks/{name}", objects.network, "One network", answer=NetworkRow),
    ApiRoute(
        "DELETE",
        "/v1/networks/{name}",
        objects.drop_network,
        "Remove a network that no stack uses",
        answer=DroppedObject,
    ),
    ApiRoute("GET", "/v1/volumes", objects.volumes, "All volumes", answer=VolumeRows),
    ApiRoute(
        "POST",
        "/v1/volumes",
        objects.make_volume,
        "Make a volume that belongs to no stack",
        body=CreateVolume,
        answer=MadeObject,
    ),
    ApiRoute("GET", "/v1/volumes/{name}", objects.volume, "One volume", answer=VolumeRow),
    ApiRoute(
        "DELETE",
        "/v1/volumes/{name}",
        objects.drop_volume,
        "Remove a volume that no stack uses",
        answer=DroppedObject,
    ),
    ApiRoute(
        "POST",
        "/v1/volumes/{name}/move",
        objects.move_volume,
        "Move a volume to another node, take that back, confirm it, or go back",
        body=MoveVolume,
        answer=VolumeRow,
    ),
    ApiRoute(
        "GET",
        "/v1/volumes/{name}/archive",
        volume_archive.read,
        "All data of a volume, as a tar archive",
        archive=True,
        query=(QueryField("node", text="which, of a volume that each node has"),),
    ),
    ApiRoute(
        "PUT",
        "/v1/volumes/{name}/archive",
        volume_archive.write,
        "Make a tar archive the data of a volume: all of it, or nothing is changed",
        archive=True,
        answer=Restored,
        query=(
            QueryField("node", text="where, of a volume that no node has yet"),
            QueryField("replace", "flag", text="also where it holds data"),
            QueryField("size", text="bytes to come, to be refused early where they do not fit"),
        ),
    ),
    ApiRoute("GET", "/v1/secrets", objects.secrets, "All secrets", answer=ContentRows),
    ApiRoute(
        "POST",
        "/v1/secrets",
        objects.make_secret,
        "Make a secret that belongs to no stack",
        body=CreateContent,
        limit=LARGE,
        answer=MadeObject,
    ),
    ApiRoute("GET", "/v1/secrets/{name}", objects.secret, "One secret", answer=ContentRow),
    ApiRoute(
        "DELETE",
        "/v1/secrets/{name}",
        objects.drop_secret,
        "Remove a secret that no stack uses",
        answer=DroppedObject,
    ),
    ApiRoute("GET", "/v1/configs", objects.configs, "All configs", answer=ContentRows),
    ApiRoute(
        "POST",
        "/v1/configs",
        objects.make_config,
        "Make a config that belongs to no stack",
        body=CreateContent,
        limit=LARGE,
        answer=MadeObject,
    ),
    ApiRoute("GET", "/v1/configs/{name}", objects.config, "One config", answer=ContentRow),
    ApiRoute(
        "DELETE",
        "/v1/configs/{name}",
        objects.drop_config,
        "Remove a config that no stack uses",
        answer=DroppedObject,
    ),
    ApiRoute("GET", "/v1/tasks/{id}", tasks.task, "One task, whole", answer=Task),
    ApiRoute(
        "GET",
        "/v1/tasks/{id}/made",
        tasks.made,
        "One task and what it was made from",
        answer=api.TaskMade,
    ),
    ApiRoute(
        "GET", "/v1/tasks/{id}/exec", tasks.execute, "Run a command in a task", websocket=True
    ),
    ApiRoute(
        "GET",
        "/v1/tasks/{id}/streams",
        tasks.streams_of,
        "Whether it has a terminal and takes input",
        answer=TaskStreams,
    ),
    ApiRoute(
        "GET",
        "/v1/tasks/{id}/attach",
        tasks.attach,
        "Listen and speak to a task's own process",
        websocket=True,
    ),
    ApiRoute(
        "GET",
        "/v1/tasks/{id}/archive",
        archive.read,
        "What is at a path in a task, as a tar archive",
        archive=True,
        query=(
            QueryField("path", text="absolute, or from / on; DIR/. is what is in it"),
            QueryField("follow", "flag", text="of a link what it points to"),
        ),
    ),
    ApiRoute(
        "PUT",
        "/v1/tasks/{id}/archive",
        archive.write,
        "Put a tar archive where it belongs in a task",
        archive=True,
        answer=Copied,
        query=(
            QueryField("path", text="where to"),
            QueryField("source", text="the name its entries begin with; without it a folder's"),
            QueryField("directory", "flag", text="that is a folder"),
            QueryField("contents", "flag", text="only what is in it"),
        ),
    ),
    ApiRoute("GET", "/v1/state", state.show, "Is it older than what runs", answer=api.StateReport),
    ApiRoute(
        "POST",
        "/v1/state/adopt",
        state.adopt,
        "Take over what runs",
        answer=api.DecidedState,
        query=(QueryField("without_absent", "flag", text="although nodes do not answer"),),
        always=True,
    ),
    ApiRoute(
        "POST",
        "/v1/state/discard",
        state.discard,
        "Stop what the state does not know",
        answer=api.DecidedState,
        always=True,
    ),
    ApiRoute(
        "GET",
        "/v1/state/check",
        state.check,
        "Whether its records are what they should be",
        answer=api.StateCheck,
    ),
    ApiRoute(
        "GET",
        "/v1/state/export",
        state.export,
        "What it says, without secrets",
        answer=api.StateExport,
    ),
    ApiRoute(
        "GET",
        "/v1/backups",
        backups.status,
        "When backups are made, and which there are",
        answer=api.BackupStatus,
    ),
    ApiRoute(
        "POST",
        "/v1/backups",
        backups.make,
        "A backup of the controller's state, as the file it is",
        body=api.MakeBackup,
        always=True,  # it changes nothing
    ),
    ApiRoute(
        "PUT",
        "/v1/backups/schedule",
        backups.schedule,
        "Make backups by themselves, or no more",
        body=api.ScheduleBackups,
        answer=api.BackupStatus,
    ),
    ApiRoute(
        "GET",
        "/v1/why/{name:.+}",
        events.why,
        "Why a service, a task, a node or a stack is as it is, and what would help",
        answer=Why,
        query=(QueryField("stack", text="whose services and tasks the name may mean"),),
    ),
    ApiRoute(
        "GET",
        "/v1/events",
        events.events,
        "What happened, and what happens from now on",
        stream=Event,
        query=(
            QueryField("stack", text="only of this stack, and of what belongs to none"),
            QueryField("history", "flag", text="what is kept first"),
            QueryField("follow", "flag", text="go on with what comes; without it: as if 1"),
            QueryField("since", "number", text="not before this time, seconds since the epoch"),
            QueryField("until", "number", text="not after this time"),
            QueryField("tail", "integer", text="of what is kept only so many, the last"),
            QueryField("filter", repeated=True, text="WORD=VALUE, see specs.events.FILTERS"),
        ),
    ),
)


def make(parts: ApiParts) -> web.Application:
    """Return the application, every route behind the problem middleware."""
    app = web.Application(middlewares=[problems.middleware])
    app[streams.OPEN] = set()
    app.on_shutdown.append(streams.break_off)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, partial(_handle, parts, route))
    return app


async def _handle(parts: ApiParts, route: ApiRoute, request: web.Request) -> web.StreamResponse:
    if route.changes and parts.settled is not None:
        await parts.settled()
    if route.changes and (why := parts.superseded()):
        raise Conflict(why)
    body = await read_body(request, route)
    if route.changes:
        reached("api.before_txn")
    answer = await route.handler(parts, request, body)
    if route.changes:
        reached("api.after_txn_before_ack")
    if isinstance(answer, web.StreamResponse):
        return answer
    return web.Response(body=answer.model_dump_json().encode(), content_type="application/json")


@contextlib.asynccontextmanager
async def serve(app: web.Application, path: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve on a unix socket that only root and the group corral may open.

    Yields what opens the socket again, for specs.kit.door.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=DRAIN,
        max_field_size=MAX_HEADERS,
        keepalive_timeout=IDLE_SECONDS,
        auto_decompress=False,  # nothing of a body is unpacked before its route refused it
    )
    await runner.setup()
    assert runner.server is not None
    door = Door(Callers(runner.server, most=MOST_CALLERS), path, backlog=BACKLOG)
    try:
        await door.open()
        yield door.open
    finally:
        door.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        await runner.cleanup()
