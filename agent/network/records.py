"""Decide what the resolver knows: names per network and a view per task. Pure.

agent.network.resolver sends it to the dns process, whole or only the changed
services; agent.dns.zone looks names up in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.dns.zone import TASK_TTL, VIP_TTL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.network.endpoints import Seen
    from agent.network.wanted import Wanted
    from specs.wire import Assignment

Names = dict[str, list[Any]]  # name -> [addresses, ttl]


def service_part(seen: Seen) -> dict[str, Any]:
    """Return one service's names on its network."""
    service = seen.service
    addresses = [endpoint.address for endpoint in seen.ready]
    names: Names = {}
    reverse: dict[str, str] = {}
    front = [service.vip] if service.vip else addresses
    ttl = VIP_TTL if service.vip else TASK_TTL
    # STACK_SERVICE is how another stack on a shared network names it without doubt.
    for name in (service.service, f"{service.stack}_{service.service}", *service.aliases):
        _add(names, name, front, ttl)
    _add(names, f"tasks.{service.service}", addresses, TASK_TTL)
    if service.vip:
        reverse[service.vip] = service.service.lower()
    ready = {endpoint.task for endpoint in seen.ready}
    for endpoint in service.endpoints:
        # A task's own name leads to it, ready or not: whoever uses it means this one, and
        # members of a cluster must find each other before any of them is ready.
        for name in (endpoint.name, endpoint.hostname):
            _add(names, name, [endpoint.address], TASK_TTL)
        for name in set(endpoint.aliases) - set(service.aliases):
            _add(names, name, [endpoint.address] if endpoint.task in ready else [], TASK_TTL)
        reverse[endpoint.address] = endpoint.name.lower()
    return {"network": service.network, "stack": service.stack, "names": names, "reverse": reverse}


def _add(names: Names, name: str, addresses: Iterable[str], ttl: int) -> None:
    if not name:
        return
    entry = names.setdefault(name.lower().rstrip("."), [[], ttl])
    entry[0] += [address for address in addresses if address not in entry[0]]
    entry[1] = min(entry[1], ttl)


def snapshot(
    wanted: Wanted, parts: Mapping[str, Mapping[str, Any]], upstreams: Sequence[str]
) -> dict[str, Any]:
    """Return the resolver's whole knowledge as JSON values."""
    return {
        "pools": sorted(
            {*wanted.me.ranges, *(p for n in wanted.networks.values() for p in n.pools)}
        ),
        "networks": {key: network.name.lower() for key, network in wanted.networks.items()},
        "views": {
            task: _view(wanted, assignment, upstreams)
            for task, assignment in sorted(wanted.assignments.items())
            if assignment.spec.network_mode == "overlay"
        },
        "services": parts,
    }


def _view(wanted: Wanted, assignment: Assignment, upstreams: Sequence[str]) -> dict[str, Any]:
    places = sorted(assignment.networks, key=lambda place: place.interface)
    known = [wanted.networks[p.network] for p in places if p.network in wanted.networks]
    return {
        "networks": [network.id for network in known],
        "stack": assignment.stack,
        # A container of internal networks only must not get a byte out, not even a question.
        "forward": any(not network.internal for network in known),
        "upstreams": list(assignment.spec.dns or upstreams),
        **({"links": links} if (links := dict(_links(assignment))) else {}),
    }


def _links(assignment: Assignment) -> Iterable[tuple[str, str]]:
    for alias, name in assignment.spec.links:
        yield alias.lower().rstrip("."), name.lower().rstrip(".")
