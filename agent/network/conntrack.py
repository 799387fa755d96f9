"""Forget flows that lead to a wrong place after a change of backends.

A UDP "connection" is kept alive by the client's own packets, so a flow to a backend that
is gone would go there for ever, and one that began before a VIP or port had a backend
would never be translated. A TCP connection that was answered goes on where it is. One that
was not, because its backend's node died, would lead there for two minutes more: for the
client's next tries, and for its next connection from the same port.
:func:`stale` is pure; :func:`delete` speaks ctnetlink in the nft thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from agent.linux.netlink import NETLINK_NETFILTER, Message, NetlinkSocket, nest, parse_attrs
from agent.network.rules import port_front

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.network.rules import Ruleset

# linux/netfilter/nfnetlink_conntrack.h
_NFNL_SUBSYS_CTNETLINK = 1
_CT_GET = _NFNL_SUBSYS_CTNETLINK << 8 | 1  # IPCTNL_MSG_CT_GET
_CT_DELETE = _NFNL_SUBSYS_CTNETLINK << 8 | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS = 1, 2, 3
_IPS_SEEN_REPLY = 2  # linux/netfilter/nf_conntrack_common.h
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")  # of the reader's namespace
_IPV4 = struct.pack("=BBH", socket.AF_INET, 0, 0)  # nfgenmsg


@dataclass(frozen=True)
class Stale:
    """Flows to forget.

    ``gone``: (front, backend) pairs no longer valid; a front is a VIP, ":PORT" or ":PORT/tcp".
    ``fronts``: VIPs that got their first backend; ``ports``: published UDP ports that did.
    """

    gone: frozenset[tuple[str, str]] = frozenset()
    fronts: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.gone or self.fronts or self.ports)

    def covers(self, destination: str, port: int, answering: str, protocol: str = "udp") -> bool:
        """Say whether a flow sent to ``destination``:``port`` and answered so is stale."""
        front = port_front(port, protocol)
        if (destination, answering) in self.gone or (front, answering) in self.gone:
            return True
        if protocol != "udp":
            return False  # it is refused where there is no backend
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
            if not front.startswith(":"):
                fronts.add(front)
            elif "/" not in front:
                ports.add(int(front[1:]))
    return Stale(frozenset(gone), frozenset(fronts), frozenset(ports))


def delete(wanted: Stale) -> int:
    """Delete the stale flows and return how many there were."""
    if not any_flow():
        return 0
    with NetlinkSocket(NETLINK_NETFILTER, buffer=1 << 22) as link:
        doomed = [
            original
            for original, destination, port, answering, protocol in flows(link)
            if wanted.covers(destination, port, answering, protocol)
        ]
        link.run([_forget(original) for original in doomed])
        return len(doomed)


def any_flow() -> bool:
    """Say whether this network namespace has a flow at all.

    To list them the kernel goes through its table of all namespaces' flows, whose size goes with
    the machine's memory: 20 ms of processor time on one of 24 GB.
    """
    try:
        return COUNT.read_text().strip() != "0"
    except OSError:
        return True


def _forget(original: bytes) -> Message:
    body = _IPV4 + nest(_CTA_TUPLE_ORIG, original)
    # It may have ended by itself meanwhile.
    return Message(_CT_DELETE, 0, body, "delete connection tracking entry", (errno.ENOENT,))


def flows(link: NetlinkSocket) -> Iterator[tuple[bytes, str, int, str, str]]:
    """Yield (original tuple, destination, port, answering, protocol) of what may be forgotten.

    That is every IPv4 flow of UDP, and those of TCP that nobody answered.
    """
    for found in link.stream(_CT_GET, _IPV4):
        attrs = parse_attrs(found, len(_IPV4))
        original = attrs.get(_CTA_TUPLE_ORIG, b"")
        way = parse_attrs(original)
        proto = parse_attrs(way.get(_CTA_TUPLE_PROTO, b""))
        protocol = proto.get(_CTA_PROTO_NUM, b"\0")[0]
        answered = int.from_bytes(attrs.get(_CTA_STATUS, b""), "big") & _IPS_SEEN_REPLY
        if protocol != socket.IPPROTO_UDP and (protocol != socket.IPPROTO_TCP or answered):
            continue
        reply = parse_attrs(attrs.get(_CTA_TUPLE_REPLY, b""))
        back = parse_attrs(reply.get(_CTA_TUPLE_IP, b""))
        there = parse_attrs(way.get(_CTA_TUPLE_IP, b""))
        port = struct.unpack("!H", proto.get(_CTA_PROTO_DST_PORT, b"\0\0"))[0]
        yield (
            original,
            str(IPv4Address(there[_CTA_IP_V4_DST])),
            port,
            str(IPv4Address(back[_CTA_IP_V4_SRC])),
            "udp" if protocol == socket.IPPROTO_UDP else "tcp",
        )
