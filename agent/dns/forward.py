"""Ask the node's own name servers on behalf of a container, and match the answers.

Every question goes out from a socket of its own with a random id: the kernel
picks the port, so a forged answer must guess both. A server that is silent is
followed by the next; a truncated answer for a TCP client is asked again by TCP.
Driven by agent.dns.server's loop; never blocks.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.dns import message

if TYPE_CHECKING:
    from collections.abc import Callable

IN_FLIGHT = 1024  # questions of the whole node that wait for a server
IN_FLIGHT_PER_TASK = 100
TRY = 1.5  # seconds one server gets
TOTAL = 4.0  # seconds until SERVFAIL
_MAX_REPLY = 65535


@dataclass(slots=True)
class Forwarded:
    """One question under way."""

    task: str
    query: message.Query
    data: bytes  # the client's message as it came
    reply: Callable[[bytes], None]
    over_tcp: bool  # the client asked by TCP, so any size is welcome
    upstreams: tuple[str, ...]
    deadline: float
    retry_at: float = 0.0
    attempt: int = 0
    ident: int = 0
    socket: socket.socket | None = None
    stream: bool = False
    out: bytes = b""
    received: bytes = b""

    @property
    def next_event(self) -> float:
        return min(self.deadline, self.retry_at)


def start(pending: Forwarded, now: float, *, stream: bool = False) -> bool:
    """Send the question to the next server; False when no server could even be tried."""
    close(pending)
    for _ in pending.upstreams:
        server = pending.upstreams[pending.attempt % len(pending.upstreams)]
        pending.attempt += 1
        try:
            _open(pending, server, stream=stream)
        except OSError:
            close(pending)
            continue
        pending.retry_at = now + TRY
        return True
    return False


def _open(pending: Forwarded, server: str, *, stream: bool) -> None:
    pending.ident = int.from_bytes(os.urandom(2), "big")
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    pending.socket = made
    pending.stream = stream
    pending.received = b""
    question = struct.pack("!H", pending.ident) + pending.data[2:]
    if stream:
        pending.out = struct.pack("!H", len(question)) + question
        # EINPROGRESS is what a non-blocking connect answers; errors show when it is writable.
        made.connect_ex((server, 53))
    else:
        made.connect((server, 53))
        made.send(question)


def on_ready(pending: Forwarded, *, writable: bool) -> bytes | None:
    """Return the server's answer (with the client's id) once it is whole; None = not yet.

    Raises OSError when this server is of no use.
    """
    link = pending.socket
    assert link is not None
    if writable and pending.out:
        sent = link.send(pending.out)
        pending.out = pending.out[sent:]
        return None
    reply = _read_stream(pending, link) if pending.stream else link.recv(_MAX_REPLY)
    if reply is None:
        return None
    if not message.matches(reply, pending.ident, pending.query.question):
        if pending.stream:
            raise ConnectionResetError("name server answered something else")
        return None  # forged or late: keep waiting for the right one
    return struct.pack("!H", pending.query.id) + reply[2:]


def _read_stream(pending: Forwarded, link: socket.socket) -> bytes | None:
    chunk = link.recv(_MAX_REPLY)
    if not chunk:
        raise ConnectionResetError("name server closed the connection")
    pending.received += chunk
    if len(pending.received) < 2:
        return None
    length: int = struct.unpack_from("!H", pending.received)[0]
    whole = len(pending.received) >= 2 + length
    return pending.received[2 : 2 + length] if whole else None


def close(pending: Forwarded) -> None:
    """Let go of the socket."""
    if pending.socket is not None:
        pending.socket.close()
        pending.socket = None
