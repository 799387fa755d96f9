"""Bytes between a child process and who asked, as fast as both can, whichever is the slower.

What the other side does not take is not read, so that nothing piles up here. Silence ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from agent.errors import Later

if TYPE_CHECKING:
    from collections.abc import Callable, Container

PIECE = 256 * 1024
SILENCE = 300.0  # seconds without a byte of an archive, at either end and either way


async def end(child: asyncio.subprocess.Process) -> None:
    """End a child that has not ended by itself, and wait until it has."""
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    for pipe in (child.stdout, child.stderr):
        while pipe is not None and await pipe.read(PIECE):
            pass  # asyncio sees the end of a process whose output was taken
    await child.wait()


async def passed_on(
    child: asyncio.subprocess.Process,
    response: web.StreamResponse,
    fine: Container[int] = (0,),
) -> bool:
    """Give who asked what the child reads; False where that is not all: it broke off or hangs.

    ``fine``: the exit codes that say that all is there.
    """
    assert child.stdout is not None
    try:
        while True:
            async with asyncio.timeout(SILENCE):
                if not (piece := await child.stdout.read(PIECE)):
                    return await child.wait() in fine
                await response.write(piece)
    except TimeoutError:
        return False


def stuck() -> Later:
    return Later(f"what copies took nothing for {SILENCE:g} s")


async def feed(
    child: asyncio.subprocess.Process,
    request: web.Request,
    see: Callable[[bytes], None] = lambda _: None,
) -> None:
    """Give the child what is sent, until all is there or it takes no more. Raises Later.

    ``see`` is given each piece as well.
    """
    assert child.stdin is not None
    while piece := await _sent(request):
        see(piece)
        try:
            child.stdin.write(piece)
            async with asyncio.timeout(SILENCE):
                await child.stdin.drain()
        except TimeoutError:
            raise stuck() from None
        except (BrokenPipeError, ConnectionResetError):
            return  # it has said why
    child.stdin.close()


async def _sent(request: web.Request) -> bytes:
    """Return what came; empty at the end. An archive that breaks off has no end."""
    try:
        async with asyncio.timeout(SILENCE):
            return await request.content.readany()
    except TimeoutError:
        raise Later(f"nothing of the archive came for {SILENCE:g} s") from None
    except (OSError, web.RequestPayloadError):
        raise Later("the archive broke off") from None
