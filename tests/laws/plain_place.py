"""What ``scheduler.place`` must answer, without its means: every node is asked for every task.

O(tasks x nodes x rules). Only the reading of the rules (``FILTERS``) is shared.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from scheduler.constraints import value_of
from scheduler.filters import FILTERS, first_refusal, sentence
from scheduler.view import Fleet, Load, Pending

CPUS, MEMORY = 0.05, 32 << 20  # what a task that reserves nothing counts as


def share(load: Load) -> int:
    node = load.node
    cpus = max(load.cpus, load.tasks * CPUS) / node.cpus if node.cpus else 1.0
    memory = max(load.memory, load.tasks * MEMORY) / node.memory if node.memory else 0.0
    return int(max(cpus, memory) * 1000)


def score(task: Pending, load: Load, seed: int) -> tuple:
    failures = load.node.failures.get(task.spec_hash, 0)
    missing = 0 if task.image and task.image in load.node.images else 1
    tie = zlib.crc32(f"{seed}/{task.service}/{load.node.id}".encode())
    if task.pack:
        room = 1000 - share(load)
        return (failures, room <= 0, abs(room), missing, -load.tasks, tie)
    return (
        failures,
        load.specs.get(task.spec_hash, 0),
        load.services.get(task.service, 0),
        share(load),
        missing,
        load.tasks,
        tie,
    )


def branch(task: Pending, load: Load) -> list[str]:
    keys = [text.removeprefix("spread:").removeprefix("spread=") for text in task.preferences]
    return [value_of(load.node, key.strip()) or "" for key in keys]


def with_homes(task: Pending, homes: dict[str, str]) -> Pending:
    return replace(
        task, homes=tuple(replace(h, node=h.node or homes.get(h.key)) for h in task.homes)
    )


def order(task: Pending) -> tuple:
    return (
        task.node is None,
        not any(home.node for home in task.homes),
        not task.homes,
        not task.ports,
        not task.constraints,
        -task.memory,
        -task.cpus,
        task.service,
        task.slot,
        task.task,
    )


def choose(task: Pending, loads: list[Load], first: list[Load], seed: int) -> Load | None:
    """Return the node; ``first``: those that no fixed rule refused when the group began."""
    fit = [load for load in loads if first_refusal(task, load) is None]
    if not fit:
        return None
    liked = [load for load in fit if load.node.id == task.prefers]
    if liked and not liked[0].node.failures.get(task.spec_hash, 0):
        return liked[0]

    def of_branches(load: Load) -> list[tuple[int, str]]:
        values = branch(task, load)
        found = []
        for depth, value in enumerate(values, 1):
            alike = [other for other in first if branch(task, other)[:depth] == values[:depth]]
            found.append((sum(n.specs.get(task.spec_hash, 0) for n in alike), value))
        return found

    return min(fit, key=lambda load: (of_branches(load), score(task, load, seed)))


def plain(view: Fleet, pending: list[Pending], seed: int) -> tuple[dict, dict, dict]:
    """Return who is assigned where, why others are not, and the homes that were decided."""
    loads = [Load(node) for _, node in sorted(view.nodes.items())]
    assigned: dict[str, str] = {}
    homes: dict[str, str] = {}
    refused: list[Pending] = []
    groups: dict[object, list[Pending]] = {}
    for task in sorted(pending, key=order):
        groups.setdefault(task.group, []).append(task)
    fixed = [rule for rule in FILTERS if rule.fixed]
    for tasks in groups.values():
        for number, each in enumerate(tasks):
            task = with_homes(each, homes)
            first = [load for load in loads if first_refusal(task, load, fixed) is None]
            load = choose(task, loads, first, seed)
            if load is None:
                refused += tasks[number:]
                break
            load.add(task)
            assigned[task.task] = load.node.id
            homes.update({h.key: load.node.id for h in task.homes if h.node is None})
    return assigned, {task.task: why(with_homes(task, homes), loads) for task in refused}, homes


def why(task: Pending, loads: list[Load]) -> str:
    hit: dict[str, tuple] = {}
    for load in loads:
        rule = first_refusal(task, load)
        assert rule is not None
        hit.setdefault(rule.name, (rule, []))[1].append(load)
    return sentence(task, list(hit.values()), len(loads))
