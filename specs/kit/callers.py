"""Who is connected to a daemon's API: how many at most, and who has asked nothing yet.

aiohttp answers requests; before there is one a connection costs it memory and the process a file
descriptor, for as long as the other side likes. A process of the socket's group that opened
some thousand of them would keep everybody else out, and the daemon from its own files. So each
connection has seconds to send the head of its first request, and when there are too many the
oldest that has not done so makes room: whoever asks at once is served whatever others do.

Wraps the protocol of a server (``loop.create_server``); orchestrator.api.app and agent.daemon
do that with aiohttp's. ``read_body`` bounds what follows a head. Stdlib only.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

HEAD_SECONDS: Final = 20.0  # for the head of the first request
IDLE_SECONDS: Final = 75.0  # between requests; aiohttp counts these
BODY_SECONDS: Final = 30.0  # without a byte of a body that was announced
_TELL_EVERY: Final = 60.0
# Answers to a body that is still on its way: what comes behind it on that connection would wait
# until all of it has been thrown away, 10 seconds at most. So the connection ends with them.
UNREAD: Final = frozenset({408, 413, 415})
_END = b"\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BodyRefused(Exception):
    """A body that is not taken: the answer's status, its title, and what to do instead."""

    def __init__(self, status: int, title: str, hint: str = "") -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.hint = hint


class _Content(Protocol):
    async def readany(self) -> bytes: ...


class _Incoming(Protocol):
    """What is asked of an aiohttp request."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content_length(self) -> int | None: ...
    @property
    def content(self) -> _Content: ...


async def read_body(request: _Incoming, limit: int) -> bytes:
    """Return the whole body, of ``limit`` bytes at most.

    Raises BodyRefused: 415 for a packed one, 413 for one too large, by its announced length
    where there is one, 408 for one that stops coming.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        # Whatever unpacks to more than was announced; nothing that asks us packs its body.
        raise BodyRefused(415, "Packed bodies are not taken", "send the body as it is")
    if (request.content_length or 0) > limit:
        raise BodyRefused(413, "Too large")
    data = bytearray()
    try:
        while True:
            async with asyncio.timeout(BODY_SECONDS):
                chunk = await request.content.readany()
            if not chunk:
                return bytes(data)
            data += chunk
            if len(data) > limit:
                raise BodyRefused(413, "Too large")
    except TimeoutError:
        raise BodyRefused(408, "The request did not arrive whole", "ask again") from None


class Callers:
    """Makes the protocol of every connection; ``most`` may be there at once."""

    def __init__(
        self, factory: Callable[[], asyncio.Protocol], *, most: int, head: float = HEAD_SECONDS
    ) -> None:
        self._factory = factory
        self.most = most
        self.head = head
        self._here: set[_Caller] = set()
        self._silent: dict[_Caller, None] = {}  # oldest first
        self._told = float("-inf")

    def __call__(self) -> asyncio.Protocol:
        return _Caller(self, self._factory)

    def __len__(self) -> int:
        return len(self._here)

    def enter(self, caller: _Caller) -> bool:
        """Take note of a new connection; False when there is no room for it."""
        if len(self._here) >= self.most:
            self._tell()
            if not self._silent:
                return False
            next(iter(self._silent)).turn_away()
        self._here.add(caller)
        self._silent[caller] = None
        return True

    def asked(self, caller: _Caller) -> None:
        """Note that the head of a request is complete."""
        self._silent.pop(caller, None)

    def leave(self, caller: _Caller) -> None:
        """Forget a connection."""
        self._here.discard(caller)
        self._silent.pop(caller, None)

    def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told >= _TELL_EVERY:
            self._told = now
            log.warning(
                "too many connections to the API; the oldest that asked nothing are closed",
                extra={"most": self.most, "silent": len(self._silent)},
            )


class _Caller(asyncio.Protocol):
    """One connection, handed through to the server's own protocol."""

    def __init__(self, callers: Callers, factory: Callable[[], asyncio.Protocol]) -> None:
        self._callers = callers
        self._factory = factory
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tail: bytes | None = b""  # of what came; None once the head was complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._callers.enter(self):
            transport.write(_FULL)
            transport.close()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._callers.head, self.turn_away)
        self._inner = self._factory()
        self._inner.connection_made(transport)

    def turn_away(self) -> None:
        """Close the connection now: it has asked nothing."""
        self._callers.leave(self)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._tail is not None:
            seen = self._tail + data
            if _END in seen:
                self._tail = None
                self._callers.asked(self)
                self._stop_timer()
            else:
                self._tail = seen[-len(_END) + 1 :]
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._callers.leave(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)
            self._inner = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
