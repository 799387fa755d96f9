"""What every planning step of one pass gets: the draft, the time, what was observed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.mirror import times
from orchestrator.control.mirror.node_view import availability, node_status, node_view
from specs.ids import new_id
from specs.node import successor

if TYPE_CHECKING:
    import random

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from orchestrator.control.mirror.effective import Specs
    from orchestrator.control.mirror.observed import Observed
    from orchestrator.control.planning.addresses import Addresses
    from scheduler.view import Home, NodeView, Only

log = logging.getLogger(__name__)


def mistake(error: Exception, stack: str) -> str:
    """Return why a task waits that cannot be planned: one bad fact of a stack stops no other.

    What is said of a value (ValueError) is for people; the rest is a mistake of ours, logged.
    """
    if type(error) is ValueError:
        return f"what is stored of it does not fit: {error}; correct the file and run `corral up`"
    log.error("planning failed", extra={"stack": stack}, exc_info=error)
    return (
        f"a mistake of corral ({type(error).__name__}), tried again; the controller's log says more"
    )


def earliest(*times: float | None) -> float | None:
    """Return the first of these times; None stands for "only when something happens"."""
    first: float | None = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What matters of a node for the tasks on it."""

    status: str
    gone: bool  # it left the cluster
    draining: bool
    returning: bool
    returned_at: float

    @property
    def leaves(self) -> bool:
        """Whether what may run elsewhere does not stay with it."""
        return self.draining or self.status == "down"


@dataclass(frozen=True, slots=True)
class BindRuling:
    """What a service's binds ask of a node; ``homes``: where each path's data is (see binds)."""

    ties: tuple[Home, ...] = ()
    only: tuple[Only, ...] = ()
    homes: tuple[tuple[str, str | None], ...] = ()
    waits: str = ""  # why nothing can be said yet


@dataclass
class Pass:
    """One look at the cluster; everything decided in it goes into ``draft``."""

    draft: Draft
    specs: Specs
    observed: Observed
    addresses: Addresses
    rng: random.Random
    now: float  # monotonic
    wall: float
    brake: bool = False  # too many nodes are silent at once: nothing lost is replaced
    notes: list[tuple[str, str, str]] = field(default_factory=list)  # event kind, stack, message
    _views: dict[str, NodeView] = field(default_factory=dict)
    _successors: dict[str, str] = field(default_factory=dict)
    _places: dict[str | None, Whereabouts] = field(default_factory=dict)
    # By the networks of a task, see ``stopping.unheard``.
    least_heard: dict[tuple[str, ...], float] = field(default_factory=dict)
    binds: dict[tuple[object, ...], BindRuling] = field(default_factory=dict)
    followers: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # see pairs
    told: set[str] = field(default_factory=set)  # stacks of which there is news beside records
    _newest: dict[str, float] = field(default_factory=dict)
    cluster: Cluster = field(init=False)  # the draft's; asked for a dozen times for each task

    def __post_init__(self) -> None:
        self.cluster = self.draft.cluster

    def new_id(self, prefix: str) -> str:
        """Return a fresh id."""
        return new_id(prefix, now=self.wall, rng=self.rng)

    def made_at(self, stack: str) -> float:
        """Return when a task that is made now was: later than all that the stack has."""
        newest = self._newest.get(stack)
        if newest is None:
            there = self.draft.tasks(stack).values()
            newest = max((task.created_at for task in there), default=0.0)
        self._newest[stack] = times.later_than(newest, self.wall)
        return self._newest[stack]

    def view(self, node: str | None) -> NodeView | None:
        """Return the node in the scheduler's words, without what is taken of it."""
        if node not in self._views and node in self.cluster.nodes:
            self._views[node] = node_view(self.cluster, self.cluster.nodes[node])
        return self._views.get(node or "")

    def successor(self, node: str) -> str:
        """Return the id of the node that took the place of one that left, or ""."""
        if node not in self._successors:
            found = successor(self.cluster.nodes.values(), node)
            self._successors[node] = found.id if found is not None else ""
        return self._successors[node]

    def node_status(self, node: str | None) -> str:
        """Return ready, unready, unknown or down, see orchestrator.control.mirror.node_view."""
        return node_status(self.cluster, node)

    def place(self, node: str | None) -> Whereabouts:
        """Return what matters of a node for the tasks on it."""
        found = self._places.get(node)
        if found is None:
            record = self.cluster.nodes.get(node) if node is not None else None
            condition = self.cluster.conditions.get(node or "")
            found = self._places[node] = Whereabouts(
                status=node_status(self.cluster, node),
                gone=node is not None and record is None,
                draining=record is not None and availability(record) == "drain",
                returning=condition is not None and condition.returning,
                returned_at=condition.returned_at if condition is not None else 0.0,
            )
        return found
