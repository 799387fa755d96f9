"""rtnetlink without ceremony: messages as bytes, sent in batches, answers decoded.

A container's attachment is some twenty kernel objects. Sending each through a
tool costs milliseconds, through a general library hundreds of microseconds;
here a whole attachment is one or two ``sendto`` calls of pre-built messages.
Only agent.network's network thread uses this. It decides nothing: plan.py says
what, this says it to the kernel.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from agent.network.objects import Link, Neighbour, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# message types (linux/rtnetlink.h)
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800

_ERROR, _DONE = 2, 3
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _STRICT = 10, 11, 12
_NESTED = 0x8000
_CHUNK = 32 * 1024  # bytes of messages per sendto, far below any default socket buffer
_REPLY_TIMEOUT = 10.0  # the kernel answers at once; longer means the socket is broken

AF_BRIDGE = 7
IFF_UP = 0x1


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
    return attr(kind | _NESTED, b"".join(parts))


def parse_attrs(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes of a message; the last one of a kind wins."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a MAC written with colons."""
    return bytes.fromhex(mac.replace(":", ""))


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


# --- links -----------------------------------------------------------------

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 4, 18, 20
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NS_FD = 26, 27, 28
# linux/ip.h: the position of each per-device sysctl in IFLA_INET_CONF
CONF = {
    "forwarding": 1,
    "accept_redirects": 4,
    "send_redirects": 6,
    "rp_filter": 8,
    "arp_ignore": 19,
    "route_localnet": 26,
}


def veth(*, name: str, mac: str, mtu: int, peer: str, peer_mac: str, peer_ns: int) -> Message:
    """Make a veth pair, one end here, the other inside the namespace ``peer_ns``; both down.

    (Coming up at creation fails for the peer: it is not connected yet, ENOTCONN.)
    """
    inner = (
        _ifinfo()
        + attr(_IFLA_IFNAME, peer)
        + attr(_IFLA_ADDRESS, mac_bytes(peer_mac))
        + attr(_IFLA_MTU, mtu)
        + attr(_IFLA_NS_FD, peer_ns)
    )
    body = (
        _ifinfo()
        + attr(_IFLA_IFNAME, name)
        + attr(_IFLA_ADDRESS, mac_bytes(mac))
        + attr(_IFLA_MTU, mtu)
        + nest(_IFLA_LINKINFO, attr(1, b"veth"), nest(2, nest(1, inner)))
    )
    return Message(NEWLINK, CREATE | EXCL, body, f"make veth {name}")


def vxlan(*, name: str, mac: str, mtu: int, vni: int, local: str, port: int) -> Message:
    """Make a VXLAN device that learns nothing."""
    data = [
        attr(1, vni),
        attr(17 if ":" in local else 4, _packed(local)),
        attr(5, b"\x40"),  # TTL 64
        attr(7, b"\0"),  # no learning
        attr(15, struct.pack("!H", port)),
    ]
    body = (
        _ifinfo()
        + attr(_IFLA_IFNAME, name)
        + attr(_IFLA_ADDRESS, mac_bytes(mac))
        + attr(_IFLA_MTU, mtu)
        + nest(_IFLA_LINKINFO, attr(1, b"vxlan"), nest(2, *data))
    )
    return Message(NEWLINK, CREATE | EXCL, body, f"make VXLAN device {name}")


def configure(
    name: str, conf: dict[str, int], *, alias: str = "", mtu: int | None = None
) -> Message:
    """Set a device's IPv4 sysctls (and take IPv6's automatic address away) in one message."""
    inet = nest(1, *(attr(CONF[key], value) for key, value in sorted(conf.items())))
    # IFLA_INET6_ADDR_GEN_MODE = none: no link-local address appears when it comes up.
    families = nest(socket.AF_INET, inet) + nest(socket.AF_INET6, attr(8, b"\1"))
    body = _ifinfo() + attr(_IFLA_IFNAME, name) + nest(_IFLA_AF_SPEC, families)
    if alias:
        body += attr(_IFLA_IFALIAS, alias.encode()[:250])
    if mtu is not None:
        body += attr(_IFLA_MTU, mtu)
    return Message(SETLINK, 0, body, f"configure {name}")


def up(name: str = "", index: int = 0) -> Message:
    """Bring a device up, named by name or index."""
    body = _ifinfo(index, IFF_UP, IFF_UP) + (attr(_IFLA_IFNAME, name) if name else b"")
    return Message(SETLINK, 0, body, f"bring {name or index} up")


def delete_link(name: str) -> Message:
    """Remove a device; one that is gone already is fine."""
    body = _ifinfo() + attr(_IFLA_IFNAME, name)
    return Message(DELLINK, 0, body, f"remove {name}", (errno.ENODEV,))


def doom(name: str, group: int) -> Message:
    """Put a device into the group that :func:`delete_group` removes."""
    body = _ifinfo() + attr(_IFLA_IFNAME, name) + attr(_IFLA_GROUP, group)
    return Message(SETLINK, 0, body, f"group {name}", (errno.ENODEV,))


def delete_group(group: int) -> Message:
    """Remove all devices of a group at once: the kernel waits for its readers once, not per link."""
    body = _ifinfo() + attr(_IFLA_GROUP, group)
    return Message(DELLINK, 0, body, "remove links", (errno.ENODEV,))


def parse_link(body: bytes) -> Link:
    """Decode RTM_NEWLINK."""
    index, flags = struct.unpack_from("=iI", body, 4)
    attrs = parse_attrs(body, 16)
    info = parse_attrs(attrs.get(_IFLA_LINKINFO, b""))
    inet = parse_attrs(parse_attrs(attrs.get(_IFLA_AF_SPEC, b"")).get(socket.AF_INET, b""))
    # Towards user space IFLA_INET_CONF is a plain array of s32, position = number - 1.
    array = inet.get(1, b"")
    values = struct.unpack(f"={len(array) // 4}i", array)
    conf = {key: values[n - 1] for key, n in CONF.items() if n <= len(values)}
    return Link(
        index=index,
        name=attrs.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        up=bool(flags & IFF_UP),
        mtu=struct.unpack("=I", attrs[_IFLA_MTU])[0] if _IFLA_MTU in attrs else 0,
        mac=attrs.get(_IFLA_ADDRESS, b"").hex(":"),
        kind=info.get(1, b"").rstrip(b"\0").decode(),
        conf=conf,
        data=parse_attrs(info.get(2, b"")),
    )


# --- addresses, routes, neighbours, rules ----------------------------------


def address(index: int, cidr: str, *, delete: bool = False) -> Message:
    """Give a device an address (or take it)."""
    host, _, bits = cidr.partition("/")
    body = struct.pack("=BBBBi", _family(host), int(bits), 0, 0, index)
    body += attr(2, _packed(host)) + attr(1, _packed(host))
    if delete:
        return Message(DELADDR, 0, body, f"remove address {cidr}", (errno.EADDRNOTAVAIL,))
    return Message(NEWADDR, CREATE | REPLACE, body, f"add address {cidr}", (errno.EEXIST,))


_UNICAST, _BLACKHOLE = 1, 6
_ONLINK = 4


def route(wanted: Route, dev: int, *, protocol: int, delete: bool = False) -> Message:
    """Add (or replace, or remove) a route; ``dev`` is the index of ``wanted.dev``."""
    net = ip_network(wanted.destination)
    body = struct.pack(
        "=BBBBBBBBI",
        socket.AF_INET,
        net.prefixlen,
        0,
        0,
        wanted.table if wanted.table < 256 else 0,
        protocol,
        0 if wanted.via or wanted.blackhole else 253,  # scope: universe, link
        _BLACKHOLE if wanted.blackhole else _UNICAST,
        _ONLINK if wanted.via else 0,
    )
    if net.prefixlen:
        body += attr(1, net.network_address.packed)
    if dev:
        body += attr(4, dev)
    if wanted.via:
        body += attr(5, _packed(wanted.via))
    if wanted.source:
        body += attr(7, _packed(wanted.source))
    body += attr(15, wanted.table)
    if delete:
        return Message(DELROUTE, 0, body, f"remove route {wanted.destination}", (errno.ESRCH,))
    return Message(NEWROUTE, CREATE | REPLACE, body, f"add route {wanted.destination}")


def parse_route(body: bytes, names: Mapping[int, str]) -> tuple[int, Route]:
    """Decode RTM_NEWROUTE into (protocol, route)."""
    _, bits, _, _, table, protocol, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
    attrs = parse_attrs(body, 12)
    if 15 in attrs:
        table = struct.unpack("=I", attrs[15])[0]
    target = str(ip_address(attrs[1])) if 1 in attrs else "0.0.0.0"
    dev = struct.unpack("=I", attrs[4])[0] if 4 in attrs and kind == _UNICAST else 0
    return protocol, Route(
        destination=f"{target}/{bits}",
        dev=names.get(dev, ""),
        via=str(ip_address(attrs[5])) if 5 in attrs else "",
        source=str(ip_address(attrs[7])) if 7 in attrs else "",
        table=table,
        blackhole=kind == _BLACKHOLE,
    )


_PERMANENT = 0x80
_NTF_SELF = 2


def neighbour(wanted: Neighbour, dev: int, *, delete: bool = False) -> Message:
    """Add or remove a permanent neighbour or FDB entry."""
    family = AF_BRIDGE if wanted.fdb else _family(wanted.address)
    flags = _NTF_SELF if wanted.fdb else 0
    body = struct.pack("=BxHiHBB", family, 0, dev, _PERMANENT, flags, 0)
    body += attr(1, _packed(wanted.address)) + attr(2, mac_bytes(wanted.mac))
    what = f"{'FDB entry' if wanted.fdb else 'neighbour'} {wanted.address}"
    if delete:
        return Message(DELNEIGH, 0, body, f"remove {what}", (errno.ENOENT,))
    return Message(NEWNEIGH, CREATE | REPLACE, body, f"add {what}")


def parse_neighbour(body: bytes, names: Mapping[int, str]) -> Neighbour | None:
    """Decode RTM_NEWNEIGH; None for an entry that is not permanent or has no address."""
    family, _, dev, state, _, _ = struct.unpack_from("=BxHiHBB", body)
    attrs = parse_attrs(body, 12)
    if not state & _PERMANENT or 1 not in attrs or 2 not in attrs:
        return None
    return Neighbour(
        names.get(dev, ""),
        str(ip_address(attrs[1])),
        attrs[2].hex(":"),
        fdb=family == AF_BRIDGE,
    )


def rule(wanted: Rule, *, protocol: int, delete: bool = False) -> Message:
    """Add or remove a policy rule."""
    action = 1 if wanted.table else 2 if wanted.goto else 3
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, action, 0)
    body += attr(6, wanted.priority) + attr(21, bytes([protocol]))
    if wanted.mask:
        body += attr(10, wanted.mark) + attr(16, wanted.mask)
    if wanted.table:
        body += attr(15, wanted.table)
    if wanted.goto:
        body += attr(4, wanted.goto)
    if delete:
        return Message(DELRULE, 0, body, f"remove rule {wanted.priority}", (errno.ENOENT,))
    return Message(NEWRULE, CREATE | EXCL, body, f"add rule {wanted.priority}", (errno.EEXIST,))


def parse_rule(body: bytes) -> tuple[int, Rule]:
    """Decode RTM_NEWRULE into (protocol, rule)."""
    attrs = parse_attrs(body, 12)

    def number(kind: int) -> int:
        return int(struct.unpack("=I", attrs[kind])[0]) if kind in attrs else 0

    protocol = attrs.get(21, b"\0")[0]
    action = body[7]
    return protocol, Rule(
        priority=number(6),
        mark=number(10),
        mask=number(16),
        table=number(15) if action == 1 else 0,
        goto=number(4) if action == 2 else 0,
    )


# --- the socket ------------------------------------------------------------


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

    def __enter__(self) -> Netlink:
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
                    detail = parse_attrs(body, 20).get(1, b"").rstrip(b"\0").decode()
                    errors.append(NetlinkError(code, answered.what, detail))
        return errors

    def dump(self, kind: int, body: bytes, *, strict: bool = False) -> list[bytes]:
        """Return the bodies of everything of one kind; ``strict`` lets the kernel filter."""
        self._socket.setsockopt(_SOL_NETLINK, _STRICT, int(strict))
        found: list[bytes] = []
        for _ in range(5):  # a table changed while it was read: read again
            self._sequence += 1
            message = Message(kind, 0, body, f"list {kind}")
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
        found = (parse_link(body) for body in self.dump(GETLINK, _ifinfo()))
        return {link.name: link for link in found}

    def addresses(self) -> list[tuple[int, str]]:
        """Return (interface index, address/bits) of every IPv4 and IPv6 address."""
        found = []
        for body in self.dump(GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
            bits, index = body[1], struct.unpack_from("=i", body, 4)[0]
            attrs = parse_attrs(body, 8)
            raw = attrs.get(2) or attrs.get(1)
            if raw:
                found.append((index, f"{ip_address(raw)}/{bits}"))
        return found

    def routes(self, protocol: int, names: Mapping[int, str]) -> set[Route]:
        """Return our IPv4 routes of all tables (the kernel filters by protocol)."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, protocol, 0, 0, 0)
        parsed = (parse_route(found, names) for found in self.dump(GETROUTE, body, strict=True))
        return {found for owner, found in parsed if owner == protocol}

    def neighbours(self, names: Mapping[int, str]) -> set[Neighbour]:
        """Return the permanent neighbour and FDB entries of the devices in ``names``."""
        found: set[Neighbour] = set()
        for family in (socket.AF_INET, AF_BRIDGE):
            header = struct.pack("=BxHiHBB", family, 0, 0, 0, 0, 0)
            for body in self.dump(GETNEIGH, header):
                entry = parse_neighbour(body, names)
                if entry and entry.dev:
                    found.add(entry)
        return found

    def rules(self, protocol: int) -> set[Rule]:
        """Return our IPv4 policy rules."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        parsed = (parse_rule(found) for found in self.dump(GETRULE, body))
        return {found for owner, found in parsed if owner == protocol}
