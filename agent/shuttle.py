"""What is said on the WebSocket of an exec (``specs/wire.py``): bytes both ways, until the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import WSMessage, WSMsgType, web

from agent.runtime.failure import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.runtime import exec as execution

PING = 60.0  # seconds without a word from the client


class Shuttle:
    """Carries bytes between the client and the command until the command ends."""

    def __init__(self, websocket: web.WebSocketResponse, session: execution.ExecSession) -> None:
        self._websocket = websocket
        self._session = session
        self._readers: dict[int, asyncio.Task[None]] = {}  # by channel

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for fd, channel in self._session.readers.items():
                self._readers[channel] = group.create_task(self._outward(fd, channel))
            waiter = group.create_task(self._finish())
            reader = group.create_task(self._inward())
            await asyncio.wait({waiter, reader}, return_when=asyncio.FIRST_COMPLETED)
            if waiter.done() and self._readers:
                # What was printed last is still in the pipes; they end by themselves, once the
                # client has taken it or has gone.
                await asyncio.wait(self._readers.values())
            # The client left before the end: closing its terminal or stdin tells the command.
            for one in (*self._readers.values(), waiter, reader):
                one.cancel()
        if not waiter.cancelled():
            with contextlib.suppress(ConnectionError):
                await self._websocket.send_json(waiter.result())

    async def _outward(self, fd: int, channel: int) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._session.read(fd):
                await self._websocket.send_bytes(bytes((channel,)) + data)

    async def _inward(self) -> None:
        async for message in messages(self._websocket):
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
                await self._session.write(message.data[1:])
            elif message.type is WSMsgType.TEXT:
                channel = _control(self._session, message.data)
                if channel is not None and (deaf := self._readers.get(channel)):
                    deaf.cancel()
                    await asyncio.wait({deaf})
                    self._session.drop(channel)

    async def _finish(self) -> dict[str, object]:
        try:
            return {"exit": await self._session.wait()}
        except RuntimeFailure as failure:
            return {"error": str(failure), "exit": failure.code or 126}


async def messages(websocket: web.WebSocketResponse) -> AsyncIterator[WSMessage]:
    """Yield what the client sends until it goes.

    A ping now and then, whose answer nobody counts, makes the connection to a machine that is
    gone break in the end.
    """
    while True:
        try:
            message = await websocket.receive(timeout=PING)
        except TimeoutError:
            with contextlib.suppress(ConnectionError):
                await websocket.ping()
            continue
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            return
        yield message


def _control(session: execution.ExecSession, text: str) -> int | None:
    """Do what a control message asks for; return the channel nobody reads any more."""
    try:
        message = json.loads(text)
        if "resize" in message:
            rows, columns = message["resize"]
            session.resize(int(rows), int(columns))
        elif "signal" in message:
            session.signal(int(message["signal"]))
        elif "close" in message:
            return int(message["close"])
    except (ValueError, TypeError, KeyError):
        pass  # a malformed control message is ignored, as an unknown one is
    return None
