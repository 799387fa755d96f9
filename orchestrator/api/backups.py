"""Backups over HTTP: one on request, as a stream of its file; and what the schedule says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.api.archive import STUCK
from orchestrator.api.streams import OPEN
from orchestrator.errors import Unavailable

if TYPE_CHECKING:
    from orchestrator.api.routes import ApiParts
    from orchestrator.backups.making import Backups
    from specs.api import BackupStatus, MakeBackup, ScheduleBackups

PIECE = 256 * 1024


def _backups(parts: ApiParts) -> Backups:
    if parts.backups is None:
        raise Unavailable("this controller keeps its state in memory: there is nothing to back up")
    return parts.backups


async def status(parts: ApiParts, _request: web.Request, _: None) -> BackupStatus:
    return await _backups(parts).status()


async def schedule(parts: ApiParts, _request: web.Request, body: ScheduleBackups) -> BackupStatus:
    return await _backups(parts).arrange(body)


async def make(parts: ApiParts, request: web.Request, body: MakeBackup) -> web.StreamResponse:
    """Answer with a backup of this moment; it is whole before its first byte is sent."""
    mine = asyncio.current_task()
    assert mine is not None
    async with _backups(parts).made(body) as (path, name):
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        response = web.StreamResponse(headers=headers)
        response.content_length = path.stat().st_size
        await response.prepare(request)
        request.app[OPEN].add(mine)
        try:
            with path.open("rb") as file:
                while part := await asyncio.to_thread(file.read, PIECE):
                    async with asyncio.timeout(STUCK):
                        await response.write(part)
            await response.write_eof()
        except TimeoutError:
            # A stream that is shorter than its length says that it is not whole.
            if request.transport is not None:
                request.transport.abort()
        finally:
            request.app[OPEN].discard(mine)
    return response
