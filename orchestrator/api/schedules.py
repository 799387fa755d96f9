"""Schedules over HTTP: listed, begun by hand, paused (``specs/schedule.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api.stacks import find
from orchestrator.control.telling.schedules import schedule_rows
from specs.schedule import ScheduleRows

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.schedule import ActOnSchedule, ScheduleActed


async def schedules(parts: ApiParts, request: web.Request, _: None) -> ScheduleRows:
    stack = request.query.get("stack")
    return ScheduleRows(schedules=schedule_rows(parts.cluster, stack, now=parts.clock.wall()))


async def act(parts: ApiParts, request: web.Request, body: ActOnSchedule) -> ScheduleActed:
    stack = find(parts, request).name
    return await parts.control.act_on_schedule(stack, request.match_info["service"], body)
