"""Which endpoints get traffic, and work per service that is done again only for what changed. Pure.

A node may know a thousand services of which one changes. Everything derived
from a service alone (its chain, its names) is computed through
:class:`PerService`, which keeps the result while the service and the readiness
of its local tasks stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.network.wanted import Wanted
    from specs.wire import Endpoint, ServiceEndpoints

T = TypeVar("T")


def usable(wanted: Wanted, endpoint: Endpoint) -> bool:
    """Say whether an endpoint gets traffic.

    The controller's word counts, and for tasks of this node the agent's own as
    well: it knows first when one stopped being ready.
    """
    if not endpoint.ready or endpoint.node != wanted.me.node:
        return endpoint.ready
    return endpoint.task in wanted.assignments and wanted.ready.get(endpoint.task, True)


def of_peers(wanted: Wanted) -> dict[str, tuple[str, ...]]:
    """Return the addresses of the other nodes' tasks that are ready, by node."""
    found: dict[str, set[str]] = {}
    for service in wanted.services.values():
        for one in service.endpoints:
            if one.ready and one.node != wanted.me.node:
                found.setdefault(one.node, set()).add(one.address)
    return {node: tuple(sorted(addresses)) for node, addresses in found.items()}


@dataclass(frozen=True, slots=True)
class Seen:
    """A service as this node sees it: its ready endpoints, and all those of this node."""

    key: str
    service: ServiceEndpoints
    ready: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]


def see(wanted: Wanted, key: str, service: ServiceEndpoints) -> Seen:
    """Return the service as this node sees it.

    Endpoints of peers that cannot be reached are left out, but never the last ones: where they
    are all there is, trying them is better than refusing.
    """
    ready = [endpoint for endpoint in service.endpoints if usable(wanted, endpoint)]
    ready = [e for e in ready if e.node not in wanted.unreachable] or ready
    local = tuple(e for e in service.endpoints if e.node == wanted.me.node)
    return Seen(key, service, tuple(sorted(ready, key=lambda e: (e.address, e.task))), local)


@dataclass(slots=True)
class _Kept(Generic[T]):
    service: ServiceEndpoints
    local: tuple[Endpoint, ...]
    usable: tuple[bool, ...]
    nodes: frozenset[str]
    unreachable: frozenset[str]  # of these nodes
    value: T


class PerService(Generic[T]):
    """The last value of ``compute`` for every service, refreshed as needed."""

    def __init__(self, compute: Callable[[Seen], T]) -> None:
        self._compute = compute
        self._node = ""
        self._kept: dict[str, _Kept[T]] = {}

    def update(self, wanted: Wanted) -> tuple[dict[str, T], set[str]]:
        """Return every service's value, and the keys whose value is new or gone."""
        if wanted.me.node != self._node:
            self._node, self._kept = wanted.me.node, {}
        changed = self._kept.keys() - wanted.services.keys()
        for key in changed:
            del self._kept[key]
        for key, service in wanted.services.items():
            kept = self._kept.get(key)
            if kept is not None and (kept.service is service or kept.service == service):
                now = tuple(usable(wanted, endpoint) for endpoint in kept.local)
                if now == kept.usable and kept.nodes & wanted.unreachable == kept.unreachable:
                    kept.service = service  # the next comparison is by identity again
                    continue
            seen = see(wanted, key, service)
            now = tuple(usable(wanted, endpoint) for endpoint in seen.local)
            nodes = frozenset(endpoint.node for endpoint in service.endpoints)
            lost = nodes & wanted.unreachable
            self._kept[key] = _Kept(service, seen.local, now, nodes, lost, self._compute(seen))
            changed.add(key)
        return {key: kept.value for key, kept in self._kept.items()}, changed
