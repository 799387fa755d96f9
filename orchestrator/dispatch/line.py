"""One HTTP/1.1 connection to an agent, for what a thousand of them say all the time.

What an agent hears and sees is what aiohttp's client would have said: a request, one at a time,
its answer with a length, in chunks or until the end. That client costs 0.4 ms and 20 KiB for it,
which a thousand nodes with a heartbeat each make half of an idle controller's time. Everything else
(logs, exec, archives) goes through it: see dispatch/agent.py. Nothing a peer sends is believed:
what is no HTTP, or is too large, ends the connection with words.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import aiohttp
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEAD = 64 * 1024  # bytes of an answer's head, and of a chunk's
HIGH = 1024 * 1024  # bytes that wait to be read, from which on the peer is not read any more
_ENDS_HEAD = b"\r\n\r\n"


class NoHttp(aiohttp.ClientError):
    """The peer answers something else."""

    def __init__(self) -> None:
        super().__init__("what it answers is no HTTP")


class AnswerHead:
    """An answer's status and header fields, their names in small letters."""

    __slots__ = ("fields", "status")

    def __init__(self, status: int, fields: Mapping[bytes, bytes]) -> None:
        self.status = status
        self.fields = fields

    @property
    def chunked(self) -> bool:
        return b"chunked" in self.fields.get(b"transfer-encoding", b"").lower()

    @property
    def length(self) -> int | None:
        """Return how many bytes follow; None = until the connection ends. Raises NoHttp."""
        if self.status in (204, 304):
            return 0
        found = self.fields.get(b"content-length")
        if found is None:
            return None
        if not found.isdigit():
            raise NoHttp
        return int(found)

    @property
    def closes(self) -> bool:
        return b"close" in self.fields.get(b"connection", b"").lower()


class AgentLine(asyncio.Protocol):
    """A connection: :meth:`ask`, then read the :class:`Body` to its end, and ask again."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._paused = False
        self._error: Exception | None = None
        self.heard = False  # something came since it was asked last
        self.spent = False  # nothing can be asked any more

    @property
    def usable(self) -> bool:
        """Whether it may be asked once more, as far as we know."""
        return not (self._ended or self.spent or self._buffer)

    async def ask(self, request: bytes) -> AnswerHead:
        """Send a request, whole; return the head of its answer. Raises aiohttp.ClientError."""
        self.heard, self.spent = False, True
        if self._transport is None or self._ended:
            self._lost()
        self._transport.write(request)
        while True:
            head = await self._head()
            if head.status >= 200:
                return head

    def close(self) -> None:
        """End the connection now; who waits for it hears of it."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()
        self._wake()

    def fail(self, error: Exception) -> None:
        """Have whoever waits, and everybody from now on, get that error."""
        self._error = error
        self.close()

    # asyncio's side

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.heard = True
        self._buffer += data
        if len(self._buffer) > HIGH and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    @override
    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._wake()

    # reading

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _lost(self) -> NoReturn:
        raise self._error or aiohttp.ServerDisconnectedError

    async def _more(self) -> None:
        """Wait until something came. Raises what ended it, once all that came is read."""
        if self._error is not None or self._ended:
            self._lost()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        assert self._waiter is None, "law: one reader at a time"
        before = len(self._buffer)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if len(self._buffer) == before:
            self._lost()

    async def until(self, mark: bytes, limit: int = MAX_HEAD) -> bytes:
        """Return what comes before a mark, and take both. Raises NoHttp beyond the limit."""
        looked = 0
        while (end := self._buffer.find(mark, looked)) < 0:
            if len(self._buffer) >= limit + len(mark):
                raise NoHttp
            looked = max(0, len(self._buffer) - len(mark) + 1)
            await self._more()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    async def some(self, most: int) -> bytes:
        """Return what there is, at most so many bytes; waits for the first."""
        if not self._buffer:
            await self._more()
        if len(self._buffer) <= most:
            found = bytes(self._buffer)
            self._buffer.clear()
        else:
            found = bytes(self._buffer[:most])
            del self._buffer[:most]
        return found

    async def _head(self) -> AnswerHead:
        first, *lines = (await self.until(_ENDS_HEAD)).split(b"\r\n")
        version, _, rest = first.partition(b" ")
        status = rest[:3]
        if not version.startswith(b"HTTP/1.") or not (len(status) == 3 and status.isdigit()):
            raise NoHttp
        fields = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise NoHttp
            fields[name.strip().lower()] = value.strip()
        return AnswerHead(int(status), fields)


class Body:
    """What follows a head, piece by piece."""

    def __init__(self, line: AgentLine, head: AnswerHead) -> None:
        self._line = line
        self._chunked = head.chunked
        self._closes = head.closes
        # Bytes that are left, of this chunk or of all; None: whatever comes until the end.
        self._left: int | None = 0 if self._chunked else head.length
        self._first = True

    def set_exception(self, error: Exception) -> None:
        """Have whoever reads get that error."""
        self._line.fail(error)

    async def readany(self) -> bytes:
        """Return what came next, b"" at the end. Raises aiohttp.ClientError."""
        if self._left is None:
            try:
                return await self._line.some(HIGH)
            except aiohttp.ServerDisconnectedError:
                return b""
        if self._chunked and not self._left:
            self._left = await self._chunk()
            if not self._left:
                return self._over()
        if not self._left:
            return self._over()
        piece = await self._line.some(self._left)
        self._left -= len(piece)
        return piece

    async def read(self, most: int) -> bytes:
        """Return all of it; of what is longer only the beginning, and the connection ends."""
        found = bytearray()
        while len(found) < most and (piece := await self.readany()):
            found += piece
        if len(found) >= most:
            self._line.close()
        return bytes(found[:most])

    async def _chunk(self) -> int:
        """Return how long the next chunk is; 0 at the end."""
        if not self._first and await self._line.until(b"\r\n", 0):
            raise NoHttp
        self._first = False
        size = (await self._line.until(b"\r\n")).partition(b";")[0].strip()
        try:
            length = int(size, 16)
        except ValueError:
            raise NoHttp from None
        if length < 0:
            raise NoHttp
        while not length and await self._line.until(b"\r\n"):
            pass  # trailers
        return length

    def _over(self) -> bytes:
        if self._closes:
            self._line.close()
        else:
            self._line.spent = False
        self._chunked, self._left = False, 0
        return b""


def request(method: str, target: str, fields: Mapping[str, str], data: bytes | None) -> bytes:
    """Return a request's bytes. ``target`` is quoted already."""
    lines = [f"{method} {target} HTTP/1.1", "Host: agent"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if data is not None:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join((*lines, "", "")).encode() + (data or b"")
