"""Newline-delimited JSON streams: cut into lines, however the bytes arrive.

Used for the agents' streams (dispatch/agent.py). A line has a ceiling, so a broken or hostile
peer cannot make us keep an endless one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import aiohttp

MAX_LINE = 64 * 1024 * 1024


class LineTooLong(Exception):
    """The peer sent more than MAX_LINE bytes without a newline."""


async def lines(
    stream: aiohttp.StreamReader, *, silence: float | None = None, limit: int = MAX_LINE
) -> AsyncGenerator[bytes, None]:
    """Yield each line without its newline; TimeoutError when none comes for ``silence`` seconds."""
    rest = bytearray()
    while True:
        async with asyncio.timeout(silence):
            chunk = await stream.readany()
        if not chunk:
            if rest:
                yield bytes(rest)
            return
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
