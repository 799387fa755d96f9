"""rtnetlink messages as bytes, and the kernel's answers as values. Pure.

What is sent and what is read back use the same types (objects.py), so that a
plan can be compared with what is there. netlink.py does the sending.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from agent.network import names
from agent.network.objects import Link, Neighbour, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

# message types (linux/rtnetlink.h)
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400

_NESTED = 0x8000
AF_BRIDGE = 7
IFF_UP = 0x1


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


def ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Return the header of a link message."""
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
        ifinfo()
        + attr(_IFLA_IFNAME, peer)
        + attr(_IFLA_ADDRESS, mac_bytes(peer_mac))
        + attr(_IFLA_MTU, mtu)
        + attr(_IFLA_NS_FD, peer_ns)
    )
    body = (
        ifinfo()
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
        ifinfo()
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
    body = ifinfo() + attr(_IFLA_IFNAME, name) + nest(_IFLA_AF_SPEC, families)
    if alias:
        body += attr(_IFLA_IFALIAS, alias.encode()[:250])
    if mtu is not None:
        body += attr(_IFLA_MTU, mtu)
    return Message(SETLINK, 0, body, f"configure {name}")


def up(name: str = "", index: int = 0) -> Message:
    """Bring a device up, named by name or index."""
    body = ifinfo(index, IFF_UP, IFF_UP) + (attr(_IFLA_IFNAME, name) if name else b"")
    return Message(SETLINK, 0, body, f"bring {name or index} up")


def delete_link(name: str) -> Message:
    """Remove a device; one that is gone already is fine."""
    body = ifinfo() + attr(_IFLA_IFNAME, name)
    return Message(DELLINK, 0, body, f"remove {name}", (errno.ENODEV,))


def doom(name: str, group: int) -> Message:
    """Put a device into the group that :func:`delete_group` removes."""
    body = ifinfo() + attr(_IFLA_IFNAME, name) + attr(_IFLA_GROUP, group)
    return Message(SETLINK, 0, body, f"group {name}", (errno.ENODEV,))


def delete_group(group: int) -> Message:
    """Remove all devices of a group at once: the kernel waits for its readers only once."""
    body = ifinfo() + attr(_IFLA_GROUP, group)
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
    if wanted.blackhole:
        body += attr(6, names.BLACKHOLE_METRIC)
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
