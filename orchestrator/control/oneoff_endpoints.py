"""How others reach a one-off: by its own name, and as its service where it was asked so.

And what a spec says of that on one network, which ``endpoints`` asks of services, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.effective import gateway_key, of_oneoff
from orchestrator.control.mirror.serving import SHOWN, is_leaving
from specs.wire import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.mirror.records import NetworkRecord
    from specs.oneoff import OneOff
    from specs.stack import Port
    from specs.wire import ServiceEndpoints

    NetworkOf = Callable[[Effective, str], NetworkRecord | None]


def joined(
    service: ServiceEndpoints, found: Iterable[OneOff], network_of: NetworkOf
) -> ServiceEndpoints:
    """Return a service with the one-offs that are it, or stand beside its tasks."""
    endpoints, aliases, ports = list(service.endpoints), set(service.aliases), service.ports
    for one in found:
        task, effective = one.task, of_oneoff(one)
        if is_leaving(task) or task.state not in SHOWN:
            continue
        own = service.service == task.name
        names = () if own else aliases_on(effective, service.network, network_of)
        aliases.update(names)
        endpoints.append(
            Endpoint(
                task=one.id,
                name=task.name,
                node=task.node or "",
                address=one.addresses[service.network],
                ready=task.status.ready,
                aliases=names,
                hostname=effective.task.hostname or "",
            )
        )
        through = ports_through(effective, service.network, network_of) if own else None
        ports = ports if through is None else through
    update = {"endpoints": tuple(endpoints), "aliases": tuple(sorted(aliases)), "ports": ports}
    return service.model_copy(update=update)


def aliases_on(effective: Effective, network: str, network_of: NetworkOf) -> tuple[str, ...]:
    """Return what tasks of the spec are called on a network besides their names."""
    found: tuple[str, ...] = ()
    for attachment in effective.task.networks:
        record = network_of(effective, attachment.network)
        if record is not None and record.id == network:
            found = attachment.aliases
    return found


def ports_through(
    effective: Effective, network: str, network_of: NetworkOf
) -> tuple[Port, ...] | None:
    """Return what is published through a network; None where another one is the way in."""
    gateway = gateway_key(effective)
    record = network_of(effective, gateway) if gateway is not None else None
    if record is None or record.id != network:
        return None
    return tuple(p for p in effective.task.ports if p.mode == "ingress")
