"""Which range a network of a file may have: none that means something else to a host. Pure.

A pool is routed into the overlay on every node, so whatever it covers (the hosts' own LAN, a VPN,
another bridge) cannot be reached from there any more. What is wrong everywhere is refused when the
file is read (:func:`reserved`); what a node routes elsewhere, when the release is made, and the
other way round when a machine wants to be a node.
"""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_RESERVED: Final = {
    "0.0.0.0/8": '"this network", which no host can have',
    "127.0.0.0/8": "each machine's own loopback",
    "169.254.0.0/16": "link-local: each link's own, never routed",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved: no host sends there",
}
# Where a free range is looked for, in this order.
_PRIVATE: Final = ("10.99.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16")
_SHORTEST: Final = 16  # no larger range than a /16 is proposed
_TRIES: Final = 4096


class Taken(NamedTuple):
    """A range that is not free, and whose it is: a device, ``eth0``, or words for people."""

    network: IPv4Network
    whose: str


def reserved(text: str) -> str:
    """Return what a subnet means on every machine; "" where it may be a network's."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return ""
    if not isinstance(network, IPv4Network):
        return ""
    if network.prefixlen == 0:
        return "the whole of IPv4"
    for one, meaning in _RESERVED.items():
        if network.overlaps(IPv4Network(one)):
            return f"{meaning} ({one})" if str(network) != one else meaning
    return ""


def routes(table: str) -> list[Taken]:
    """Return the networks in the text of /proc/net/route, defaults too, and their devices.

    Addresses and masks are hexadecimal, little-endian (proc(5)).
    """
    found = []
    for line in table.splitlines()[1:]:
        device, target, *rest = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(n), "little") for n in (target, rest[5]))
        found.append(Taken(IPv4Network((address, mask.bit_count()), strict=False), device))
    return found


def route(text: str) -> Taken | None:
    """Read one of ``NodeFacts.routes``; None for what says nothing (a default route)."""
    target, _, device = text.partition(" ")
    try:
        network = IPv4Network(target)
    except ValueError:
        return None
    return Taken(network, device) if network.prefixlen else None


def hit(subnet: IPv4Network, taken: Iterable[Taken]) -> Taken | None:
    """Return the first of what is taken that the subnet overlaps."""
    return next((one for one in taken if subnet.overlaps(one.network)), None)


def free(like: IPv4Network, taken: Iterable[Taken]) -> str:
    """Return a private range of that size which overlaps nothing; "" where none was found."""
    held = [one.network for one in taken]
    size = max(like.prefixlen, _SHORTEST)
    for private in _PRIVATE:
        for number, found in enumerate(IPv4Network(private).subnets(new_prefix=size)):
            if number == _TRIES:
                break
            if not any(found.overlaps(other) for other in held):
                return str(found)
    return ""
