"""Decide what the kernel's links, addresses, routes, neighbours and rules should be. Pure.

agent.network.node hands over the whole wanted state; attach.py and converge.py
make the kernel match what comes out. nftables is rules.py's business, name
resolution agent.dns.zone's.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from agent.network import names, overlay
from agent.network.objects import LinkAddress, Neighbour, Route, Rule
from agent.network.overlay import VxlanPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.network.wanted import Wanted
    from specs.wire import Assignment, NetworkState


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """One veth of a task. ``default`` = carries the default route."""

    host: str
    name: str
    network: str
    address: str
    mac: str
    mtu: int
    pools: tuple[str, ...]
    default: bool


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """All links of a task, in interface order."""

    task: str
    links: tuple[LinkPlan, ...]


@dataclass(frozen=True)
class HostPlan:
    """What should be in the node's own namespace, tasks' veths aside."""

    vxlan: VxlanPlan | None
    addresses: frozenset[LinkAddress]
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
                pools=tuple(str(ip_network(pool, strict=False)) for pool in network.pools),
                default=place.gateway and not network.internal,
            )
        )
    return TaskPlan(assignment.id, tuple(sorted(links, key=lambda link: link.name)))


def container_routes(plan: TaskPlan) -> list[Route]:
    """Return the routes inside the container, in the order the kernel needs them.

    One per pool of each network with that network's address as source: replies and new
    connections leave by the link whose address they carry. With a default route
    alone, a container of two networks would send with the wrong one and be
    dropped as a forger.
    """
    routes = [
        Route(pool, dev=link.name, via=names.GATEWAY, source=link.address)
        for link in plan.links
        for pool in link.pools
    ]
    routes += [
        Route("0.0.0.0/0", dev=link.name, via=names.GATEWAY, source=link.address)
        for link in plan.links
        if link.default
    ][:1]
    return routes


def host_plan(wanted: Wanted, *, mtu: int, present: frozenset[str]) -> HostPlan:
    """Return what the node's namespace should hold.

    ``present`` are the host veth ends that exist: only those can carry a task's
    route (attach adds it together with the veth; this keeps it there).
    """
    me = wanted.me
    joined = wanted.in_overlay
    pools = [pool for network in wanted.networks.values() for pool in network.pools]
    if me.node:
        # Of networks this node was not told about: never out by the default route.
        pools += me.ranges
    routes = {Route(str(ip_network(pool, strict=False)), blackhole=True) for pool in pools}
    neighbours: set[Neighbour] = set()
    rules: set[Rule] = set()
    for assignment in wanted.assignments.values():
        # Of networks this node is not told about any more, too: the task may still be serving.
        for place in assignment.networks:
            host = names.veth(assignment.id, place.network)
            if host in present:
                source = me.overlay if joined else ""
                routes.add(Route(f"{place.address}/32", dev=host, source=source))
                neighbours.add(Neighbour(host, place.address, names.task_mac(place.address)))
    if joined:
        peers = overlay.reachable_peers(wanted)
        routes |= overlay.routes(wanted, peers)
        neighbours |= overlay.neighbours(peers)
        rules = overlay.rules(peers)
    return HostPlan(
        VxlanPlan(names.VXLAN, names.overlay_mac(me.overlay), me.underlay, mtu) if joined else None,
        frozenset({LinkAddress(names.VXLAN, f"{me.overlay}/32")} if joined else ()),
        frozenset(routes),
        frozenset(neighbours),
        frozenset(rules),
    )
