"""Which tasks would go elsewhere so that each service is spread evenly again: a plan, bounded.

For after a node joined or came back: nothing moves by itself then. A move is start-first: its new
node has room beside all that is there, and the room it leaves counts as taken until it is over. A
task goes only where that makes its service's spread better: over the branches of its preferences,
then over nodes. What is tied to its node, packed, mid-update or not heard stays.

Laws (tests/laws/test_rebalance.py): at most ``most`` moves, no task twice, none that is tied; hard
rules hold after every prefix of the plan; each move makes the spread better; what was planned
leaves nothing to plan; equal nodes end with counts that differ by at most one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scheduler.constraints import value_of
from scheduler.displaced import held
from scheduler.place import descriptor, place
from scheduler.view import Fleet, Load, NodeUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scheduler.displaced import Settled
    from scheduler.view import NodeView


@dataclass(frozen=True, slots=True)
class Removal:
    """One move: ``task`` (its id) from one node (its id) to another."""

    task: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """``moves`` in order; ``stays``: task -> why it does not go, though its node has too many."""

    moves: tuple[Removal, ...] = ()
    stays: Mapping[str, str] = field(default_factory=dict)


class _Counts:
    """Where the tasks of one service are: by node, and by branch of its preferences."""

    def __init__(self, nodes: Mapping[str, NodeView], keys: Sequence[str]) -> None:
        self._paths = {
            name: tuple(value_of(node, key) or "" for key in keys) for name, node in nodes.items()
        }
        self.nodes: Counter[str] = Counter()
        self._branches: Counter[tuple[str, ...]] = Counter()

    def add(self, node: str, count: int) -> None:
        """Count tasks on a node; negative ones are gone."""
        self.nodes[node] += count
        path = self._paths[node]
        for depth in range(1, len(path) + 1):
            self._branches[path[:depth]] += count

    def better(self, source: str, target: str) -> bool:
        """Say whether a task less on the one and more on the other is a more even spread."""
        here, there = self._paths[source], self._paths[target]
        for depth in range(1, len(here) + 1):
            if here[:depth] != there[:depth]:
                return self._branches[here[:depth]] - self._branches[there[:depth]] > 1
        return self.nodes[source] - self.nodes[target] > 1


def rebalance(
    view: Fleet, tasks: Iterable[Settled], *, most: int, brake: bool = False
) -> Rebalanced:
    """Return at most so many moves; ``tasks``: those that run and are to stay, of any services."""
    services: dict[str, list[Settled]] = {}
    for task in tasks:
        if task.node in view.nodes and not task.wants.pack and task.wants.node is None:
            services.setdefault(task.wants.service, []).append(task)
    nodes = dict(view.nodes)
    moves: list[Removal] = []
    stays: dict[str, str] = {}
    for _, some in sorted(services.items()):
        if len({task.wants.spec_hash for task in some}) > 1:
            continue  # an update is on its way, and spreads what it makes
        _one_service(nodes, some, moves, stays, most=most, brake=brake)
    return Rebalanced(tuple(moves), stays)


def _one_service(
    nodes: dict[str, NodeView],
    tasks: list[Settled],
    moves: list[Removal],
    stays: dict[str, str],
    *,
    most: int,
    brake: bool,
) -> None:
    keys = [descriptor(text) for text in tasks[0].wants.preferences]
    counts = _Counts(nodes, keys)
    for task in tasks:
        counts.add(task.node, 1)
    # The slot that came last goes first; one that cannot go is not looked at again.
    left = sorted(tasks, key=lambda task: (task.wants.slot, task.wants.task))
    while left and len(moves) < most:
        task = max(left, key=lambda task: (counts.nodes[task.node], task.wants.slot))
        left.remove(task)
        better = {n: node for n, node in nodes.items() if counts.better(task.node, n)}
        if not better:
            continue
        name = task.wants.task
        why = held(task, nodes[task.node], brake=brake)
        if why is not None:
            stays[name] = why.reason
            continue
        found = place(Fleet(better), [replace(task.wants, instead_of=None, prefers=None)])
        target = found.assigned.get(name)
        if target is None:
            stays[name] = found.refused[name]
            continue
        moves.append(Removal(name, task.node, target))
        counts.add(task.node, -1)
        counts.add(target, 1)
        nodes[target] = _with(nodes[target], task)


def _with(node: NodeView, task: Settled) -> NodeView:
    load = Load(node)
    load.add(task.wants)
    use = NodeUse(load.cpus, load.memory, load.tasks, load.services, load.specs, load.ports)
    return replace(node, use=use)
