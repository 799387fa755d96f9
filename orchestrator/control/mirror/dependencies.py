"""``depends_on`` as a graph: order, parallel generations, who waits for whom.

networkx does the graph work, and is loaded with the first graph: it costs a starting controller
0.1 s and 12 MB. Edges point from a dependency to its dependent, so
a topological order is the order of starting. Pure; services.py and removal.py ask.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from specs.stack import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from specs.stack import Dependency, ServiceSpec, StackSpec

_WORDS = {
    Condition.STARTED: "to start",
    Condition.HEALTHY: "to be healthy",
    Condition.COMPLETED: "to complete",
}


class Cycle(ValueError):
    """The dependencies form a ring; ``path`` walks it and ends where it began."""

    def __init__(self, path: list[str]) -> None:
        self.path = path
        super().__init__("services depend on each other in a ring: " + " -> ".join(path))


class Dependencies:
    """The dependency graph of one spec."""

    def __init__(self, spec: StackSpec) -> None:
        import networkx as nx  # noqa: PLC0415 - see the module docstring

        self.spec = spec
        self.graph: nx.DiGraph[str] = nx.DiGraph()
        self.graph.add_nodes_from(sorted(spec.services))
        for name, service in spec.services.items():
            for other in service.depends_on:
                if other in spec.services:
                    self.graph.add_edge(other, name)
        try:
            ring = nx.find_cycle(self.graph)
        except nx.NetworkXNoCycle:
            pass
        else:
            # Read against the edges: "web -> db" means web depends on db.
            path = [edge[0] for edge in ring]
            raise Cycle([*reversed(path), path[-1]])
        self.generations: tuple[tuple[str, ...], ...] = tuple(
            tuple(sorted(level)) for level in nx.topological_generations(self.graph)
        )

    @property
    def order(self) -> tuple[str, ...]:
        """Return services so that each comes after what it depends on."""
        return tuple(name for level in self.generations for name in level)

    def all_dependents(self, services: Iterable[str]) -> set[str]:
        """Return every service that depends on one of these, directly or not."""
        import networkx as nx  # noqa: PLC0415 - see the module docstring

        found: set[str] = set()
        for name in services:
            if name in self.graph:
                found |= nx.descendants(self.graph, name)
        return found

    def closure(self, services: Iterable[str]) -> set[str]:
        """Return the services and everything they depend on."""
        import networkx as nx  # noqa: PLC0415 - see the module docstring

        found = set(services)
        for name in tuple(found):
            if name in self.graph:
                found |= nx.ancestors(self.graph, name)
        return found

    def may_stop(self, service: str, gone: Callable[[str], bool]) -> bool:
        """Say whether all that depends on the service is gone: the reverse order of stopping."""
        # Indirect ones too: a completed one-off in between is gone already and holds nobody.
        return all(gone(name) for name in self.all_dependents([service]))


def edge_words(name: str, edge: Dependency) -> str:
    """Return what an edge waits for: "db to be healthy"."""
    return f"{name} {_WORDS[edge.condition]}"


def waits_for(service: ServiceSpec, services: Container[str]) -> tuple[str, ...]:
    """Return what a start of the service waits for, of these services."""
    return tuple(
        edge_words(name, edge)
        for name, edge in sorted(service.depends_on.items())
        if name in services
    )


class _Held:
    """Keeps a spec alive as long as its graph is cached, so that its id stays its own."""

    def __init__(self, spec: StackSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.spec is self.spec


@lru_cache(maxsize=64)
def _cached(held: _Held) -> Dependencies:
    return Dependencies(held.spec)


def dependencies_of(spec: StackSpec) -> Dependencies:
    """Return the graph of a spec, computed once per spec object."""
    return _cached(_Held(spec))
