"""A WebSocket of a client and one of an agent, joined: what one says, the other hears."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

SHORT = 10.0  # seconds the agent has to say how it ended


async def join(client: WebSocketResponse, agent: aiohttp.ClientWebSocketResponse) -> None:
    """Pump both directions until the agent has said all, or the client has left.

    Each ``send`` waits for its peer to take the bytes, so a slow side slows the other
    instead of filling our memory. Input that the agent takes no more, because the command
    has ended, is no failure: the exit code is on its way in the other direction.
    """
    up = asyncio.create_task(_pump(client, agent), name="exec-up")
    down = asyncio.create_task(_pump(agent, client), name="exec-down")
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if up.done() and isinstance(up.exception(), ConnectionError):
            await asyncio.wait({down}, timeout=SHORT)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.wait({up, down})
    for task in (up, down):
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, ConnectionError):
            raise error


async def _pump(
    source: WebSocketResponse | aiohttp.ClientWebSocketResponse,
    sink: WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
