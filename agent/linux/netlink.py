"""Netlink: messages and attributes as bytes, and a socket that sends them in batches.

All three of the agent's conversations with the kernel's network go through here:
devices and routes (agent.network.netlink), connection tracking and nftables'
generation. What a message says is its sender's business, the numbers are in
agent.linux.rtnetlink and beside their only user; this decides nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

# linux/netlink.h
NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_DUMP: Final = 0x300
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SOL_NETLINK: Final = 270

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ERRNO: Final = struct.Struct("=i")  # how nlmsgerr begins; the request's header follows
_CHUNK: Final = 32 * 1024  # bytes of messages per send, far below any default socket buffer
_READ: Final = 1 << 17
_REPLY_TIMEOUT: Final = 10.0  # the kernel answers at once; longer means the socket is broken


class NetlinkError(OSError):
    """The kernel refused a message; ``what`` says which, in our words."""

    def __init__(self, code: int, what: str, detail: str = "") -> None:
        super().__init__(code, f"{what}: {os.strerror(code)}" + (f" ({detail})" if detail else ""))
        self.what = what


@dataclass(frozen=True, slots=True)
class Message:
    """One request. ``tolerate`` lists errnos that mean "already as wanted"."""

    type: int
    flags: int
    body: bytes
    what: str
    tolerate: tuple[int, ...] = ()


def attr(kind: int, value: bytes | str | int) -> bytes:
    """Return one attribute; an int is a native u32, a str gets its zero byte."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """Return a nested attribute."""
    return attr(kind | NLA_F_NESTED, b"".join(parts))


def parse_attrs(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes of a message; the last one of a kind wins."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class NetlinkSocket:
    """A netlink socket of the namespace the calling thread is in when it is made."""

    def __init__(self, protocol: int, *, buffer: int = 1 << 20) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.settimeout(_REPLY_TIMEOUT)
        self._socket.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what is to change

    def run(self, messages: Sequence[Message]) -> None:
        """Send all; raise the first refusal. What follows a refused message is still tried."""
        for error in self.attempt(messages):
            raise error

    def attempt(self, messages: Sequence[Message]) -> list[NetlinkError]:
        """Send all and return what the kernel refused."""
        errors: list[NetlinkError] = []
        chunk: list[Message] = []
        size = 0
        for message in messages:
            chunk.append(message)
            size += len(message.body) + _HEADER.size
            if size > _CHUNK:
                errors += self._exchange(chunk)
                chunk, size = [], 0
        if chunk:
            errors += self._exchange(chunk)
        return errors

    def _exchange(self, messages: Sequence[Message]) -> list[NetlinkError]:
        pending: dict[int, Message] = {}
        out = bytearray()
        for message in messages:
            out += self._frame(message.type, message.body, message.flags | NLM_F_ACK)
            pending[self._sequence] = message
        self._socket.send(out)
        errors: list[NetlinkError] = []
        while pending:
            for kind, sequence, body, _ in self._receive():
                answered = pending.pop(sequence, None) if kind == NLMSG_ERROR else None
                if answered is None:
                    continue
                code = _refusal(body)
                if code and code not in answered.tolerate:
                    attrs = parse_attrs(body, _ERRNO.size + _HEADER.size)
                    detail = attrs.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
                    errors.append(NetlinkError(code, answered.what, detail))
        return errors

    def transact(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Send a transaction of netfilter's in one piece: all of it, or nothing. Raises OSError."""
        out = bytearray(self._frame(begin.type, begin.body, begin.flags))
        asked: dict[int, Message] = {self._sequence: begin}
        for at, message in enumerate(messages, 1):
            # Only the last one is answered when all goes well, each that is refused always.
            flags = message.flags | (NLM_F_ACK if at == len(messages) else 0)
            out += self._frame(message.type, message.body, flags)
            asked[self._sequence] = message
        last = self._sequence
        out += self._frame(end.type, end.body, end.flags)
        self._socket.send(out)
        while True:
            for kind, sequence, body, _ in self._receive():
                if kind != NLMSG_ERROR or sequence not in asked:
                    continue
                if code := _refusal(body):
                    raise NetlinkError(code, asked[sequence].what)
                if sequence == last:
                    return

    # what is there

    def ask(self, kind: int, body: bytes, what: str) -> tuple[int, bytes]:
        """Return the type and body of the one answer to a question."""
        self._socket.send(self._frame(kind, body, 0))
        while True:
            for answer, sequence, found, _ in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_ERROR:
                    raise NetlinkError(_refusal(found), what)
                return answer, found

    def dump(self, kind: int, body: bytes, *, strict: bool = False) -> list[bytes]:
        """Return the bodies of everything of one kind; ``strict`` lets the kernel filter."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, int(strict))
        found: list[bytes] = []
        for _ in range(5):  # a table changed while it was read: read again
            found, whole = [], True
            for item, interrupted in self._listing(kind, body):
                whole = whole and not interrupted
                if item is not None:
                    found.append(item)
            if whole:
                return found
        return found

    def stream(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Yield the bodies of everything of one kind as they come: for tables that are long."""
        for item, _ in self._listing(kind, body):
            if item is not None:
                yield item

    def _listing(self, kind: int, body: bytes) -> Iterator[tuple[bytes | None, bool]]:
        """Yield each body, at the end None, and whether the table changed meanwhile."""
        self._socket.send(self._frame(kind, body, NLM_F_DUMP))
        while True:
            for answer, sequence, found, flags in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted = bool(flags & NLM_F_DUMP_INTR)
                if answer == NLMSG_DONE:
                    yield None, interrupted
                    return
                if answer == NLMSG_ERROR:
                    raise NetlinkError(_refusal(found), f"list {kind}")
                yield found, interrupted

    def _frame(self, kind: int, body: bytes, flags: int) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, flags | NLM_F_REQUEST, self._sequence, 0)
        return header + body + b"\0" * (-length % 4)

    def _receive(self) -> Iterator[tuple[int, int, bytes, int]]:
        """Yield (type, sequence, body, flags) of each message of one read."""
        data = self._socket.recv(_READ)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + _HEADER.size : offset + length], flags
            offset += (length + 3) & ~3


def _refusal(body: bytes) -> int:
    return -int(_ERRNO.unpack_from(body)[0])
