"""Decide where pending tasks go, and say why some go nowhere.

``place`` is called by ``orchestrator.control.planning.placement`` on every pass that has
tasks without a node. Tasks of one group (same spec) are placed together: the
filters look at every node once a group, and a heap gives the next best node, so
a group costs O(nodes + tasks log nodes).

Laws, held by tests/laws: never over-commits, never breaks a hard rule, does
nothing when nothing is pending, same input and seed give the same answer, the
order of the input does not matter, spreads evenly among equals.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scheduler.constraints import value_of
from scheduler.filters import FILTERS, Filter, applying, explain, first_refusal
from scheduler.scores import Score, score
from scheduler.steps import whole
from scheduler.view import Fleet, Load, Pending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.steps import Steps

NODES = 4  # to look at so many costs as much as one replica
_DYNAMIC = tuple(rule for rule in FILTERS if not rule.fixed)


@dataclass(frozen=True, slots=True)
class Placed:
    """``assigned`` task -> node id; ``refused`` task -> the sentence; ``homes`` key -> node."""

    assigned: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Branch:
    """One value of a spread preference: branches below, or a heap of nodes at the leaf."""

    tasks: int = 0
    below: dict[str, _Branch] = field(default_factory=dict)
    heap: list[tuple[Score, str]] = field(default_factory=list)
    full: bool = False


def place(view: Fleet, pending: Sequence[Pending], seed: int = 0) -> Placed:
    """Return a node, or the reason for none, for every pending task."""
    return whole(place_in_steps(view, pending, seed))


def place_in_steps(view: Fleet, pending: Sequence[Pending], seed: int = 0) -> Steps[Placed]:
    """Decide the same in steps: a group of tasks is one, and so are the nodes' counts."""
    result = Placed()
    loads = {node_id: Load(node) for node_id, node in sorted(view.nodes.items())}
    groups: dict[tuple[object, ...], list[Pending]] = {}
    for task in sorted(pending, key=_order):
        groups.setdefault(task.group, []).append(task)
    yield len(loads) // NODES + len(pending) // 4
    for tasks in groups.values():
        _place_group(loads, tasks, seed, result)
        yield len(loads) // NODES + len(tasks)
    return result


def _order(task: Pending) -> tuple[object, ...]:
    """Return the order of placing: what has the least choice goes first, then big before small."""
    decided = any(home.node is not None for home in task.homes)
    return (
        task.node is None,
        not decided,
        not task.homes,
        not task.ports,
        not task.constraints,
        -task.memory,
        -task.cpus,
        task.service,
        task.slot,
        task.task,
    )


def _place_group(loads: dict[str, Load], tasks: list[Pending], seed: int, out: Placed) -> None:
    queue = tasks
    while queue:
        # Earlier placements may have decided homes this group shares.
        first = _with_homes(queue[0], out)
        placed = _fill(loads, [first, *queue[1:]], seed, out)
        queue = queue[placed:]
        if not queue:
            return
        undecided = any(home.node is None and home.key in out.homes for home in first.homes)
        if placed and undecided:
            continue  # the first one decided the home: the rest follows it
        sentence = explain(_with_homes(queue[0], out), list(loads.values()))
        out.refused.update({task.task: sentence for task in queue})
        return


def _with_homes(task: Pending, out: Placed) -> Pending:
    if all(home.node is not None or home.key not in out.homes for home in task.homes):
        return task
    homes = tuple(replace(h, node=h.node or out.homes.get(h.key)) for h in task.homes)
    return replace(task, homes=homes)


def _fill(loads: dict[str, Load], tasks: list[Pending], seed: int, out: Placed) -> int:
    """Place tasks of one group from the front; return how many found a node."""
    sample = tasks[0]
    preferred = _preferred(loads, sample)
    root = _tree(preferred or loads, sample, seed)
    one_only = any(home.node is None for home in sample.homes)
    for count, task in enumerate(tasks):
        if one_only and count:
            return count
        node_id = _take(root, loads, sample, seed)
        if node_id is None and preferred:
            preferred, root = {}, _tree(loads, sample, seed)
            node_id = _take(root, loads, sample, seed)
        if node_id is None:
            return count
        loads[node_id].add(sample)
        out.assigned[task.task] = node_id
        for home in sample.homes:
            if home.node is None:
                out.homes[home.key] = node_id
    return len(tasks)


def _preferred(loads: dict[str, Load], sample: Pending) -> dict[str, Load]:
    """Return the node that has what the task's slot left, unless its spec kept failing there.

    Before all scores and spread preferences: data is worth more than an even load.
    """
    load = loads.get(sample.prefers or "")
    if load is None or load.node.failures.get(sample.spec_hash, 0):
        return {}
    return {load.node.id: load}


def _tree(loads: dict[str, Load], sample: Pending, seed: int) -> _Branch:
    """Sort the nodes that admit the task into the branches of its preferences."""
    root = _Branch()
    keys = [_descriptor(text) for text in sample.preferences]
    rules = applying(sample)
    for node_id, load in loads.items():
        if not all(rule.admits(sample, load) for rule in rules):
            continue
        branch, count = root, load.specs.get(sample.spec_hash, 0)
        branch.tasks += count
        for key in keys:
            branch = branch.below.setdefault(value_of(load.node, key) or "", _Branch())
            branch.tasks += count
        branch.heap.append((score(sample, load, seed), node_id))
    _heapify(root)
    return root


def _descriptor(text: str) -> str:
    """Return the key of a preference: Compose writes ``spread: node.labels.zone``."""
    return text.removeprefix("spread:").removeprefix("spread=").strip()


def _heapify(branch: _Branch) -> None:
    heapq.heapify(branch.heap)
    for below in branch.below.values():
        _heapify(below)


def _take(branch: _Branch, loads: dict[str, Load], sample: Pending, seed: int) -> str | None:
    """Take the best node of the emptiest branch, or None when the branch is full."""
    if branch.full:
        return None
    found: str | None = None
    if branch.below:
        for below in sorted(branch.below.items(), key=lambda item: (item[1].tasks, item[0])):
            found = _take(below[1], loads, sample, seed)
            if found is not None:
                break
    else:
        found = _take_leaf(branch, loads, sample, seed)
    if found is None:
        branch.full = True
    else:
        branch.tasks += 1
    return found


def _take_leaf(branch: _Branch, loads: dict[str, Load], sample: Pending, seed: int) -> str | None:
    while branch.heap:
        known, node_id = branch.heap[0]
        load = loads[node_id]
        if first_refusal(sample, load, _DYNAMIC) is not None:
            heapq.heappop(branch.heap)
            continue
        now = score(sample, load, seed)
        if now != known:
            # It got a task since it was scored; scores only grow, so this is safe.
            heapq.heapreplace(branch.heap, (now, node_id))
            continue
        return node_id
    return None


__all__ = ["Filter", "Placed", "place"]
