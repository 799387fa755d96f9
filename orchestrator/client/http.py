"""HTTP/1.1 by hand over one socket: requests out, answers and streams of lines in.

http.client and email cost more start-up time than everything else `corral ps` does
together. orchestrator.client.client makes the calls; the WebSocket of `exec` begins on
the same connection.
"""

from __future__ import annotations

import json
import socket
import time

from orchestrator.client.errors import BY_STATUS, ApiRefusal, BadAnswer, NoAnswer, NoController

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

MAX_HEAD = 64 * 1024
MAX_LINE = 16 * 1024 * 1024

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


def quote(text: str) -> str:
    """Return ``text`` percent-encoded for one path segment or query value."""
    return "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in text.encode())


def target(path: str, query: Mapping[str, Any] | None = None) -> str:
    """Return the request target; None leaves a query value out, bools become 0 and 1."""
    pairs: list[str] = []
    for key, value in (query or {}).items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                shown = str(int(item)) if isinstance(item, bool) else str(item)
                pairs.append(f"{quote(key)}={quote(shown)}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


class Connection:
    """One socket with a read buffer; reads honour a deadline or an idle limit."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.deadline: float | None = None  # monotonic; of everything until it is moved
        self.patience = 0.0  # seconds that were given for the deadline
        self.idle: float | None = None  # seconds between two reads, when there is no deadline
        self.nobody: tuple[str, str] | None = None  # forwarded: what it means when it just closes
        self.ends: float | None = None  # monotonic; no read goes on beyond it, pulses or not

    def wait(self, seconds: float) -> None:
        """Have everything be done in so many seconds from now."""
        self.deadline, self.patience = time.monotonic() + seconds, seconds

    def _late(self) -> NoAnswer:
        span = f" ({self.patience:g} s)" if self.patience and self.deadline is not None else ""
        return NoAnswer(
            f"the controller did not answer in time{span}",
            hint="it is stopped, hangs, or has very much to do: corral controller status",
        )

    def fill(self) -> bool:
        """Read once into the buffer; False at the end of the stream."""
        ends = self.ends if self.deadline is None else self.deadline
        left = None if ends is None else ends - time.monotonic()
        if left is not None and left <= 0:
            raise self._late()
        limits = (left, self.idle if self.deadline is None else None)
        self.sock.settimeout(min((limit for limit in limits if limit is not None), default=None))
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise self._late() from None
        except OSError as exc:
            raise self.broken(exc) from exc
        if data:
            self.nobody = None
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes, limit: int) -> bytes | None:
        """Return the bytes before ``mark`` and drop both; None at the end of the stream."""
        start = 0
        while (at := self.buffer.find(mark, start)) < 0:
            if len(self.buffer) > limit:
                raise BadAnswer("the controller's answer has no end of line")
            start = max(0, len(self.buffer) - len(mark))
            if not self.fill():
                return None
        found = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return found

    def exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        while len(self.buffer) < size:
            if not self.fill():
                raise NoAnswer("the controller's answer broke off")
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def send(self, data: bytes) -> None:
        """Send all of ``data`` before the deadline."""
        left = None if self.deadline is None else max(0.001, self.deadline - time.monotonic())
        self.sock.settimeout(left)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise NoAnswer("the controller did not take the request in time") from None
        except OSError as exc:
            raise self.broken(exc) from exc

    def broken(self, exc: OSError) -> NoAnswer:
        """Return what an error of the socket means to a person."""
        if self.nobody:
            return NoController(*self.nobody)
        return NoAnswer(f"the connection to the controller broke: {exc.strerror}")

    def close(self) -> None:
        self.sock.close()


class Response:
    """Status, headers and, on demand, the body of one response."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        head = connection.until(b"\r\n\r\n", MAX_HEAD)
        if head is None and connection.nobody:
            raise NoController(*connection.nobody)
        if head is None:
            raise NoAnswer("the controller closed the connection without an answer")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise BadAnswer("what listens there does not speak HTTP")
        self.status = int(rest[:3])
        self.headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's parts as they arrive."""
        if self.status in (204, 304):
            return
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            yield from self._chunked()
        elif "content-length" in self.headers:
            left = self._number(self.headers["content-length"], 10)
            while left > 0:
                part = self.connection.exactly(min(left, 65536))
                left -= len(part)
                yield part
        else:
            while self.connection.buffer or self.connection.fill():
                part = bytes(self.connection.buffer)
                self.connection.buffer.clear()
                yield part

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = self.connection.until(b"\r\n", MAX_HEAD)
            if size is None:
                raise NoAnswer("the controller's answer broke off")
            length = self._number(size.decode("latin-1").partition(";")[0], 16)
            if length == 0:
                return
            yield self.connection.exactly(length)
            self.connection.exactly(2)

    @staticmethod
    def _number(text: str, base: int) -> int:
        try:
            return int(text.strip(), base)
        except ValueError:
            raise BadAnswer("the controller's answer has a broken length") from None

    def json(self) -> Any:
        """Return the whole body as JSON; an empty one is None."""
        return _parsed(b"".join(self.chunks()))

    def raise_for_status(self) -> None:
        """Raise the problem the answer carries, if it carries one."""
        if self.status < 400:
            return
        try:
            problem = self.json()
        except BadAnswer:
            problem = None
        known = BY_STATUS.get(self.status, ApiRefusal)
        raise known(problem if isinstance(problem, dict) else {}, self.status)


def _parsed(data: bytes) -> Any:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError:
        raise BadAnswer(
            "the controller's answer is not JSON",
            hint="is it a corral controller of this version? corral version",
        ) from None


class Download:
    """An answer of bytes: ``more`` returns the next ones, empty at its end."""

    def __init__(self, connection: Connection, answer: Response) -> None:
        self._connection = connection
        self._chunks = answer.chunks()
        self.headers = answer.headers

    def more(self) -> bytes:
        """Return what came next. Raises NoAnswer where the answer is cut."""
        return next(self._chunks, b"")

    def close(self) -> None:
        self._connection.close()


class Stream:
    """An NDJSON answer: iterate over its objects; ``close`` from any thread ends it."""

    def __init__(self, connection: Connection, answer: Response) -> None:
        self._connection = connection
        self._answer = answer
        self._closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest = b""
        try:
            for part in self._answer.chunks():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _parsed(line)
                if len(rest) > MAX_LINE:
                    raise BadAnswer("the controller sent a line without end")
            if rest.strip():
                yield _parsed(rest)
        except NoAnswer:
            if not self._closed:
                raise
        finally:
            self._connection.close()

    def close(self) -> None:
        """End the stream; a blocked reader wakes up and finishes quietly."""
        self._closed = True
        try:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._connection.close()
