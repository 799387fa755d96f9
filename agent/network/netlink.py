"""The rtnetlink socket: batches out, answers and dumps in.

A container's attachment is some twenty kernel objects. Sending each through a
tool costs milliseconds, through a general library hundreds of microseconds;
here a whole attachment is two or three ``sendto`` calls of pre-built messages
(messages.py). Only agent.network's network thread uses this. It decides nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from agent.network import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from agent.network.messages import Message
    from agent.network.objects import Link, Neighbour, Route, Rule

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _STRICT = 10, 11, 12
_CHUNK = 32 * 1024  # bytes of messages per sendto, far below any default socket buffer
_REPLY_TIMEOUT = 10.0  # the kernel answers at once; longer means the socket is broken


class NetlinkError(OSError):
    """The kernel refused a message; ``what`` says which, in our words."""

    def __init__(self, code: int, what: str, detail: str = "") -> None:
        super().__init__(code, f"{what}: {os.strerror(code)}" + (f" ({detail})" if detail else ""))
        self.what = what


class Netlink:
    """A NETLINK_ROUTE socket of the namespace the calling thread is in when it is made."""

    def __init__(self, protocol: int = 0) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.settimeout(_REPLY_TIMEOUT)
        self._socket.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
            size += len(message.body) + 16
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
            self._sequence += 1
            pending[self._sequence] = message
            out += self._frame(message, message.flags | REQUEST | ACK)
        self._socket.send(out)
        errors: list[NetlinkError] = []
        while pending:
            for kind, sequence, body in self._receive():
                answered = pending.pop(sequence, None) if kind == _ERROR else None
                if answered is None:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                if code and code not in answered.tolerate:
                    detail = m.parse_attrs(body, 20).get(1, b"").rstrip(b"\0").decode()
                    errors.append(NetlinkError(code, answered.what, detail))
        return errors

    def dump(self, kind: int, body: bytes, *, strict: bool = False) -> list[bytes]:
        """Return the bodies of everything of one kind; ``strict`` lets the kernel filter."""
        self._socket.setsockopt(_SOL_NETLINK, _STRICT, int(strict))
        found: list[bytes] = []
        for _ in range(5):  # a table changed while it was read: read again
            self._sequence += 1
            message = m.Message(kind, 0, body, f"list {kind}")
            self._socket.send(self._frame(message, REQUEST | DUMP))
            found, whole = self._collect()
            if whole:
                return found
        return found

    def _collect(self) -> tuple[list[bytes], bool]:
        found: list[bytes] = []
        whole = True
        while True:
            for kind, sequence, body, interrupted in self._receive_flagged():
                if sequence != self._sequence:
                    continue
                whole = whole and not interrupted
                if kind == _DONE:
                    return found, whole
                if kind == _ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", body)[0], "list")
                found.append(body)

    def _frame(self, message: Message, flags: int) -> bytes:
        length = 16 + len(message.body)
        header = struct.pack("=IHHII", length, message.type, flags, self._sequence, 0)
        return header + message.body + b"\0" * (-length % 4)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        for kind, sequence, body, _ in self._receive_flagged():
            yield kind, sequence, body

    def _receive_flagged(self) -> Iterator[tuple[int, int, bytes, bool]]:
        data = self._socket.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data, offset)
            yield kind, sequence, data[offset + 16 : offset + length], bool(flags & 0x10)
            offset += (length + 3) & ~3

    # --- what is there ---

    def links(self) -> dict[str, Link]:
        """Return all devices by name."""
        found = (m.parse_link(body) for body in self.dump(m.GETLINK, m.ifinfo()))
        return {link.name: link for link in found}

    def addresses(self) -> list[tuple[int, str]]:
        """Return (interface index, address/bits) of every IPv4 and IPv6 address."""
        found = []
        for body in self.dump(m.GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
            bits, index = body[1], struct.unpack_from("=i", body, 4)[0]
            attrs = m.parse_attrs(body, 8)
            raw = attrs.get(2) or attrs.get(1)
            if raw:
                found.append((index, f"{ip_address(raw)}/{bits}"))
        return found

    def routes(self, protocol: int, names: Mapping[int, str]) -> set[Route]:
        """Return our IPv4 routes of all tables (the kernel filters by protocol)."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, protocol, 0, 0, 0)
        parsed = (m.parse_route(found, names) for found in self.dump(m.GETROUTE, body, strict=True))
        return {found for owner, found in parsed if owner == protocol}

    def neighbours(self, names: Mapping[int, str]) -> set[Neighbour]:
        """Return the permanent neighbour and FDB entries of the devices in ``names``."""
        found: set[Neighbour] = set()
        for family in (socket.AF_INET, m.AF_BRIDGE):
            header = struct.pack("=BxHiHBB", family, 0, 0, 0, 0, 0)
            for body in self.dump(m.GETNEIGH, header):
                entry = m.parse_neighbour(body, names)
                if entry and entry.dev:
                    found.add(entry)
        return found

    def rules(self, protocol: int) -> set[Rule]:
        """Return our IPv4 policy rules."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        parsed = (m.parse_rule(found) for found in self.dump(m.GETRULE, body))
        return {found for owner, found in parsed if owner == protocol}
