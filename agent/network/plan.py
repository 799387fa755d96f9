"""Decide what the kernel's links, addresses, routes, neighbours and rules should be. Pure.

agent.network.node hands over the whole wanted state; attach.py and converge.py
make the kernel match what comes out. nftables is rules.py's business, name
resolution agent.dns.zone's.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING

from agent.network import names
from agent.network.objects import Address, Neighbour, Route, Rule
from specs.task import Desired

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from specs.wire import Assignment, NetworkState, NodeSelf, Peer, ServiceEndpoints


@dataclass(frozen=True)
class Wanted:
    """Everything one apply() was given: the only input of every decision."""

    me: NodeSelf
    networks: Mapping[str, NetworkState]
    services: Mapping[str, ServiceEndpoints]
    peers: Mapping[str, Peer]
    assignments: Mapping[str, Assignment]
    ready: Mapping[str, bool]

    @property
    def gateway(self) -> str:
        """Return the address this node shows to containers where it must hide a source.

        A node that is not in an overlay uses the address nobody owns: connection
        tracking translates the answer back before routing looks at it.
        """
        return self.me.overlay or names.GATEWAY


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """One veth of a task. ``default`` = carries the default route."""

    host: str
    name: str
    network: str
    address: str
    mac: str
    mtu: int
    pool: str
    default: bool


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """All links of a task, in interface order."""

    task: str
    links: tuple[LinkPlan, ...]


@dataclass(frozen=True, slots=True)
class VxlanPlan:
    """The node's overlay device."""

    name: str
    mac: str
    local: str
    mtu: int


@dataclass(frozen=True)
class HostPlan:
    """What should be in the node's own namespace, tasks' veths aside."""

    vxlan: VxlanPlan | None
    addresses: frozenset[Address]
    routes: frozenset[Route]
    neighbours: frozenset[Neighbour]
    rules: frozenset[Rule]


# Per-device sysctls of everything we make. Loose reverse path filtering: strict drops external
# clients' packets that entered by another node; replies to 127.0.0.1 need route_localnet.
DEVICE_CONF = {
    "forwarding": 1,
    "accept_redirects": 0,
    "send_redirects": 0,
    "rp_filter": 2,
    "arp_ignore": 1,
    "route_localnet": 1,
}


def task_plan(
    assignment: Assignment, networks: Mapping[str, NetworkState], *, mtu: int
) -> TaskPlan:
    """Return the links of one task; networks the node does not know are left out."""
    links = []
    for place in assignment.networks:
        network = networks.get(place.network)
        if network is None:
            continue
        links.append(
            LinkPlan(
                host=names.veth(assignment.id, place.network),
                name=place.interface,
                network=place.network,
                address=place.address,
                mac=names.task_mac(place.address),
                mtu=min(network.mtu or mtu, mtu),
                pool=str(ip_network(network.pool, strict=False)),
                default=place.gateway and not network.internal,
            )
        )
    return TaskPlan(assignment.id, tuple(sorted(links, key=lambda link: link.name)))


def container_routes(plan: TaskPlan) -> list[Route]:
    """Return the routes inside the container, in the order the kernel needs them.

    One per network with that network's address as source: replies and new
    connections leave by the link whose address they carry. With a default route
    alone, a container of two networks would send with the wrong one and be
    dropped as a forger.
    """
    routes = [
        Route(link.pool, dev=link.name, via=names.GATEWAY, source=link.address)
        for link in plan.links
    ]
    routes += [
        Route("0.0.0.0/0", dev=link.name, via=names.GATEWAY, source=link.address)
        for link in plan.links
        if link.default
    ][:1]
    return routes


def in_overlay(wanted: Wanted) -> bool:
    """Say whether the node has a place in an overlay of several nodes."""
    return bool(wanted.me.overlay and wanted.me.underlay)


def reachable_peers(wanted: Wanted) -> list[Peer]:
    """Return the other members that have both addresses, in a stable order."""
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


def host_plan(wanted: Wanted, *, mtu: int, present: frozenset[str]) -> HostPlan:
    """Return what the node's namespace should hold.

    ``present`` are the host veth ends that exist: only those can carry a task's
    route (attach adds it together with the veth; this keeps it there).
    """
    me = wanted.me
    source = me.overlay if in_overlay(wanted) else ""
    routes = {
        Route(str(ip_network(n.pool, strict=False)), blackhole=True)
        for n in wanted.networks.values()
    }
    neighbours: set[Neighbour] = set()
    for assignment in wanted.assignments.values():
        for link in task_plan(assignment, wanted.networks, mtu=mtu).links:
            if link.host in present:
                routes.add(Route(f"{link.address}/32", dev=link.host, source=source))
                neighbours.add(Neighbour(link.host, link.address, link.mac))
    if not in_overlay(wanted):
        none: frozenset[Rule] = frozenset()
        return HostPlan(None, frozenset(), frozenset(routes), frozenset(neighbours), none)

    rules: set[Rule] = set()
    peers = reachable_peers(wanted)
    for overlay, number in ingress_numbers(peers).items():
        table = names.ROUTE_TABLE_BASE + number
        mark = number << names.INGRESS_SHIFT
        rules.add(Rule(names.RULE_BASE + number, mark, names.INGRESS_MASK, table=table))
        routes.add(Route("0.0.0.0/0", dev=names.VXLAN, via=overlay, table=table))
    if rules:
        rules.add(Rule(names.RULE_SKIP, 0, names.INGRESS_MASK, goto=names.RULE_END))
        rules.add(Rule(names.RULE_END))
    by_node = {peer.node: peer for peer in peers}
    for peer in peers:
        mac = names.overlay_mac(peer.overlay)
        routes.add(Route(f"{peer.overlay}/32", dev=names.VXLAN, source=source))
        neighbours.add(Neighbour(names.VXLAN, peer.overlay, mac))
        neighbours.add(Neighbour(names.VXLAN, peer.underlay, mac, fdb=True))
    for network in wanted.networks.values():
        if network.encrypted:
            continue  # never in the clear: its blackhole route is all it gets here
        for block in network.blocks:
            if block.node in by_node:
                via = by_node[block.node].overlay
                cidr = str(ip_network(block.cidr, strict=False))
                routes.add(Route(cidr, dev=names.VXLAN, via=via, source=source))
    return HostPlan(
        VxlanPlan(names.VXLAN, names.overlay_mac(me.overlay), me.underlay, mtu),
        frozenset({Address(names.VXLAN, f"{me.overlay}/32")}),
        frozenset(routes),
        frozenset(neighbours),
        frozenset(rules),
    )


def holds_network(assignment: Assignment) -> bool:
    """Say whether the task has, or is about to have, something of ours."""
    return assignment.desired is not Desired.REMOVED
