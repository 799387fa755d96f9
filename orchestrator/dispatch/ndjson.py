"""Newline-delimited JSON streams: cut into lines, however the bytes arrive.

Used for the agents' streams (dispatch/agent.py). A line has a ceiling, so a broken or hostile
peer cannot make us keep an endless one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


MAX_LINE = 64 * 1024 * 1024


class LineTooLong(Exception):
    """The peer sent more than MAX_LINE bytes without a newline."""


class ByteStream(Protocol):
    """What is read: aiohttp's, or dispatch/line.py's."""

    async def readany(self) -> bytes:
        """Return what came next, b"" at the end."""

    def set_exception(self, exc: Exception) -> None:
        """Have whoever reads get that error."""


async def lines(
    stream: ByteStream, *, silence: float | None = None, limit: int = MAX_LINE
) -> AsyncGenerator[bytes, None]:
    """Yield each line without its newline; TimeoutError when none comes for ``silence`` seconds."""
    rest = bytearray()
    reading = _Reading(stream, silence)
    try:
        while chunk := await reading.some():
            start = 0
            while (end := chunk.find(b"\n", start)) >= 0:
                line = bytes(rest) + chunk[start:end] if rest else chunk[start:end]
                rest.clear()
                start = end + 1
                if line:
                    yield line
            rest += chunk[start:]
            if len(rest) > limit:
                raise LineTooLong
        if rest:
            yield bytes(rest)
    finally:
        reading.end()


class _Reading:
    """Reads what comes; gives up once nothing does for too long.

    One timer in that time, not one a line: a thousand agents say something every three seconds.
    """

    def __init__(self, stream: ByteStream, silence: float | None) -> None:
        self._stream = stream
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None  # waiting since; None: it is not waited for anything

    async def some(self) -> bytes:
        """Return what came next, b"" at the end. Raises TimeoutError."""
        self._since = self._loop.time()
        if self._silence is not None and self._timer is None:
            self._timer = self._loop.call_later(self._silence, self._look)
        try:
            return await self._stream.readany()
        finally:
            self._since = None

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """See whether it was waited for too long; else look again when it would have been."""
        assert self._silence is not None
        self._timer = None
        if self._since is None:
            return  # the next read sets it anew
        left = self._since + self._silence - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._stream.set_exception(TimeoutError())
