"""Backups over HTTP: one on request, as a stream of its file; and what the schedule says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.api.archive import STUCK
from orchestrator.api.streams import OPEN
from orchestrator.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.api.routes import ApiParts
    from orchestrator.backups.making import Backups
    from specs.api import BackupStatus, MakeBackup, ScheduleBackups

log = logging.getLogger(__name__)

PIECE = 256 * 1024


def _backups(parts: ApiParts) -> Backups:
    if parts.backups is None:
        raise Unavailable("this controller keeps its state in memory: there is nothing to back up")
    return parts.backups


async def status(parts: ApiParts, _request: web.Request, _: None) -> BackupStatus:
    return await _backups(parts).status()


async def schedule(parts: ApiParts, _request: web.Request, body: ScheduleBackups) -> BackupStatus:
    return await _backups(parts).arrange(body)


class _Cut(Exception):
    """It was not sent whole; a stream that is shorter than its length says so."""


async def make(parts: ApiParts, request: web.Request, body: MakeBackup) -> web.StreamResponse:
    """Answer with a backup of this moment; it is whole before its first byte is sent."""
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    with contextlib.suppress(_Cut):  # around it: what nobody got does not count as made
        async with _backups(parts).made(body) as (path, name):
            response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
            response.content_length = path.stat().st_size
            await response.prepare(request)
            await _send(request, response, path)
    return response


async def _send(request: web.Request, response: web.StreamResponse, path: Path) -> None:
    """Send a file. Raises _Cut."""
    mine = asyncio.current_task()
    assert mine is not None
    request.app[OPEN].add(mine)
    try:
        with path.open("rb") as file:
            while part := await asyncio.to_thread(file.read, PIECE):
                async with asyncio.timeout(STUCK):
                    await response.write(part)
        await response.write_eof()
    except OSError as error:  # who asked went, or takes nothing any more (TimeoutError)
        log.info("a backup is not sent whole", extra={"why": str(error)})
        if request.transport is not None:
            request.transport.abort()
        raise _Cut from error
    finally:
        request.app[OPEN].discard(mine)
