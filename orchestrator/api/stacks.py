"""Stacks and their releases over HTTP: each command is one call of the control loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api import named, rows, streams
from orchestrator.api.answers import Releases, Stacks, Tasks
from orchestrator.api.caller import made_by
from orchestrator.api.routes import flag, number
from orchestrator.control.telling.history import releases_of
from orchestrator.control.telling.words import release_row
from orchestrator.errors import NotFound
from specs.api import ScaledRow
from specs.inside import Forgotten

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.api import (
        Deploy,
        ReleaseRow,
        Restart,
        Restarted,
        Rollback,
        RolledBack,
        RolloutStatus,
        Scale,
        Stack,
        StackDetail,
        StackRow,
        Start,
        Started,
        Steer,
        Steered,
        StopStack,
    )
    from specs.inside import ForgetTasks
    from specs.made_by import MadeKind
    from specs.plans import Plan


def find(parts: ApiParts, request: web.Request) -> Stack:
    """Return the stack the path names. Raises NotFound."""
    name = request.match_info["stack"]
    stack = parts.cluster.stacks.get(name)
    if stack is None:
        hint = "corral ls shows the stacks there are; corral up -d makes the one of this folder"
        raise NotFound(f"there is no stack {name}", hint=hint)
    return stack


async def stacks(parts: ApiParts, _request: web.Request, _: None) -> Stacks:
    found = [rows.stack_row(parts.cluster, stack) for stack in parts.cluster.stacks.values()]
    why = parts.superseded()
    if why:
        # The records are not what runs: nobody was asked, and nobody is until it is decided.
        found = [row.unknown() for row in found]
    found.sort(key=lambda row: row.name)
    return Stacks(stacks=tuple(found), undecided=why, warnings=parts.warnings)


async def stack(parts: ApiParts, request: web.Request, _: None) -> StackDetail:
    return rows.stack_detail(parts.cluster, find(parts, request))


async def deploy(parts: ApiParts, request: web.Request, body: Deploy) -> ReleaseRow:
    kind: MadeKind = "create" if body.no_start else "up"
    said = body.by.at(body.client.hostname, body.directory)
    asked = body.model_copy(update={"by": made_by(request, said, kind)})
    return await parts.control.deploy(request.match_info["stack"], asked)


async def plan(parts: ApiParts, request: web.Request, body: Deploy) -> Plan:
    within = number(request, "within")
    return await parts.control.plan(request.match_info["stack"], body, within=within)


async def releases(parts: ApiParts, request: web.Request, _: None) -> Releases:
    found = releases_of(parts.cluster, find(parts, request).name)
    return Releases(releases=tuple(release_row(release) for release in found))


async def progress(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    release = number(request, "release")
    source = parts.control.progress(
        find(parts, request).name, int(release) if release is not None else None
    )
    return await streams.respond(request, source)


async def remove(parts: ApiParts, request: web.Request, _: None) -> StackRow:
    await parts.control.arrived(request.match_info["stack"])
    before = find(parts, request)
    await parts.control.remove(
        before.name, volumes=flag(request, "volumes"), timeout=number(request, "timeout")
    )
    return after(parts, before)


async def scale(parts: ApiParts, request: web.Request, body: Scale) -> ScaledRow:
    before = find(parts, request)
    by = made_by(request, body.by, "scale")
    done = await parts.control.scale(before.name, body.services, by)
    row = after(parts, before)
    return ScaledRow(**dict(row), warnings=done.warnings, started=done.started)


async def restart(parts: ApiParts, request: web.Request, body: Restart) -> Restarted:
    stack = find(parts, request).name
    services, ids = named.restarting(parts.cluster, stack, body.services)
    asked = body.model_copy(update={"services": services, "tasks": ids})
    return await parts.control.restart(stack, asked)


async def start(parts: ApiParts, request: web.Request, body: Start) -> Started:
    stack = find(parts, request).name
    services = named.whole(parts.cluster, stack, body.services, "start")
    by = made_by(request, body.by, "start")
    asked = body.model_copy(update={"services": services, "by": by})
    return await parts.control.start(stack, asked)


async def rollout(parts: ApiParts, request: web.Request, _: None) -> RolloutStatus:
    return parts.control.rollout(find(parts, request).name)


async def rollback(parts: ApiParts, request: web.Request, body: Rollback) -> RolledBack:
    await parts.control.arrived(request.match_info["stack"])
    by = made_by(request, body.by, "rollback")
    asked = body.model_copy(update={"by": by})
    return await parts.control.rollback(request.match_info["stack"], asked)


async def steer(parts: ApiParts, request: web.Request, body: Steer) -> Steered:
    await parts.control.arrived(request.match_info["stack"])
    kind: MadeKind = "rollback" if body.action == "abort" else "resume"
    by = made_by(request, body.by, kind)
    return await parts.control.steer(find(parts, request).name, body.model_copy(update={"by": by}))


async def stop(parts: ApiParts, request: web.Request, body: StopStack) -> StackRow:
    await parts.control.arrived(request.match_info["stack"])
    before = find(parts, request)
    services = named.whole(parts.cluster, before.name, body.services, "stop")
    if services or not body.services:
        await parts.control.stop(before.name, body.timeout, services)
    return after(parts, before)


async def forget(parts: ApiParts, request: web.Request, body: ForgetTasks) -> Forgotten:
    stack = find(parts, request).name
    services = named.whole(parts.cluster, stack, body.services, "rm")
    if body.services and not services:
        return Forgotten()
    return await parts.control.forget(stack, services)


async def tasks(parts: ApiParts, request: web.Request, _: None) -> Tasks:
    found_stack = find(parts, request)
    name = found_stack.name
    mine = list(parts.cluster.tasks_of(name))
    now = parts.clock.wall()
    every = flag(request, "all")
    shown = rows.shown_tasks(mine, every=every)
    found = [rows.task_row(parts.cluster, task, now=now) for task in shown]
    if every and flag(request, "oneoffs"):  # who counts replicas is not to see them
        oneoffs = rows.shown_oneoffs(parts.cluster, name)
        found += [rows.oneoff_row(parts.cluster, one, now=now) for one in oneoffs]
    if not every:  # what runs by a schedule is a one-off to nodes, and part of the stack to people
        going = {o.task for r in parts.cluster.schedules.values() for o in r.going}
        ones = rows.shown_oneoffs(parts.cluster, name)
        found += [
            rows.oneoff_row(parts.cluster, one, now=now)
            for one in ones
            if one.id in going and not one.over
        ]
    missing = () if every else rows.missing(parts.cluster, found_stack, mine, now)
    return Tasks(tasks=tuple(found), missing=missing, undecided=parts.superseded())


def after(parts: ApiParts, before: Stack) -> StackRow:
    """Return the stack as it is now; as it was when the command already made it vanish."""
    return rows.stack_row(parts.cluster, parts.cluster.stacks.get(before.name, before))
