"""One-offs over HTTP: made, stopped, removed (``specs/oneoff.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api import streams
from orchestrator.api.stacks import find

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.oneoff import ActedOn, ActOnOneOffs, StartOneOff


async def start(parts: ApiParts, request: web.Request, body: StartOneOff) -> web.StreamResponse:
    stack = request.match_info["stack"]
    return await streams.respond(request, parts.control.start_oneoff(stack, body))


async def act(parts: ApiParts, request: web.Request, body: ActOnOneOffs) -> ActedOn:
    return await parts.control.act_on_oneoffs(find(parts, request).name, body)
