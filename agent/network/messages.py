"""rtnetlink messages as bytes, and the kernel's answers as values. Pure.

What is sent and what is read back use the same types (objects.py), so that a
plan can be compared with what is there. netlink.py does the sending; numbers are
the kernel's, by the kernel's names (agent.linux.rtnetlink).
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from agent.linux import rtnetlink as rt
from agent.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attr,
    nest,
    parse_attrs,
)
from agent.network import names
from agent.network.objects import Link, Neighbour, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a MAC written with colons."""
    return bytes.fromhex(mac.replace(":", ""))


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _number(attrs: Mapping[int, bytes], kind: int, default: int = 0) -> int:
    return int(struct.unpack("=I", attrs[kind])[0]) if kind in attrs else default


def _address(attrs: Mapping[int, bytes], kind: int) -> str:
    return str(ip_address(attrs[kind])) if kind in attrs else ""


def _info(kind: bytes, *data: bytes) -> bytes:
    """Return what kind of device it is, with what only this kind has."""
    what = attr(rt.IFLA_INFO_KIND, kind)
    return nest(rt.IFLA_LINKINFO, what, nest(rt.IFLA_INFO_DATA, *data))


def vxlan_local(address: str) -> int:
    """Return the attribute that holds a VXLAN device's own end of this IP version."""
    return rt.IFLA_VXLAN_LOCAL6 if ":" in address else rt.IFLA_VXLAN_LOCAL


def ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Return the header of a link message."""
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


# --- links -----------------------------------------------------------------


def veth(*, name: str, mac: str, mtu: int, peer: str, peer_mac: str, peer_ns: int) -> Message:
    """Make a veth pair, one end here, the other inside the namespace ``peer_ns``; both down.

    (Coming up at creation fails for the peer: it is not connected yet, ENOTCONN.)
    """
    inner = (
        ifinfo()
        + attr(rt.IFLA_IFNAME, peer)
        + attr(rt.IFLA_ADDRESS, mac_bytes(peer_mac))
        + attr(rt.IFLA_MTU, mtu)
        + attr(rt.IFLA_NET_NS_FD, peer_ns)
    )
    body = (
        ifinfo()
        + attr(rt.IFLA_IFNAME, name)
        + attr(rt.IFLA_ADDRESS, mac_bytes(mac))
        + attr(rt.IFLA_MTU, mtu)
        + _info(b"veth", nest(rt.VETH_INFO_PEER, inner))
    )
    return Message(rt.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make veth {name}")


def vxlan(*, name: str, mac: str, mtu: int, vni: int, local: str, port: int) -> Message:
    """Make a VXLAN device that learns nothing."""
    data = [
        attr(rt.IFLA_VXLAN_ID, vni),
        attr(vxlan_local(local), _packed(local)),
        attr(rt.IFLA_VXLAN_TTL, b"\x40"),
        attr(rt.IFLA_VXLAN_LEARNING, b"\0"),
        attr(rt.IFLA_VXLAN_PORT, struct.pack("!H", port)),
    ]
    body = (
        ifinfo()
        + attr(rt.IFLA_IFNAME, name)
        + attr(rt.IFLA_ADDRESS, mac_bytes(mac))
        + attr(rt.IFLA_MTU, mtu)
        + _info(b"vxlan", *data)
    )
    return Message(rt.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make VXLAN device {name}")


def configure(
    name: str, conf: dict[str, int], *, alias: str = "", mtu: int | None = None
) -> Message:
    """Set a device's IPv4 sysctls in one message."""
    inet = nest(
        rt.IFLA_INET_CONF,
        *(attr(rt.IPV4_DEVCONF[key], value) for key, value in sorted(conf.items())),
    )
    families = nest(socket.AF_INET, inet)
    body = ifinfo() + attr(rt.IFLA_IFNAME, name) + nest(rt.IFLA_AF_SPEC, families)
    if alias:
        body += attr(rt.IFLA_IFALIAS, alias.encode()[:250])
    if mtu is not None:
        body += attr(rt.IFLA_MTU, mtu)
    return Message(rt.RTM_SETLINK, 0, body, f"configure {name}")


def silent(name: str) -> Message:
    """See to it that IPv6 gives a device no address by itself when it comes up.

    A message of its own: a device below IPv6's smallest MTU (1280) has no IPv6, and a kernel may
    have none at all; both say EAFNOSUPPORT, and both are fine.
    """
    mode = attr(rt.IFLA_INET6_ADDR_GEN_MODE, bytes([rt.IN6_ADDR_GEN_MODE_NONE]))
    body = ifinfo() + attr(rt.IFLA_IFNAME, name)
    body += nest(rt.IFLA_AF_SPEC, nest(socket.AF_INET6, mode))
    return Message(rt.RTM_SETLINK, 0, body, f"silence {name}", (errno.EAFNOSUPPORT,))


def resize(name: str, mtu: int) -> Message:
    """Set a device's MTU; one that is gone already is fine."""
    body = ifinfo() + attr(rt.IFLA_IFNAME, name) + attr(rt.IFLA_MTU, mtu)
    return Message(rt.RTM_SETLINK, 0, body, f"set MTU of {name}", (errno.ENODEV,))


def up(name: str = "", index: int = 0) -> Message:
    """Bring a device up, named by name or index."""
    body = ifinfo(index, rt.IFF_UP, rt.IFF_UP) + (attr(rt.IFLA_IFNAME, name) if name else b"")
    return Message(rt.RTM_SETLINK, 0, body, f"bring {name or index} up")


def delete_link(name: str) -> Message:
    """Remove a device; one that is gone already is fine."""
    body = ifinfo() + attr(rt.IFLA_IFNAME, name)
    return Message(rt.RTM_DELLINK, 0, body, f"remove {name}", (errno.ENODEV,))


def doom(name: str, group: int) -> Message:
    """Put a device into the group that :func:`delete_group` removes."""
    body = ifinfo() + attr(rt.IFLA_IFNAME, name) + attr(rt.IFLA_GROUP, group)
    return Message(rt.RTM_SETLINK, 0, body, f"group {name}", (errno.ENODEV,))


def delete_group(group: int) -> Message:
    """Remove all devices of a group at once: the kernel waits for its readers only once."""
    body = ifinfo() + attr(rt.IFLA_GROUP, group)
    return Message(rt.RTM_DELLINK, 0, body, "remove links", (errno.ENODEV,))


def parse_link(body: bytes) -> Link:
    """Decode RTM_NEWLINK."""
    index, flags = struct.unpack_from("=iI", body, 4)
    attrs = parse_attrs(body, 16)
    info = parse_attrs(attrs.get(rt.IFLA_LINKINFO, b""))
    inet = parse_attrs(parse_attrs(attrs.get(rt.IFLA_AF_SPEC, b"")).get(socket.AF_INET, b""))
    # Towards user space IFLA_INET_CONF is a plain array of s32, position = number - 1.
    array = inet.get(rt.IFLA_INET_CONF, b"")
    values = struct.unpack(f"={len(array) // 4}i", array)
    conf = {key: values[n - 1] for key, n in rt.IPV4_DEVCONF.items() if n <= len(values)}
    return Link(
        index=index,
        name=attrs.get(rt.IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        up=bool(flags & rt.IFF_UP),
        mtu=struct.unpack("=I", attrs[rt.IFLA_MTU])[0] if rt.IFLA_MTU in attrs else 0,
        mac=attrs.get(rt.IFLA_ADDRESS, b"").hex(":"),
        kind=info.get(rt.IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        conf=conf,
        data=parse_attrs(info.get(rt.IFLA_INFO_DATA, b"")),
    )


# --- addresses, routes, neighbours, rules ----------------------------------


def address(index: int, cidr: str, *, delete: bool = False) -> Message:
    """Give a device an address (or take it)."""
    host, _, bits = cidr.partition("/")
    body = struct.pack("=BBBBi", _family(host), int(bits), 0, 0, index)
    body += attr(rt.IFA_LOCAL, _packed(host)) + attr(rt.IFA_ADDRESS, _packed(host))
    if delete:
        return Message(rt.RTM_DELADDR, 0, body, f"remove address {cidr}", (errno.EADDRNOTAVAIL,))
    return Message(
        rt.RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"add address {cidr}", (errno.EEXIST,)
    )


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
        rt.RT_SCOPE_UNIVERSE if wanted.via or wanted.blackhole else rt.RT_SCOPE_LINK,
        rt.RTN_BLACKHOLE if wanted.blackhole else rt.RTN_UNICAST,
        rt.RTNH_F_ONLINK if wanted.via else 0,
    )
    if net.prefixlen:
        body += attr(rt.RTA_DST, net.network_address.packed)
    if dev:
        body += attr(rt.RTA_OIF, dev)
    if wanted.via:
        body += attr(rt.RTA_GATEWAY, _packed(wanted.via))
    if wanted.source:
        body += attr(rt.RTA_PREFSRC, _packed(wanted.source))
    if wanted.blackhole:
        body += attr(rt.RTA_PRIORITY, names.BLACKHOLE_METRIC)
    body += attr(rt.RTA_TABLE, wanted.table)
    if delete:
        return Message(
            rt.RTM_DELROUTE, 0, body, f"remove route {wanted.destination}", (errno.ESRCH,)
        )
    return Message(
        rt.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"add route {wanted.destination}"
    )


def parse_route(body: bytes, names: Mapping[int, str]) -> tuple[int, Route]:
    """Decode RTM_NEWROUTE into (protocol, route)."""
    _, bits, _, _, table, protocol, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
    attrs = parse_attrs(body, 12)
    table = _number(attrs, rt.RTA_TABLE, table)
    target = _address(attrs, rt.RTA_DST) or "0.0.0.0"
    dev = _number(attrs, rt.RTA_OIF) if kind == rt.RTN_UNICAST else 0
    return protocol, Route(
        destination=f"{target}/{bits}",
        dev=names.get(dev, ""),
        via=_address(attrs, rt.RTA_GATEWAY),
        source=_address(attrs, rt.RTA_PREFSRC),
        table=table,
        blackhole=kind == rt.RTN_BLACKHOLE,
    )


def neighbour(wanted: Neighbour, dev: int, *, delete: bool = False) -> Message:
    """Add or remove a permanent neighbour or FDB entry."""
    family = rt.AF_BRIDGE if wanted.fdb else _family(wanted.address)
    flags = rt.NTF_SELF if wanted.fdb else 0
    body = struct.pack("=BxHiHBB", family, 0, dev, rt.NUD_PERMANENT, flags, 0)
    body += attr(rt.NDA_DST, _packed(wanted.address)) + attr(rt.NDA_LLADDR, mac_bytes(wanted.mac))
    what = f"{'FDB entry' if wanted.fdb else 'neighbour'} {wanted.address}"
    if delete:
        return Message(rt.RTM_DELNEIGH, 0, body, f"remove {what}", (errno.ENOENT,))
    return Message(rt.RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"add {what}")


def parse_neighbour(body: bytes, names: Mapping[int, str]) -> Neighbour | None:
    """Decode RTM_NEWNEIGH; None for an entry that is not permanent or has no address."""
    family, _, dev, state, _, _ = struct.unpack_from("=BxHiHBB", body)
    attrs = parse_attrs(body, 12)
    if not state & rt.NUD_PERMANENT or not attrs.keys() >= {rt.NDA_DST, rt.NDA_LLADDR}:
        return None
    return Neighbour(
        names.get(dev, ""),
        _address(attrs, rt.NDA_DST),
        attrs[rt.NDA_LLADDR].hex(":"),
        fdb=family == rt.AF_BRIDGE,
    )


def rule(wanted: Rule, *, protocol: int, delete: bool = False) -> Message:
    """Add or remove a policy rule."""
    action = rt.FR_ACT_NOP
    if wanted.table or wanted.goto:
        action = rt.FR_ACT_TO_TBL if wanted.table else rt.FR_ACT_GOTO
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, action, 0)
    body += attr(rt.FRA_PRIORITY, wanted.priority) + attr(rt.FRA_PROTOCOL, bytes([protocol]))
    if wanted.mask:
        body += attr(rt.FRA_FWMARK, wanted.mark) + attr(rt.FRA_FWMASK, wanted.mask)
    if wanted.table:
        body += attr(rt.FRA_TABLE, wanted.table)
    if wanted.goto:
        body += attr(rt.FRA_GOTO, wanted.goto)
    if delete:
        return Message(rt.RTM_DELRULE, 0, body, f"remove rule {wanted.priority}", (errno.ENOENT,))
    return Message(
        rt.RTM_NEWRULE,
        NLM_F_CREATE | NLM_F_EXCL,
        body,
        f"add rule {wanted.priority}",
        (errno.EEXIST,),
    )


def parse_rule(body: bytes) -> tuple[int, Rule]:
    """Decode RTM_NEWRULE into (protocol, rule)."""
    attrs = parse_attrs(body, 12)
    protocol = attrs.get(rt.FRA_PROTOCOL, b"\0")[0]
    action = body[7]
    return protocol, Rule(
        priority=_number(attrs, rt.FRA_PRIORITY),
        mark=_number(attrs, rt.FRA_FWMARK),
        mask=_number(attrs, rt.FRA_FWMASK),
        table=_number(attrs, rt.FRA_TABLE) if action == rt.FR_ACT_TO_TBL else 0,
        goto=_number(attrs, rt.FRA_GOTO) if action == rt.FR_ACT_GOTO else 0,
    )
