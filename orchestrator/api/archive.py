"""Archives of paths in tasks, both ways: bytes between who asked and the task's agent.

Each piece is passed on before the next one is taken, so a slow side slows the other instead of
filling our memory, whatever is copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.api.streams import OPEN
from orchestrator.api.tasks import find
from orchestrator.errors import Conflict, RequestError, Unavailable
from specs.kit.callers import BODY_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from orchestrator.api.routes import ApiParts
    from specs.inside import Copied

log = logging.getLogger(__name__)

STUCK = 600.0  # seconds a reader may take nothing: a pipe into a slow program


async def read(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    """Answer with what is at a path in a task, as an archive."""
    node, task = _where(parts, request)
    return await answer(request, parts.agents.read_archive(node, task, request.query), task)


async def answer(
    request: web.Request, source: AsyncGenerator[bytes, None], what: str
) -> web.StreamResponse:
    """Pass an archive on. Raises what the source raises before its first byte."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    mine = asyncio.current_task()
    assert mine is not None
    async with contextlib.aclosing(source) as pieces:
        first = await anext(pieces, b"")
        await response.prepare(request)
        request.app[OPEN].add(mine)
        try:
            async with asyncio.timeout(STUCK):
                await response.write(first)
            async for piece in pieces:
                async with asyncio.timeout(STUCK):
                    await response.write(piece)
            await response.write_eof()
        except (RequestError, OSError, TimeoutError) as error:
            # Nothing says "not whole" but a stream that is cut.
            log.info("an archive is not sent whole", extra={"of": what, "why": str(error)})
            if request.transport is not None:
                request.transport.abort()
        finally:
            request.app[OPEN].discard(mine)
    return response


async def write(parts: ApiParts, request: web.Request, _: None) -> Copied:
    """Put the archive that is sent where it belongs in a task."""
    node, task = _where(parts, request)
    return await parts.agents.write_archive(node, task, request.query, sent(request))


async def sent(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body's pieces. Raises Unavailable where it breaks off."""
    while True:
        try:
            async with asyncio.timeout(BODY_SECONDS * 10):
                piece = await request.content.readany()
        except (OSError, TimeoutError, web.RequestPayloadError) as error:
            raise Unavailable("the archive broke off before its end") from error
        if not piece:
            return
        yield piece


def _where(parts: ApiParts, request: web.Request) -> tuple[str, str]:
    task = find(parts, request)
    if task.node is None:
        raise Conflict(
            f"{task.name} is on no node yet ({task.state.value})",
            hint="corral ps says what it waits for",
        )
    return task.node, task.id
