"""Decide what the resolver knows: names per network and a view per task, as a snapshot. Pure.

agent.network.resolver writes it to a file; agent.dns.zone looks names up in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.dns.zone import TASK_TTL, VIP_TTL
from agent.network.plan import holds_network
from agent.network.rules import ready_endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.network.plan import Wanted
    from specs.wire import Assignment, ServiceEndpoints

Names = dict[str, dict[str, list[Any]]]  # name -> stack -> [addresses, ttl]


def snapshot(wanted: Wanted, upstreams: Sequence[str], *, generation: int) -> dict[str, Any]:
    """Return the resolver's whole knowledge as JSON values."""
    networks: dict[str, dict[str, Any]] = {
        key: {"name": network.name.lower(), "names": {}, "reverse": {}}
        for key, network in sorted(wanted.networks.items())
    }
    for _, service in sorted(wanted.services.items()):
        if service.network in networks:
            _service(wanted, service, networks[service.network])
    return {
        "generation": generation,
        "pools": sorted({wanted.me.cluster_pool, *(n.pool for n in wanted.networks.values())}),
        "networks": networks,
        "views": {
            task: _view(wanted, assignment, upstreams)
            for task, assignment in sorted(wanted.assignments.items())
            if holds_network(assignment) and assignment.spec.network_mode == "overlay"
        },
    }


def _service(wanted: Wanted, service: ServiceEndpoints, network: dict[str, Any]) -> None:
    ready = ready_endpoints(wanted, service)
    addresses = [endpoint.address for endpoint in ready]
    names: Names = network["names"]
    front = [service.vip] if service.vip else addresses
    ttl = VIP_TTL if service.vip else TASK_TTL
    # STACK_SERVICE is how another stack on a shared network names it without doubt.
    for name in (service.service, f"{service.stack}_{service.service}", *service.aliases):
        _add(names, name, service.stack, front, ttl)
    _add(names, f"tasks.{service.service}", service.stack, addresses, TASK_TTL)
    if service.vip:
        network["reverse"][service.vip] = service.service.lower()
    usable = {endpoint.task for endpoint in ready}
    for endpoint in service.endpoints:
        # A task's own name leads to it, ready or not: whoever uses it means this one, and
        # members of a cluster must find each other before any of them is ready.
        for name in (endpoint.name, endpoint.hostname):
            _add(names, name, service.stack, [endpoint.address], TASK_TTL)
        if endpoint.task in usable:
            for name in set(endpoint.aliases) - set(service.aliases):
                _add(names, name, service.stack, [endpoint.address], TASK_TTL)
        network["reverse"][endpoint.address] = endpoint.name.lower()


def _add(names: Names, name: str, stack: str, addresses: Iterable[str], ttl: int) -> None:
    if not name:
        return
    entry = names.setdefault(name.lower().rstrip("."), {}).setdefault(stack, [[], ttl])
    entry[0] += [address for address in addresses if address not in entry[0]]
    entry[1] = min(entry[1], ttl)


def _view(wanted: Wanted, assignment: Assignment, upstreams: Sequence[str]) -> dict[str, Any]:
    places = sorted(assignment.networks, key=lambda place: place.interface)
    known = [wanted.networks[p.network] for p in places if p.network in wanted.networks]
    return {
        "networks": [network.id for network in known],
        "stack": assignment.stack,
        # A container of internal networks only must not get a byte out, not even a question.
        "forward": any(not network.internal for network in known),
        "upstreams": list(assignment.spec.dns or upstreams),
    }
