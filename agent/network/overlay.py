"""Decide how nodes reach each other: one VXLAN device each, and nothing learned. Pure.

Every peer's MAC is computed from its overlay address and its VXLAN end is told
by the controller, so there is no ARP, no broadcast and no gossip between hosts.
Part of plan.py's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING

from agent.network import names
from agent.network.objects import Neighbour, Route, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.network.wanted import Wanted
    from specs.wire import Peer


@dataclass(frozen=True, slots=True)
class VxlanPlan:
    """The node's overlay device."""

    name: str
    mac: str
    local: str
    mtu: int


def reachable_peers(wanted: Wanted) -> list[Peer]:
    """Return the other members that have both addresses, in a stable order.

    Nobody, where this node takes no part in the overlay itself.
    """
    if not wanted.in_overlay:
        return []
    return sorted(
        (
            peer
            for peer in wanted.peers.values()
            if peer.node != wanted.me.node and peer.underlay and peer.overlay
        ),
        key=lambda peer: (IPv4Address(peer.overlay), peer.node),
    )


def ingress_numbers(peers: Iterable[Peer]) -> dict[str, int]:
    """Return a number 1..1023 for each peer's overlay address, for the mark's ingress bits.

    The low bits of the address, so that a number does not change while other nodes
    come and go (it lives in connections' marks); the next free one on a collision.
    """
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for peer in peers:
        number = int(IPv4Address(peer.overlay)) & names.MAX_INGRESS
        for step in range(names.MAX_INGRESS + 1):
            candidate = (number + step) & names.MAX_INGRESS
            if candidate and candidate not in taken:
                taken.add(candidate)
                numbers[peer.overlay] = candidate
                break
    return numbers


def overlay_mtu(underlay: str, underlay_mtu: int) -> int:
    """Return the largest packet the overlay carries without fragments."""
    version = ip_address(underlay).version if underlay else 4
    return underlay_mtu - names.VXLAN_OVERHEAD[version]


def smallest_mtu(underlay_mtu: int, peers: Iterable[Peer]) -> int:
    """Return the smallest MTU of the members' devices: what all of them can take.

    One so small that its node cannot take part (it says so itself) does not count.
    """
    told = [peer.mtu for peer in peers]
    least = names.SMALLEST_MTU + max(names.VXLAN_OVERHEAD.values())
    return min([underlay_mtu, *(mtu for mtu in told if mtu >= least)])


def unfit(wanted: Wanted, *, mtu: int, present: bool) -> str:
    """Return why this node cannot take part in its overlay, and what would help; "" if it can.

    ``mtu`` is the overlay's, ``present`` says whether the node has its underlay address.
    """
    underlay = wanted.me.underlay
    if not wanted.in_overlay:
        return ""
    if not present:
        return (
            f"this machine does not have {underlay}, the address other nodes reach it by; "
            f"give it back, or name another: corral node set {wanted.me.name} --underlay-addr ADDR"
        )
    if mtu < names.SMALLEST_MTU:
        least = names.SMALLEST_MTU + names.VXLAN_OVERHEAD[ip_address(underlay).version]
        have = mtu + names.VXLAN_OVERHEAD[ip_address(underlay).version]
        return (
            f"the MTU of the device with {underlay} is {have}; the overlay needs {least} at least"
        )
    return ""


def routes(wanted: Wanted, peers: Iterable[Peer]) -> set[Route]:
    """Return the routes to peers, to their blocks, and back to where clients came in."""
    source = wanted.me.overlay
    by_node = {peer.node: peer.overlay for peer in peers}
    found = {Route(f"{overlay}/32", dev=names.VXLAN, source=source) for overlay in by_node.values()}
    for network in wanted.networks.values():
        if network.encrypted:
            continue  # never in the clear: its blackhole route is all it gets here
        for block in network.blocks:
            if block.node in by_node:
                cidr = str(ip_network(block.cidr, strict=False))
                found.add(Route(cidr, dev=names.VXLAN, via=by_node[block.node], source=source))
    for overlay, number in ingress_numbers(peers).items():
        table = names.ROUTE_TABLE_BASE + number
        found.add(Route("0.0.0.0/0", dev=names.VXLAN, via=overlay, table=table))
    return found


def neighbours(peers: Iterable[Peer]) -> set[Neighbour]:
    """Return each peer's MAC and the VXLAN end behind it."""
    found = set()
    for peer in peers:
        mac = names.overlay_mac(peer.overlay)
        found.add(Neighbour(names.VXLAN, peer.overlay, mac))
        found.add(Neighbour(names.VXLAN, peer.underlay, mac, fdb=True))
    return found


def rules(peers: Iterable[Peer]) -> set[Rule]:
    """Return the policy rules that send marked replies back through the peer they came by."""
    found = {
        Rule(
            names.RULE_BASE + number,
            number << names.INGRESS_SHIFT,
            names.INGRESS_MASK,
            table=names.ROUTE_TABLE_BASE + number,
        )
        for number in ingress_numbers(peers).values()
    }
    if found:
        found.add(Rule(names.RULE_SKIP, 0, names.INGRESS_MASK, goto=names.RULE_END))
        found.add(Rule(names.RULE_END))
    return found
