"""Who is connected to a daemon's API: how many at most, and who has asked nothing yet.

aiohttp answers requests; before there is one a connection costs it memory and the process a file
descriptor, for as long as the other side likes. A process of the socket's group that opened
some thousand of them would keep everybody else out, and the daemon from its own files. So each
connection has seconds to send the head of its first request, and when there are too many one that
keeps us waiting makes room: of those that never asked the oldest, else of those between two
requests, else of those whose body is still coming. Whoever asks at once is served whatever others
do; what is being answered is never broken off.

Wraps the protocol of a server (``loop.create_server``); orchestrator.api.app and agent.daemon
do that with aiohttp's, and say what becomes of a request (``answering``, ``read_body``).
``Encrypted`` does the same before a connection's keys are agreed on. Stdlib only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

HEAD_SECONDS: Final = 20.0  # for the head of the first request
IDLE_SECONDS: Final = 75.0  # between requests; aiohttp counts these
BODY_SECONDS: Final = 30.0  # without a byte of a body that was announced
BODY_RATE: Final = 1024  # bytes a second that a body has to come with after that time
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
    @property
    def protocol(self) -> object: ...


async def read_body(request: _Incoming, limit: int) -> bytes:
    """Return the whole body, of ``limit`` bytes at most.

    Raises BodyRefused: 415 for a packed one, 413 for one too large, by its announced length
    where there is one, 408 for one that stops coming, or comes in drops.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        # Whatever unpacks to more than was announced; nothing that asks us packs its body.
        raise BodyRefused(415, "Packed bodies are not taken", "send the body as it is")
    if (request.content_length or 0) > limit:
        raise BodyRefused(413, "Too large")
    data = bytearray()
    now = asyncio.get_running_loop().time
    begun = now()
    try:
        with _awaited(request.protocol):
            while True:
                left = begun + BODY_SECONDS + len(data) / BODY_RATE - now()
                async with asyncio.timeout(min(BODY_SECONDS, left)):
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
        self._here: set[_Connection] = set()
        self._silent: dict[_Connection, None] = {}  # those that never asked, oldest first
        self._idle: dict[_Connection, None] = {}  # those between two requests
        self._sending: dict[_Connection, None] = {}  # those whose body is still coming
        self._told = float("-inf")

    def __call__(self) -> asyncio.Protocol:
        return _Caller(self, self._factory)

    def __len__(self) -> int:
        return len(self._here)

    def enter(self, caller: _Connection) -> bool:
        """Take note of a new connection; False when there is no room for it."""
        if len(self._here) >= self.most:
            self._tell()
            waiting = self._silent or self._idle or self._sending
            if not waiting:
                return False
            next(iter(waiting)).turn_away()
        self._here.add(caller)
        self._silent[caller] = None
        return True

    def asked(self, caller: _Connection) -> None:
        """Note that a request is being answered."""
        for waiting in (self._silent, self._idle, self._sending):
            waiting.pop(caller, None)

    def idle(self, caller: _Connection) -> None:
        """Note that the request was answered."""
        if caller in self._here:
            self._idle[caller] = None

    def sending(self, caller: _Connection) -> None:
        """Note that the rest of a request is waited for."""
        if caller in self._here:
            self._sending[caller] = None

    def leave(self, caller: _Connection) -> None:
        """Forget a connection."""
        self._here.discard(caller)
        self.asked(caller)

    def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told >= _TELL_EVERY:
            self._told = now
            log.warning(
                "too many connections to the API; the oldest that keep us waiting are closed",
                extra={
                    "most": self.most,
                    "silent": len(self._silent),
                    "idle": len(self._idle),
                    "sending": len(self._sending),
                },
            )


class _Connection(Protocol):
    def turn_away(self) -> None: ...


class _Caller(asyncio.Protocol):
    """One connection, handed through to the server's own protocol."""

    def __init__(self, callers: Callers, factory: Callable[[], asyncio.Protocol]) -> None:
        self._callers = callers
        self._factory = factory
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tail: bytes | None = b""  # of what came; None once the head was complete
        self._early = b""  # came together with the end of agreeing on keys

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
        _CALLERS[self._inner] = self
        self._inner.connection_made(transport)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def turn_away(self) -> None:
        """Close the connection now: it has asked nothing."""
        self._callers.leave(self)
        if self._transport is not None:
            self._transport.abort()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Be one whom we keep waiting, for the length of a request."""
        self._callers.asked(self)
        try:
            yield
        finally:
            self._callers.idle(self)

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Be one who keeps us waiting, for the length of a body."""
        self._callers.sending(self)
        try:
            yield
        finally:
            self._callers.asked(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            self._early += data
            return
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
            _CALLERS.pop(self._inner, None)
            self._inner.connection_lost(exc)
            self._inner = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_CALLERS: dict[object, _Caller] = {}  # by their server's protocol, while they are connected


def answering(protocol: object) -> contextlib.AbstractContextManager[None]:
    """Return what notes that a request of this connection is answered; its protocol is asked by."""
    caller = _CALLERS.get(protocol)
    return caller.answering() if caller is not None else contextlib.nullcontext()


def _awaited(protocol: object) -> contextlib.AbstractContextManager[None]:
    caller = _CALLERS.get(protocol)
    return caller.awaited() if caller is not None else contextlib.nullcontext()


class Encrypted(asyncio.Protocol):
    """A connection whose keys are not agreed on yet: one that never asked, and not for long.

    Made for every connection of a server without TLS of its own; ``callers`` is told of it, and
    makes what speaks behind the keys.
    """

    def __init__(self, callers: Callers, context: ssl.SSLContext) -> None:
        self._callers = callers
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._agreeing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._callers.enter(self):
            transport.abort()
            return
        transport.pause_reading()  # what comes is for the keys
        self._agreeing = asyncio.get_running_loop().create_task(self._agree(transport), name="tls")

    def turn_away(self) -> None:
        """Close the connection now."""
        self._callers.leave(self)
        if self._agreeing is not None:
            self._agreeing.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._callers.leave(self)

    async def _agree(self, transport: asyncio.Transport) -> None:
        caller = self._callers()
        try:
            sealed = await asyncio.get_running_loop().start_tls(
                transport,
                caller,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._callers.head,
            )
        except OSError:  # ssl.SSLError, ConnectionError and TimeoutError are all of that kind
            self._callers.leave(self)
            transport.abort()
            return
        self._callers.leave(self)
        if sealed is not None:
            caller.connection_made(sealed)
