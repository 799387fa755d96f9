"""Connections to an agent beside aiohttp's, over the same transport: dispatch/line.py's.

One is kept for the next question; a stream has one of its own. Errors are the connections' own
(aiohttp.ClientError, OSError); dispatch/agent.py puts them into words.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol, cast

import aiohttp

from orchestrator.dispatch.line import AgentLine, Body, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

MAX_ANSWER = 16 * 1024 * 1024  # bytes of what an agent says of itself: its facts, its stacks


def ended() -> ConnectionError:
    """Return what is said of connections whose session is over."""
    return ConnectionError("the connection to it has just ended")


class _Unheard(Exception):
    """A kept connection ended without a word of the answer."""


class Opens(Protocol):
    """What a transport's connector does besides serving aiohttp, where it is no unix socket's."""

    async def open_stream(self, protocol: asyncio.Protocol) -> None:
        """Have the protocol speak with the agent. Raises OSError."""


class Direct:
    """``http`` is a session whose connector leads to the agent."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http  # of which only the connector is used, and whether it is closed
        self._line: AgentLine | None = None  # kept for the next question, while nobody asks
        self._open: set[AgentLine] = set()

    async def exchange(
        self, method: str, path: str, fields: Mapping[str, str], data: bytes | None
    ) -> tuple[int, bytes]:
        """Ask on the connection that is kept; return the status and all of the answer.

        What may be asked twice only: the agent ends a connection that was idle, perhaps at the
        very moment at which it is asked.
        """
        asked = request(method, path, fields, data)
        line, self._line = self._line, None
        if line is not None and line.usable:
            with contextlib.suppress(_Unheard):
                return await self._on(line, asked, again=True)
        elif line is not None:
            self._end(line)
        return await self._on(await self._dial(), asked)

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, path: str, fields: Mapping[str, str]
    ) -> AsyncIterator[tuple[int, Body]]:
        """Ask on a connection of its own; give the status and the answer, to be read meanwhile."""
        line = await self._dial()
        try:
            head = await line.ask(request(method, path, fields, None))
            yield head.status, Body(line, head)
        finally:
            self._end(line)

    def close(self) -> None:
        """End every connection; who reads from one hears of it."""
        self._line = None
        for line in list(self._open):
            self._end(line)

    def _end(self, line: AgentLine) -> None:
        self._open.discard(line)
        line.close()

    async def _on(self, line: AgentLine, asked: bytes, *, again: bool = False) -> tuple[int, bytes]:
        try:
            head = await line.ask(asked)
            data = await Body(line, head).read(MAX_ANSWER)
        except aiohttp.ServerDisconnectedError as exc:
            self._end(line)
            if again and not line.heard:
                raise _Unheard from exc
            raise
        except BaseException:
            self._end(line)
            raise
        if line.usable and self._line is None and not self._http.closed:
            self._line = line
        else:
            self._end(line)
        return head.status, data

    async def _dial(self) -> AgentLine:
        """Return a new connection to the agent."""
        connector = self._http.connector
        if self._http.closed or connector is None or connector.closed:
            raise ended()
        line = AgentLine()
        if isinstance(connector, aiohttp.UnixConnector):
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: line, connector.path)
        else:
            await cast("Opens", connector).open_stream(line)
        if self._http.closed:
            line.close()
            raise ended()
        self._open.add(line)
        return line
