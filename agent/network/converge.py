"""Compare the node's own namespace with the host plan and send the difference. Network thread.

Only objects that carry our mark are looked at: routes and rules of our
protocol number, entries on our devices. Additions go before removals, so that
a peer's route is never missing while its block list changes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from agent.linux import rtnetlink as rt
from agent.network import messages, names, netlink
from agent.network.plan import DEVICE_CONF, HostPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.linux.netlink import Message
    from agent.network.objects import Link
    from agent.network.overlay import VxlanPlan


@dataclass(frozen=True, slots=True)
class KernelState:
    """What one look at the kernel gave."""

    links: Mapping[str, Link]
    addresses: frozenset[tuple[str, str]]


def look(host: netlink.Netlink) -> KernelState:
    """Return the devices and addresses of the node."""
    links = host.links()
    by_index = {link.index: name for name, link in links.items()}
    addresses = frozenset((by_index.get(i, ""), cidr) for i, cidr in host.addresses())
    return KernelState(links, addresses)


def has_address(found: KernelState, address: str) -> bool:
    """Say whether a device of the node has the address."""
    return any(cidr.partition("/")[0] == address for _, cidr in found.addresses)


def underlay_mtu(found: KernelState, underlay: str) -> int:
    """Return the MTU of the device that holds the underlay address (1500 if none does)."""
    for dev, cidr in found.addresses:
        if underlay and cidr.partition("/")[0] == underlay and dev in found.links:
            return found.links[dev].mtu
    physical = [
        link.mtu
        for link in found.links.values()
        if link.up
        and link.name != "lo"
        and not link.name.startswith(names.DEVICES)
        and link.mtu >= 1280
    ]
    return min([1500, *physical])


def veths(found: KernelState) -> frozenset[str]:
    """Return the host ends of tasks' links that are there and up."""
    return frozenset(
        name for name, link in found.links.items() if name.startswith(names.VETH_PREFIX) and link.up
    )


def converge(plan: HostPlan, found: KernelState, host: netlink.Netlink) -> list[str]:
    """Make the kernel match; return one line for each thing that had to be put right."""
    changed = _device(plan, found, host)
    if changed:
        found = look(host)
    by_index = {link.index: name for name, link in found.links.items()}
    index = {name: link.index for name, link in found.links.items()}
    mine = {
        number: name
        for number, name in by_index.items()
        if name == names.VXLAN or name.startswith(names.VETH_PREFIX)
    }
    batch: list[Message] = []
    have_addresses = {cidr for dev, cidr in found.addresses if dev == names.VXLAN}
    want_addresses = {a.cidr for a in plan.addresses}
    batch += [
        messages.address(index[names.VXLAN], c) for c in sorted(want_addresses - have_addresses)
    ]
    have_rules = host.rules(names.PROTOCOL)
    have_routes = host.routes(names.PROTOCOL, by_index)
    have_neighbours = host.neighbours(mine)
    key = repr  # any stable order: batches must not depend on set iteration
    for neighbour in sorted(plan.neighbours - have_neighbours, key=key):
        batch.append(messages.neighbour(neighbour, index[neighbour.dev]))
    # A gateway must be reachable before routes through it: link routes first.
    for route in sorted(plan.routes - have_routes, key=lambda r: (bool(r.via), repr(r))):
        dev = index[route.dev] if route.dev else 0
        batch.append(messages.route(route, dev, protocol=names.PROTOCOL))
    for rule in sorted(plan.rules - have_rules, key=lambda r: -r.priority):
        batch.append(messages.rule(rule, protocol=names.PROTOCOL))
    for rule in sorted(have_rules - plan.rules, key=key):
        batch.append(messages.rule(rule, protocol=names.PROTOCOL, delete=True))
    wanted_places = {(r.destination, r.table) for r in plan.routes}
    for route in sorted(have_routes - plan.routes, key=key):
        if (route.destination, route.table) in wanted_places:
            continue  # NLM_F_REPLACE took its place already
        dev = index.get(route.dev, 0)
        batch.append(messages.route(route, dev, protocol=names.PROTOCOL, delete=True))
    for neighbour in sorted(have_neighbours - plan.neighbours, key=key):
        batch.append(messages.neighbour(neighbour, index[neighbour.dev], delete=True))
    batch += [
        messages.address(index[names.VXLAN], cidr, delete=True)
        for cidr in sorted(have_addresses - want_addresses)
        if names.VXLAN in index and ":" not in cidr
    ]
    host.run(batch)
    return changed + [message.what for message in batch]


def _device(plan: HostPlan, found: KernelState, host: netlink.Netlink) -> list[str]:
    """Make, remake or remove the VXLAN device."""
    link = found.links.get(names.VXLAN)
    if plan.vxlan is None:
        if link is None:
            return []
        host.run([messages.delete_link(names.VXLAN)])
        return [f"remove {names.VXLAN}"]
    if link is not None and _same(plan.vxlan, link):
        batch = []
        if link.conf != link.conf | DEVICE_CONF or link.mtu != plan.vxlan.mtu:
            batch.append(messages.configure(link.name, DEVICE_CONF, mtu=plan.vxlan.mtu))
            batch.append(messages.silent(link.name))
        if not link.up:
            batch.append(messages.up(link.name))
        host.run(batch)
        return [message.what for message in batch]
    host.run(
        [
            messages.delete_link(names.VXLAN),
            messages.vxlan(
                name=names.VXLAN,
                mac=plan.vxlan.mac,
                mtu=plan.vxlan.mtu,
                vni=names.VNI,
                local=plan.vxlan.local,
                port=names.VXLAN_PORT,
            ),
            messages.configure(names.VXLAN, DEVICE_CONF, alias="corral overlay"),
            messages.silent(names.VXLAN),
            messages.up(names.VXLAN),
        ]
    )
    return [f"make {names.VXLAN}"]


def _same(plan: VxlanPlan, link: Link) -> bool:
    local = ip_address(plan.local)
    return (
        link.kind == "vxlan"
        and link.mac == plan.mac
        and link.data.get(rt.IFLA_VXLAN_ID) == struct.pack("=I", names.VNI)
        and link.data.get(messages.vxlan_local(plan.local)) == local.packed
        and link.data.get(rt.IFLA_VXLAN_LEARNING) == b"\0"
    )
