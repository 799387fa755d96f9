"""The question of a store that is older than what runs, over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.api.routes import flag
from orchestrator.control.checking import check as checked
from orchestrator.errors import Unavailable
from specs.api import StateExport

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from orchestrator.control.state import StateQuestion
    from specs.api import DecidedState, StateCheck, StateReport


def _question(parts: ApiParts) -> StateQuestion:
    if parts.state is None:
        raise Unavailable("this controller has no nodes to compare its state with")
    return parts.state


async def show(parts: ApiParts, _request: web.Request, _: None) -> StateReport:
    return await _question(parts).show()


async def adopt(parts: ApiParts, request: web.Request, _: None) -> DecidedState:
    return await _question(parts).adopt(without_absent=flag(request, "without_absent"))


async def discard(parts: ApiParts, _request: web.Request, _: None) -> DecidedState:
    return await _question(parts).discard()


async def check(parts: ApiParts, _request: web.Request, _: None) -> StateCheck:
    """Go through every record of the store; nothing is changed."""
    if parts.sealer is None:
        raise Unavailable("this controller has no key to read its store with")
    snapshot = await parts.store.list("/")
    return await asyncio.to_thread(checked, snapshot, parts.sealer, wall=parts.clock.wall())


async def export(parts: ApiParts, _request: web.Request, _: None) -> StateExport:
    return StateExport(state=parts.export())
