"""Decide our nftables ruleset: a base that never changes, and sets, maps and chains that do. Pure.

The base chains only look things up; what a service, task, port or peer adds is
elements, plus one chain for each VIP and published port. So a change costs a
few elements however many services there are. nft.py sends :func:`full` once
and :func:`change` afterwards, each as one transaction. The chains and why they
are in this order: agent/network/README.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from agent.network import names, sharing
from agent.network.chains import base
from agent.network.overlay import ingress_numbers, reachable_peers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.network.endpoints import Seen
    from agent.network.wanted import Wanted
    from specs.stack import Port
    from specs.wire import Assignment

# name -> (key type, flags, data type or "")
SETS: dict[str, tuple[str, str, str]] = {
    "fenced": ("ipv4_addr", "", ""),
    "host_clients": ("ipv4_addr", "", ""),
    "owned": ("ifname . ipv4_addr", "", ""),
    "same_net": ("ipv4_addr . ipv4_addr", "interval", ""),
    "pools": ("ipv4_addr", "interval", ""),
    "egress": ("ipv4_addr", "interval", ""),
    "internal": ("ipv4_addr", "interval", ""),
    "insiders": ("ipv4_addr", "interval", ""),
    "members": ("ipv4_addr", "", ""),
    "peer_underlays": ("ipv4_addr", "", ""),
    "peer_underlays6": ("ipv6_addr", "", ""),
    "peer_overlays": ("ipv4_addr", "", ""),
    "hairpin": ("ipv4_addr . ipv4_addr", "", ""),
    "published": ("inet_proto . inet_service", "", ""),
    "vip_dead": ("ipv4_addr", "", ""),
    "port_dead": ("inet_proto . inet_service", "", ""),
    "port_dead_ip": ("ipv4_addr . inet_proto . inet_service", "", ""),
    "vips": ("ipv4_addr", "", "verdict"),
    "ports": ("inet_proto . inet_service", "", "verdict"),
    "ports_ip": ("ipv4_addr . inet_proto . inet_service", "", "verdict"),
    "hairpin_vip": ("ipv4_addr", "", "ipv4_addr"),
    "ingress": ("ether_addr", "", "mark"),
}


@dataclass(frozen=True)
class PortKey:
    """A published port as a node listens on it."""

    protocol: str
    published: int
    host_ip: str = ""

    def __str__(self) -> str:
        where = f"{self.host_ip}:" if self.host_ip else ""
        return f"{where}{self.published}/{self.protocol}"


@dataclass(frozen=True)
class Ruleset:
    """``sets`` map each element to its data ("" in a plain set); ``chains`` hold rules.

    ``fronts`` repeat where flows may go, for conntrack.py: the backends of each VIP
    ("10.210.0.5") and published port (":53", ":80/tcp").
    """

    base: str
    sets: Mapping[str, Mapping[str, str]]
    chains: Mapping[str, tuple[str, ...]]
    fronts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Target:
    """Where a published port leads: addresses of ready tasks and their port."""

    name: str
    addresses: tuple[str, ...]
    port: int
    places: tuple[str, ...] = ()  # of the round robin, where not all have one; see sharing


@dataclass(frozen=True)
class ServicePart:
    """What one service adds to the ruleset; ``targets`` become ports once all are known."""

    sets: Mapping[str, Mapping[str, str]]
    chains: Mapping[str, tuple[str, ...]]
    targets: tuple[tuple[PortKey, Target], ...]
    fronts: Mapping[str, tuple[str, ...]]


def port_front(port: int, protocol: str) -> str:
    """Return the front that a published port is."""
    return f":{port}" if protocol == "udp" else f":{port}/{protocol}"


def service_part(seen: Seen) -> ServicePart:
    """Return what a service adds: its VIP and where its published ports lead."""
    service = seen.service
    sets: dict[str, dict[str, str]] = {}
    chains: dict[str, tuple[str, ...]] = {}
    addresses = tuple(endpoint.address for endpoint in seen.ready)
    places = sharing.places(seen.ready)
    if service.vip is not None:
        if addresses:
            name = f"vip_{_digest(seen.key)}"
            chains[name] = (f"dnat ip to {_choose(places)}",)
            sets["vips"] = {service.vip: f"goto {name}"}
        else:
            sets["vip_dead"] = {service.vip: ""}
        if seen.local:
            sets["hairpin"] = {f"{e.address} . {e.address}": "" for e in seen.local}
            sets["hairpin_vip"] = {e.address: service.vip for e in seen.local}
    given = [port for port in service.ports if port.published is not None]
    if given:
        sets["published"] = {f"{port.protocol} . {port.published}": "" for port in given}
    targets = tuple(
        (port_key(p), Target(f"{seen.key}/{p.target}/{p.protocol}", addresses, p.target, places))
        for p in given
        if p.mode == "ingress"
    )
    fronts = {service.vip: addresses} if service.vip is not None and addresses else {}
    return ServicePart(sets, chains, targets, fronts)


def port_targets(wanted: Wanted, parts: Mapping[str, ServicePart]) -> dict[PortKey, Target]:
    """Return every port this node should answer on and where it leads.

    Two claims of the same port never reach here together (the controller refuses
    the second); if they did, the first by name would win, always the same one.
    """
    found: dict[PortKey, Target] = {}
    for key in sorted(key for key, part in parts.items() if part.targets):
        for where, target in parts[key].targets:
            found.setdefault(where, target)
    for task, assignment in sorted(wanted.assignments.items()):
        gateway = next((n for n in assignment.networks if n.gateway), None)
        if gateway is None:
            continue
        addresses = (gateway.address,) if wanted.ready.get(task, False) else ()
        for port in assignment.host_ports:
            if port.published is not None:
                name = f"{task}/{port.target}/{port.protocol}"
                other = found.get(port_key(port))
                # While a task is replaced two of them claim its port: it leads to the ready one.
                if other is None or (addresses and not other.addresses):
                    found[port_key(port)] = Target(name, addresses, port.target)
    return found


def port_key(port: Port) -> PortKey:
    """Return where a port is listened on; the wildcard address is the same as none."""
    everywhere = port.host_ip in (None, "", "0.0.0.0")
    return PortKey(port.protocol, port.published or 0, "" if everywhere else str(port.host_ip))


def ruleset(
    wanted: Wanted,
    parts: Mapping[str, ServicePart],
    targets: Mapping[PortKey, Target],
    *,
    withheld: frozenset[PortKey] = frozenset(),
) -> Ruleset:
    """Return the whole ruleset; ``withheld`` ports belong to somebody else on this machine."""
    sets: dict[str, dict[str, str]] = {name: {} for name in SETS}
    chains: dict[str, tuple[str, ...]] = {}
    fronts: dict[str, tuple[str, ...]] = {}
    _networks(wanted, sets)
    chains["zones"] = ()
    _members(wanted, sets, chains)
    _tasks(wanted, sets)
    for part in parts.values():
        for name, elements in part.sets.items():
            sets[name].update(elements)
        chains.update(part.chains)
        fronts.update(part.fronts)
    for where, target in targets.items():
        if where not in withheld:
            _port(where, target, sets, chains)
            if target.addresses:
                front = port_front(where.published, where.protocol)
                fronts[front] = (*fronts.get(front, ()), *target.addresses)
    return Ruleset(base(wanted), sets, chains, fronts)


def _networks(wanted: Wanted, sets: dict[str, dict[str, str]]) -> None:
    pools = {_cidr(one) for one in wanted.me.ranges}
    for network in wanted.networks.values():
        own = [_cidr(pool) for pool in network.pools]
        pools.update(own)
        sets["same_net"].update({f"{one} . {other}": "" for one in own for other in own})
        sets["internal" if network.internal else "egress"].update(dict.fromkeys(own, ""))
    sets["pools"] = dict.fromkeys(pools, "")
    sets["insiders"] = dict.fromkeys({*pools, "127.0.0.0/8"}, "")


def _members(
    wanted: Wanted, sets: dict[str, dict[str, str]], chains: dict[str, tuple[str, ...]]
) -> None:
    underlay = wanted.me.underlay
    if underlay and ":" not in underlay:
        sets["members"][underlay] = ""
        sets["insiders"][underlay] = ""
    if not wanted.in_overlay:
        return
    peers = reachable_peers(wanted)
    numbers = ingress_numbers(peers)
    if numbers:
        zones = ", ".join(f"{names.overlay_mac(o)} : {n}" for o, n in sorted(numbers.items()))
        chains["zones"] = (f"ct original zone set ether saddr map {{ {zones} }}",)
    for peer in peers:
        if ":" in peer.underlay:
            sets["peer_underlays6"][peer.underlay] = ""
        else:
            for name in ("members", "insiders", "peer_underlays"):
                sets[name][peer.underlay] = ""
        sets["peer_overlays"][peer.overlay] = ""
        if peer.overlay in numbers:
            mark = numbers[peer.overlay] << names.INGRESS_SHIFT
            sets["ingress"][names.overlay_mac(peer.overlay)] = f"{mark:#010x}"


def _tasks(wanted: Wanted, sets: dict[str, dict[str, str]]) -> None:
    fenced = {address for network in wanted.networks.values() for address in network.fenced}
    mine = {place.address for one in wanted.assignments.values() for place in one.networks}
    sets["fenced"].update(dict.fromkeys(sorted(fenced - mine), ""))
    for assignment in wanted.assignments.values():
        sets["owned"].update(dict.fromkeys(owned_elements(assignment), ""))
        if any(address == "host-gateway" for _, address in assignment.spec.extra_hosts):
            sets["host_clients"].update({place.address: "" for place in assignment.networks})


def owned_elements(assignment: Assignment) -> list[str]:
    """Return which source addresses the task's links may send with.

    Any of the container's addresses on any of its links: replies leave by the default
    route's link when their destination is in none of its networks.
    """
    return [
        f'"{names.veth(assignment.id, link.network)}" . {place.address}'
        for link in assignment.networks
        for place in assignment.networks
    ]


def _port(
    where: PortKey,
    target: Target,
    sets: dict[str, dict[str, str]],
    chains: dict[str, tuple[str, ...]],
) -> None:
    element = f"{where.protocol} . {where.published}"
    suffix = ""
    if where.host_ip:
        element, suffix = f"{where.host_ip} . {element}", "_ip"
    if not target.addresses:
        sets[f"port_dead{suffix}"][element] = ""
        return
    name = f"pub_{_digest(target.name)}"
    mark = f"ct mark set ct mark | {names.PUBLISHED:#x}"
    goal = f"dnat ip to {_choose(target.places or target.addresses)}:{target.port}"
    chains[name] = (f"meta l4proto {where.protocol} {mark} {goal}",)
    sets[f"ports{suffix}"][element] = f"goto {name}"


def _choose(addresses: Iterable[str]) -> str:
    chosen = list(addresses)
    if len(chosen) == 1:
        return chosen[0]
    places = ", ".join(f"{place} : {address}" for place, address in enumerate(chosen))
    return f"numgen inc mod {len(chosen)} map {{ {places} }}"


def _cidr(text: str) -> str:
    return str(ip_network(text, strict=False))


def _digest(text: str) -> str:
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


# --- text ------------------------------------------------------------------


def full(wanted: Ruleset) -> str:
    """Return one transaction that replaces whatever our table held."""
    lines = [f"table inet {names.TABLE} {{}}", f"delete table inet {names.TABLE}"]
    lines.append(f"table inet {names.TABLE} {{")
    lines += [_declaration(name, wanted.sets.get(name, {})) for name in SETS]
    for name, rules in sorted(wanted.chains.items()):
        lines += [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
    lines += [wanted.base, "}"]
    return "\n".join(lines) + "\n"


def _declaration(name: str, elements: Mapping[str, str]) -> str:
    key, flags, data = SETS[name]
    kind = "map" if data else "set"
    text = f"  {kind} {name} {{\n    type {key}{' : ' + data if data else ''}\n"
    if flags:
        text += f"    flags {flags}\n"
        if " . " not in key:
            text += "    auto-merge\n"
    if elements:
        text += f"    elements = {{ {_elements(elements)} }}\n"
    return text + "  }"


def _elements(elements: Mapping[str, str]) -> str:
    return ", ".join(f"{key} : {data}" if data else key for key, data in sorted(elements.items()))


def change(old: Ruleset, new: Ruleset) -> str:
    """Return the transaction from ``old`` to ``new``; "" when nothing differs.

    Interval sets are refilled whole: they change rarely, and merged intervals
    cannot be taken out one by one. The order is what references demand: chains
    before the elements that lead to them, and gone only after those.
    """
    if old.base != new.base:
        return full(new)
    table = f"inet {names.TABLE}"
    lines = []
    for name, rules in sorted(new.chains.items()):
        if old.chains.get(name) != rules:
            lines += [f"add chain {table} {name}", f"flush chain {table} {name}"]
            lines += [f"add rule {table} {name} {rule}" for rule in rules]
    for name, (_, flags, _) in SETS.items():
        before, after = old.sets.get(name, {}), new.sets.get(name, {})
        if before == after:
            continue
        if flags:
            lines.append(f"flush {_kind(name)} {table} {name}")
            gone: dict[str, str] = {}
            added = dict(after)
        else:
            gone = {key: "" for key in before if after.get(key) != before[key]}
            added = {key: data for key, data in after.items() if before.get(key) != data}
        if gone:
            lines.append(f"delete element {table} {name} {{ {_elements(gone)} }}")
        if added:
            lines.append(f"add element {table} {name} {{ {_elements(added)} }}")
    lines += [f"delete chain {table} {name}" for name in sorted(old.chains.keys() - new.chains)]
    return "\n".join(lines) + "\n" if lines else ""


def _kind(name: str) -> str:
    return "map" if SETS[name][2] else "set"
