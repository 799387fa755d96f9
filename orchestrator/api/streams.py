"""NDJSON answers: one model a line, with a pulse, for readers of any speed.

A line is written only when the reader took the one before (aiohttp's drain), so a
slow reader costs one buffer. An empty line every PULSE seconds shows both sides
that the other is there; a reader that takes nothing for STUCK seconds is cut off,
so that no source is held up for ever by someone who went away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from orchestrator.api import problems
from orchestrator.errors import RequestError
from orchestrator.store.base import StoreError
from specs.api import Progress, StackLogLine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from specs.base import Model

log = logging.getLogger(__name__)
T = TypeVar("T")
OPEN: web.AppKey[set[asyncio.Task[object]]] = web.AppKey("open_streams")

PULSE = 10.0
STUCK = 60.0
HALF_WAY = "what was done before it stays; the same command goes on from there"
FIRST = 0.25  # seconds an error has to become a proper answer instead of a broken stream


async def respond(
    request: web.Request,
    source: AsyncIterator[Model] | AsyncIterator[list[StackLogLine]],
    *,
    detached: bool = False,
    patient: bool = False,
    first: float = FIRST,
) -> web.StreamResponse:
    """Send what ``source`` yields, single or in batches, until it ends or the reader goes.

    ``detached``: the source is work that goes on when nobody reads any more.
    ``first``: how long an error may take and still be a problem answer, not a broken stream.
    ``patient``: a reader that pauses (logs in a pager) is waited for without limit.
    """
    lines = _Lines(request, stuck=None if patient else STUCK)
    reading = _next(source)
    task = asyncio.current_task()
    assert task is not None
    request.app[OPEN].add(task)
    try:
        await asyncio.wait({reading}, timeout=first)
        if reading.done():
            reading.result()  # an error at once is an answer of its own
        await lines.open()
        while lines.connected or detached:
            done, _ = await asyncio.wait({reading}, timeout=PULSE)
            if not done:
                await lines.pulse()
                continue
            found = reading.result()
            if found is None:
                break
            await lines.send(*(found if isinstance(found, list) else (found,)))
            reading = _next(source)
    except (RequestError, StoreError) as exc:
        if not lines.opened:
            raise
        # The words still reach the reader, as the end of what it was watching.
        hint = exc.hint if isinstance(exc, RequestError) else HALF_WAY
        why = problems.describe(exc).detail
        await lines.send(Progress(kind="end", ok=False, message=why, hint=hint))
    except Exception:
        if not lines.opened:
            raise
        # No second answer on this connection; a stream that breaks off is not taken for whole.
        log.exception("stream failed", extra={"path": request.path})
        lines.abort()
    finally:
        request.app[OPEN].discard(task)
        reading.cancel()
        await asyncio.wait({reading})
        if (leave := getattr(source, "aclose", None)) is not None:
            await leave()
    return await lines.close()


async def break_off(app: web.Application) -> None:
    """Cut all streams at shutdown: their readers see it and come back to the next controller."""
    streams = app[OPEN]
    for task in list(streams):
        task.cancel()


def _next(source: AsyncIterator[T]) -> asyncio.Task[T | None]:
    async def step() -> T | None:
        return await anext(source, None)

    return asyncio.create_task(step(), name="stream-next")


class _Lines:
    """The response; after the reader has gone, sending does nothing."""

    def __init__(self, request: web.Request, *, stuck: float | None) -> None:
        self._request = request
        self._stuck = stuck
        self._response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        self.opened = False
        self.connected = True

    async def open(self) -> None:
        await self._response.prepare(self._request)
        self.opened = True

    async def send(self, *models: Model) -> None:
        await self._write(b"".join(m.model_dump_json().encode() + b"\n" for m in models))

    async def pulse(self) -> None:
        await self._write(b"\n")

    async def _write(self, data: bytes) -> None:
        if not self.connected:
            return
        try:
            async with asyncio.timeout(self._stuck):
                await self._response.write(data)
        except (ConnectionError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        self.connected = False
        if self._request.transport is not None:
            self._request.transport.abort()

    async def close(self) -> web.StreamResponse:
        if self.connected:
            with contextlib.suppress(ConnectionError):
                await self._response.write_eof()
        return self._response
