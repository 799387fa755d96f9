"""Why each node refuses a task, and what would make one admit it: for people who wait.

``filters.sentence`` counts the reasons, which is enough while it may pass;
``orchestrator.control.planning.nowhere`` asks here once it has lasted. The advice is about
the node that is nearest to admitting: the one refused by the latest rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scheduler import constraints
from scheduler.filters import FILTERS, SLACK, first_refusal, lacks, named, port_holder, spare
from scheduler.view import Load
from specs.kit.amounts import size

if TYPE_CHECKING:
    from collections.abc import Callable

    from scheduler.view import Fleet, NodeView, Pending

Words = tuple[str, str]  # what is said behind the node's name, what would help
ADD_NODE = "corral node add USER@HOST"


@dataclass(frozen=True, slots=True)
class NoPlace:
    """``nodes``: a line for each reason, with who has it; both empty where a node admits."""

    nodes: tuple[str, ...] = ()
    hint: str = ""


def no_place(view: Fleet, task: Pending) -> NoPlace:
    """Return why no node takes the task."""
    if not view.nodes:
        return NoPlace(hint=f"there is no node in the cluster: {ADD_NODE}")
    order = {rule.name: place for place, rule in enumerate(FILTERS)}
    reasons: dict[str, list[NodeView]] = {}
    nearest = (-1, "")
    for _, node in sorted(view.nodes.items()):
        load = Load(node)
        rule = first_refusal(task, load)
        if rule is None:
            return NoPlace()
        said, hint = WORDS[rule.name](task, load)
        reasons.setdefault(said, []).append(node)
        if order[rule.name] > nearest[0]:
            nearest = (order[rule.name], hint)
    lines = (f"{named(nodes)}: {said}" for said, nodes in reasons.items())
    return NoPlace(tuple(lines), nearest[1])


def _node(_: Pending, __: Load) -> Words:
    return "is not the node this task belongs to", "look at that node: corral node ls"


def _home(task: Pending, load: Load) -> Words:
    what = next(h.what for h in task.homes if h.node not in (None, load.node.id))
    return f"does not have {what}", "what it needs is on one machine only: make that one a node"


def _ready(_: Pending, load: Load) -> Words:
    node = load.node
    if node.status != "ready":
        why = f" ({node.reason})" if node.reason else ""
        return f"is {node.status}{why}", f"bring {node.name} back: corral node ls"
    word = {"pause": "paused", "drain": "draining"}.get(node.availability, node.availability)
    return f"is {word}", f"corral node activate {node.name}"


def _resources(task: Pending, load: Load) -> Words:
    cpus, memory = spare(task, load)
    parts = []
    if task.memory > memory:
        parts.append(f"memory: {size(max(0, memory))} unreserved, {size(task.memory)} needed")
    if task.cpus - SLACK > cpus:
        parts.append(f"CPUs: {max(0.0, cpus):.3g} unreserved, {task.cpus:g} needed")
    hint = f"lower deploy.resources.reservations of {_name(task)}, or {ADD_NODE}"
    return f"lacks {', '.join(parts)}", hint


def _disk(_: Pending, load: Load) -> Words:
    return "has no room on its disk for it", f"free some on {load.node.name}, or {ADD_NODE}"


def _constraints(task: Pending, load: Load) -> Words:
    broken = constraints.broken(task.constraints, load.node)
    assert broken is not None, "no other rule brought us here"
    said = f"does not satisfy {broken.text.strip()!r} ({_found(broken, load.node)})"
    other = f"change deploy.placement.constraints of {_name(task)}"
    return said, f"{satisfying(broken, load.node)}, or {other}".removeprefix(", or ")


def _found(rule: constraints.Constraint, node: NodeView) -> str:
    found = constraints.value_of(node, rule.key)
    label = constraints.label_of(rule.key)
    if label is not None:
        return f"its label {label} is {found}" if found is not None else f"it has no label {label}"
    return f"its {rule.key.removeprefix('node.')} is {found}"


def satisfying(rule: constraints.Constraint, node: NodeView) -> str:
    """Return the command that makes the node satisfy the rule; empty where labels cannot."""
    label = constraints.label_of(rule.key)
    if label is None:
        return ""
    word = f"{label}-" if rule.operator == "!=" else f"{label}={rule.values[0]}"
    return f"corral node label {node.name} {word}"


def _platform(task: Pending, load: Load) -> Words:
    said = f"is {load.node.os}/{load.node.arch}, not {task.platform}"
    return said, f"add such a machine: {ADD_NODE}"


def _paths(task: Pending, load: Load) -> Words:
    what = lacks(task, load)
    return f"does not have {what}", f"mount or make it on {load.node.name}: {what}"


def _version(task: Pending, load: Load) -> Words:
    words = ", ".join(word for since, word in task.needs if since > load.node.wire)
    said = f"runs an older corral that does not honour {words}"
    return said, f"update corral on {load.node.name}, or do without {words}"


def _ports(task: Pending, load: Load) -> Words:
    hint = f"publish another port of {_name(task)}, free that one, or {ADD_NODE}"
    return f"has {port_holder(task, load)}", hint


def _room(task: Pending, load: Load) -> Words:
    count = load.services.get(task.service, 0)
    said = f"has {count} of {_name(task)} already (max_replicas_per_node: {task.max_per_node})"
    return said, f"raise max_replicas_per_node, ask for fewer replicas, or {ADD_NODE}"


def _name(task: Pending) -> str:
    return task.service.rpartition("/")[2]


WORDS: dict[str, Callable[[Pending, Load], Words]] = {
    "node": _node,
    "home": _home,
    "ready": _ready,
    "resources": _resources,
    "disk": _disk,
    "constraints": _constraints,
    "platform": _platform,
    "paths": _paths,
    "version": _version,
    "ports": _ports,
    "max-replicas": _room,
}
