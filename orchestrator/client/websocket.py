"""A minimal WebSocket client (RFC 6455) on the client's connection, for `corral exec`.

Text and binary messages, fragments, ping and close; no extensions. The caller waits
with select, calls ``receive`` when there is something to read and ``push`` when there
is something unsent and room for it. Why it is ours: docs/adr/0011.
"""

from __future__ import annotations

import binascii
import os
import socket
import time

from orchestrator.client.digests import sha1
from orchestrator.client.errors import BadAnswer, NoAnswer
from orchestrator.client.http import Response, target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from orchestrator.client.client import Client
    from orchestrator.client.http import Connection

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MAX_MESSAGE = 16 * 1024 * 1024


def masked(data: bytes, key: bytes) -> bytes:
    """Return ``data`` xor the repeated 4-byte key."""
    if not data:
        return b""
    pad = (key * (len(data) // 4 + 1))[: len(data)]
    # One big-integer operation instead of a loop over bytes.
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")
    return mixed.to_bytes(len(data), "little")


def frame(kind: int, data: bytes, key: bytes) -> bytes:
    """Return one final client frame."""
    size = len(data)
    if size < 126:
        head = bytes([0x80 | kind, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | kind, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | kind, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + key + masked(data, key)


def take_frame(buffer: bytearray) -> tuple[bool, int, bytes] | None:
    """Remove one whole server frame: (final, opcode, payload); None = not all there yet."""
    if len(buffer) < 2:
        return None
    final, kind = bool(buffer[0] & 0x80), buffer[0] & 0x0F
    size, at = buffer[1] & 0x7F, 2
    if buffer[1] & 0x80 or buffer[0] & 0x70:
        raise BadAnswer("the controller broke the WebSocket protocol")
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(buffer) < at + width:
            return None
        size = int.from_bytes(buffer[at : at + width], "big")
        at += width
    if size > MAX_MESSAGE:
        raise BadAnswer("the controller sent a WebSocket message that is too long")
    if len(buffer) < at + size:
        return None
    data = bytes(buffer[at : at + size])
    del buffer[: at + size]
    return final, kind, data


class WebSocket:
    """An open WebSocket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parts: list[bytes] = []
        self._kind = 0
        self.closed = False
        self.unsent = bytearray()
        self._fresh = bool(connection.buffer)
        connection.deadline = None
        connection.idle = None
        # STRICTLY no time-out: with one, Python waits in send() although we said not to, and a
        # message given up half way would leave the stream without frame borders.
        connection.sock.settimeout(None)

    def fileno(self) -> int:
        return self._connection.sock.fileno()

    def send(self, data: bytes | str) -> None:
        """Queue one message: text for str, binary for bytes; ``push`` sends."""
        kind, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        self._send(kind, payload)

    def _send(self, kind: int, payload: bytes) -> None:
        self.unsent += frame(kind, payload, os.urandom(4))

    def push(self) -> None:
        """Send what the socket takes without waiting.

        Waiting here could wait for ever: the peer may itself wait for us to read.
        """
        try:
            while self.unsent:
                taken = self._connection.sock.send(self.unsent[:65536], socket.MSG_DONTWAIT)
                del self.unsent[:taken]
        except BlockingIOError:
            return
        except OSError:
            # The peer has closed; what it said before, an exit code perhaps, is still to be read.
            self.unsent.clear()

    def receive(self) -> Iterator[bytes | str]:
        """Read once and yield the messages that are complete; sets ``closed`` at the end."""
        if self._fresh:
            self._fresh = False  # what came with the handshake's answer is parsed first
        else:
            try:
                self.closed = not self._connection.fill()
            except NoAnswer:  # reset by the peer: the same as closed, for who waits here
                self.closed = True
        while (taken := take_frame(self._connection.buffer)) is not None:
            final, kind, data = taken
            if kind == PING:
                self._send(PONG, data)
            elif kind == CLOSE:
                self.closed = True
                return
            elif kind in (0, TEXT, BINARY):
                self._kind = kind or self._kind
                self._parts.append(data)
                if final:
                    whole = b"".join(self._parts)
                    self._parts.clear()
                    yield whole.decode(errors="replace") if self._kind == TEXT else whole

    @property
    def pending(self) -> bool:
        """Whether bytes came with the handshake's answer, of which select would not tell."""
        return self._fresh

    def close(self) -> None:
        """Say goodbye and close."""
        self._send(CLOSE, (1000).to_bytes(2, "big"))
        self.push()
        self._connection.close()


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def open_websocket(
    client: Client, path: str, query: Mapping[str, Any] | None = None, timeout: float = 15.0
) -> WebSocket:
    """Open a WebSocket to the controller. Raises ClientError."""
    connection = client.connect()
    try:
        connection.deadline = time.monotonic() + timeout
        key = _base64(os.urandom(16))
        head = (
            f"GET {target(path, query)} HTTP/1.1",
            "Host: corral",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        connection.send("\r\n".join(head).encode() + b"\r\n\r\n")
        answer = Response(connection)
        answer.raise_for_status()
        accept = _base64(sha1(f"{key}{_GUID}".encode()))
        if answer.status != 101 or answer.headers.get("sec-websocket-accept") != accept:
            raise BadAnswer("the controller did not open a WebSocket")  # noqa: TRY301 - closes below
    except BaseException:
        connection.close()
        raise
    return WebSocket(connection)
