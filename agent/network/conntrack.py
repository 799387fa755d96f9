"""Forget UDP flows that lead to a wrong place after a change of backends.

TCP notices by itself; a UDP "connection" is kept alive by the client's own
packets, so a flow to a backend that is gone would go there for ever, and one
that began before a VIP or port had a backend would never be translated.
:func:`stale` is pure; :func:`delete` speaks ctnetlink in the nft thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from agent.network.messages import parse_attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.network.rules import Ruleset

_NETFILTER = 12
_CT_GET = (1 << 8) | 1
_CT_DELETE = (1 << 8) | 2
_UDP = 17


@dataclass(frozen=True)
class Stale:
    """UDP flows to forget.

    ``gone``: (front, backend) pairs no longer valid; a front is a VIP or ":PORT".
    ``fronts``: VIPs that got their first backend; ``ports``: published ports that did.
    """

    gone: frozenset[tuple[str, str]] = frozenset()
    fronts: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.gone or self.fronts or self.ports)

    def covers(self, destination: str, port: int, answering: str) -> bool:
        """Say whether a flow sent to ``destination``:``port`` and answered so is stale."""
        if (destination, answering) in self.gone or (f":{port}", answering) in self.gone:
            return True
        # Untranslated flows answer from where they were sent to.
        untranslated = destination == answering
        return untranslated and (destination in self.fronts or port in self.ports)


def stale(old: Ruleset | None, new: Ruleset) -> Stale:
    """Return what a change of rulesets made stale."""
    if old is None:
        return Stale()
    gone = set()
    fronts, ports = set(), set()
    for front in old.fronts.keys() | new.fronts.keys():
        was, now = old.fronts.get(front, ()), new.fronts.get(front, ())
        if was == now:
            continue
        gone |= {(front, backend) for backend in set(was) - set(now)}
        if now and not was:
            if front.startswith(":"):
                ports.add(int(front[1:]))
            else:
                fronts.add(front)
    return Stale(frozenset(gone), frozenset(fronts), frozenset(ports))


def delete(wanted: Stale) -> int:
    """Delete the stale UDP flows and return how many there were."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as link:
        link.settimeout(10.0)
        link.bind((0, 0))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        doomed = [
            original
            for original, destination, port, answering in _flows(link)
            if wanted.covers(destination, port, answering)
        ]
        for number, original in enumerate(doomed):
            body = struct.pack("=BBH", socket.AF_INET, 0, 0) + _attr(1 | 0x8000, original)
            head = struct.pack("=IHHII", 16 + len(body), _CT_DELETE, 0x5, 1000 + number, 0)
            link.send(head + body)
            code = -struct.unpack_from("=i", link.recv(4096), 16)[0]
            if code not in (0, errno.ENOENT):  # it ended by itself meanwhile
                raise OSError(code, "delete connection tracking entry")
        return len(doomed)


def _flows(link: socket.socket) -> Iterator[tuple[bytes, str, int, str]]:
    """Yield (original tuple, destination, port, answering address) of every IPv4 UDP flow."""
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    link.send(struct.pack("=IHHII", 20, _CT_GET, 0x301, 1, 0) + body)
    while True:
        data = link.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == 3:
                return
            if kind == 2:
                raise OSError("connection tracking table cannot be read")
            attrs = parse_attrs(data[offset + 20 : offset + length])
            offset += (length + 3) & ~3
            original = attrs.get(1, b"")
            way = parse_attrs(original)
            proto = parse_attrs(way.get(2, b""))
            if proto.get(1, b"\0")[0] != _UDP:
                continue
            back = parse_attrs(parse_attrs(attrs.get(2, b"")).get(1, b""))
            there = parse_attrs(way.get(1, b""))
            port = struct.unpack("!H", proto.get(3, b"\0\0"))[0]
            yield (
                original,
                str(IPv4Address(there[2])),
                port,
                str(IPv4Address(back[1])),
            )


def _attr(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
