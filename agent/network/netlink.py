"""What the kernel has of devices, addresses, routes, neighbours and rules.

A container's attachment is some twenty kernel objects. Sending each through a
tool costs milliseconds, through a general library hundreds of microseconds;
here a whole attachment is two or three sends of pre-built messages (messages.py)
through agent.linux.netlink. Only agent.network's network thread uses this. It
decides nothing.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from agent.linux import rtnetlink as rt
from agent.linux.netlink import NETLINK_ROUTE, NetlinkSocket, parse_attrs
from agent.network import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.network.objects import Link, Neighbour, Route, Rule


class Netlink(NetlinkSocket):
    """A NETLINK_ROUTE socket of the namespace the calling thread is in when it is made."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def links(self) -> dict[str, Link]:
        """Return all devices by name."""
        found = (messages.parse_link(body) for body in self.dump(rt.RTM_GETLINK, messages.ifinfo()))
        return {link.name: link for link in found}

    def addresses(self) -> list[tuple[int, str]]:
        """Return (interface index, address/bits) of every IPv4 and IPv6 address."""
        found = []
        for body in self.dump(rt.RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
            bits, index = body[1], struct.unpack_from("=i", body, 4)[0]
            attrs = parse_attrs(body, 8)
            raw = attrs.get(rt.IFA_LOCAL) or attrs.get(rt.IFA_ADDRESS)
            if raw:
                found.append((index, f"{ip_address(raw)}/{bits}"))
        return found

    def routes(self, protocol: int, names: Mapping[int, str]) -> set[Route]:
        """Return our IPv4 routes of all tables (the kernel filters by protocol)."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, protocol, 0, 0, 0)
        parsed = (
            messages.parse_route(found, names)
            for found in self.dump(rt.RTM_GETROUTE, body, strict=True)
        )
        return {item for owner, item in parsed if owner == protocol}

    def neighbours(self, names: Mapping[int, str]) -> set[Neighbour]:
        """Return the permanent neighbour and FDB entries of the devices in ``names``."""
        found: set[Neighbour] = set()
        for family in (socket.AF_INET, rt.AF_BRIDGE):
            header = struct.pack("=BxHiHBB", family, 0, 0, 0, 0, 0)
            for body in self.dump(rt.RTM_GETNEIGH, header):
                entry = messages.parse_neighbour(body, names)
                if entry and entry.dev:
                    found.add(entry)
        return found

    def rules(self, protocol: int) -> set[Rule]:
        """Return our IPv4 policy rules."""
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        parsed = (messages.parse_rule(found) for found in self.dump(rt.RTM_GETRULE, body))
        return {item for owner, item in parsed if owner == protocol}
