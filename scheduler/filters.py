"""Hard rules: may this task run on this node, and if on none, why not.

Each filter says whether it applies to a task at all, whether it admits a node,
and explains a refusal in words that name counts and nodes. ``scheduler.place``
asks them in the order of ``FILTERS`` and stops at a node's first refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scheduler import constraints
from specs.kit.amounts import size, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scheduler.view import Load, NodeView, Pending

RESERVED_PORTS = frozenset({"22/tcp", "4789/udp"})  # sshd's and VXLAN's
SLACK = 0.001  # of a core: sums of decimal fractions are not exact
SHOWN = 3  # nodes named in a sentence before it says how many more


@dataclass(frozen=True, slots=True)
class Filter:
    """One hard rule.

    ``fixed`` rules do not depend on what is being placed right now, so a node that
    passed once need not be asked again.
    """

    name: str
    applies: Callable[[Pending], bool]
    admits: Callable[[Pending, Load], bool]
    explain: Callable[[Pending, Sequence[Load]], str]
    fixed: bool = True


def named(nodes: Sequence[NodeView]) -> str:
    """Return node names for a sentence: ``n1, n2, n3 and 4 more``."""
    return some([node.name for node in nodes], SHOWN)


def _be(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _views(loads: Sequence[Load]) -> list[NodeView]:
    return [load.node for load in loads]


# ready and active


def _ready(_: Pending, load: Load) -> bool:
    return load.node.status == "ready" and load.node.availability == "active"


def _ready_why(_: Pending, loads: Sequence[Load]) -> str:
    unready = [node for node in _views(loads) if node.status == "unready"]
    parts = [f"{node.name} is not ready: {node.reason}" for node in unready]
    for word in ("down", "unknown"):
        hit = [load.node for load in loads if load.node.status == word]
        if hit:
            parts.append(f"{_be(len(hit), 'is', 'are')} {word} ({named(hit)})")
    for word, text in (("pause", "paused"), ("drain", "draining")):
        hit = [n for n in _views(loads) if n.status == "ready" and n.availability == word]
        if hit:
            parts.append(f"{_be(len(hit), 'is', 'are')} {text} ({named(hit)})")
    return ", ".join(parts)


# the node of a global service's task


def _pinned(pending: Pending, load: Load) -> bool:
    return load.node.id == pending.node


def _pinned_why(_: Pending, loads: Sequence[Load]) -> str:
    return f"{_be(len(loads), 'is', 'are')} not the node this task belongs to"


# resources, by reservations


def spare(pending: Pending, load: Load) -> tuple[float, int]:
    """Return the CPUs and memory of the node that the task may reserve."""
    cpus, memory = pending.aside if load.node.id == pending.node else (0.0, 0)
    if pending.instead_of == load.node.id:
        cpus, memory = pending.instead_use
    return load.node.cpus - load.cpus + cpus, load.node.memory - load.memory + memory


def fits(pending: Pending, load: Load) -> bool:
    """Say whether the node has room for what the task reserves."""
    cpus, memory = spare(pending, load)
    return pending.cpus - SLACK <= cpus and pending.memory <= memory


def _fits_why(pending: Pending, loads: Sequence[Load]) -> str:
    parts = []
    left = [(spare(pending, load), load.node) for load in loads]
    short = [(free[1], node) for free, node in left if pending.memory > free[1]]
    if short:
        most, where = max(short, key=lambda pair: pair[0])
        parts.append(
            f"{_be(len(short), 'lacks', 'lack')} memory (needs {size(pending.memory)}, "
            f"most unreserved is {size(max(0, most))} on {where.name})"
        )
    slow = [(free[0], node) for free, node in left if pending.cpus - SLACK > free[0]]
    if slow:
        top, where = max(slow, key=lambda pair: pair[0])
        parts.append(
            f"{_be(len(slow), 'lacks', 'lack')} CPUs (needs {pending.cpus:g}, "
            f"most unreserved is {max(0.0, top):.3g} on {where.name})"
        )
    return ", ".join(parts)


# the disk, by what a task like it met there


def _disk(pending: Pending, load: Load) -> bool:
    return pending.spec_hash not in load.node.crowded


def _disk_why(_: Pending, loads: Sequence[Load]) -> str:
    be = _be(len(loads), "has", "have")
    return f"{be} no room on the disk for it ({named(_views(loads))})"


# constraints


def _constrained(pending: Pending, load: Load) -> bool:
    return constraints.broken(pending.constraints, load.node) is None


def _constrained_why(pending: Pending, loads: Sequence[Load]) -> str:
    counts: dict[str, int] = {}
    for load in loads:
        rule = constraints.broken(pending.constraints, load.node)
        if rule is not None:
            counts[rule.text] = counts.get(rule.text, 0) + 1
    return ", ".join(
        f"{_be(count, 'does', 'do')} not satisfy {text.strip()!r}" for text, count in counts.items()
    )


# platform


def _platform(pending: Pending, load: Load) -> bool:
    os, _, rest = pending.platform.partition("/")
    arch = rest.partition("/")[0]
    return os in ("", load.node.os) and arch in ("", load.node.arch)


def _platform_why(pending: Pending, loads: Sequence[Load]) -> str:
    return f"{_be(len(loads), 'is', 'are')} not {pending.platform}"


# what its agent's version honours


def _honours(pending: Pending, load: Load) -> bool:
    return all(since <= load.node.wire for since, _ in pending.needs)


def _honours_why(pending: Pending, loads: Sequence[Load]) -> str:
    nodes: dict[str, list[NodeView]] = {}
    for load in loads:
        words = ", ".join(word for since, word in pending.needs if since > load.node.wire)
        nodes.setdefault(words, []).append(load.node)
    return ", ".join(
        f"{_be(len(hit), 'runs', 'run')} an older corral that does not honour {words}"
        f" ({named(hit)})"
        for words, hit in nodes.items()
    )


# host ports


def port_holder(pending: Pending, load: Load) -> str:
    """Return which port the task cannot have there and why, or ""."""
    own = load.node.id == pending.instead_of
    for port in pending.ports:
        name = f"{port.port}/{port.protocol}"
        if name in RESERVED_PORTS:
            return f"port {name} reserved for the node itself"
        if own:
            continue  # held by the task that goes first
        if any(port.clashes(used) for used in load.ports):
            return f"port {name} taken by another task"
        if name in load.node.listening:
            return f"port {name} held by a process of the host"
    return ""


def _ports(pending: Pending, load: Load) -> bool:
    return not port_holder(pending, load)


def _ports_why(pending: Pending, loads: Sequence[Load]) -> str:
    reasons: dict[str, list[NodeView]] = {}
    for load in loads:
        reasons.setdefault(port_holder(pending, load), []).append(load.node)
    return ", ".join(
        f"{_be(len(nodes), 'has', 'have')} {text} ({named(nodes)})"
        for text, nodes in reasons.items()
    )


# max_replicas_per_node


def _room(pending: Pending, load: Load) -> bool:
    count = load.services.get(pending.service, 0)
    if load.node.id == pending.instead_of:
        count -= 1
    return count < pending.max_per_node


def _room_why(pending: Pending, loads: Sequence[Load]) -> str:
    return (
        f"{_be(len(loads), 'has', 'have')} max_replicas_per_node = {pending.max_per_node} "
        "tasks of the service already"
    )


# homes: volumes and relative binds


def _home(pending: Pending, load: Load) -> bool:
    return all(home.node in (None, load.node.id) for home in pending.homes)


def _home_why(pending: Pending, loads: Sequence[Load]) -> str:
    counts: dict[str, int] = {}
    for load in loads:
        what = next(h.what for h in pending.homes if h.node not in (None, load.node.id))
        counts[what] = counts.get(what, 0) + 1
    return ", ".join(
        f"{_be(count, 'does', 'do')} not have {what}" for what, count in counts.items()
    )


# paths of the node that are not made


def _has(pending: Pending, load: Load) -> bool:
    return all(load.node.id in only.nodes for only in pending.only)


def lacks(pending: Pending, load: Load) -> str:
    """Return what the node lacks of what the task binds."""
    return " and ".join(o.what for o in pending.only if load.node.id not in o.nodes)


def _has_why(pending: Pending, loads: Sequence[Load]) -> str:
    counts: dict[str, int] = {}
    for load in loads:
        what = lacks(pending, load)
        counts[what] = counts.get(what, 0) + 1
    return ", ".join(
        f"{_be(count, 'does', 'do')} not have {what}" for what, count in counts.items()
    )


FILTERS: tuple[Filter, ...] = (
    Filter("node", lambda p: p.node is not None, _pinned, _pinned_why),
    Filter("home", lambda p: bool(p.homes), _home, _home_why),
    Filter("ready", lambda _: True, _ready, _ready_why),
    Filter("resources", lambda p: p.cpus > 0 or p.memory > 0, fits, _fits_why, fixed=False),
    Filter("disk", lambda _: True, _disk, _disk_why),
    Filter("constraints", lambda p: bool(p.constraints), _constrained, _constrained_why),
    Filter("platform", lambda p: bool(p.platform), _platform, _platform_why),
    Filter("paths", lambda p: bool(p.only), _has, _has_why),
    Filter("version", lambda p: bool(p.needs), _honours, _honours_why),
    Filter("ports", lambda p: bool(p.ports), _ports, _ports_why, fixed=False),
    Filter("max-replicas", lambda p: p.max_per_node > 0, _room, _room_why, fixed=False),
)


def applying(pending: Pending) -> list[Filter]:
    """Return the filters that have a say about the task, whichever the node."""
    return [rule for rule in FILTERS if rule.applies(pending)]


def first_refusal(
    pending: Pending, load: Load, filters: Sequence[Filter] = FILTERS
) -> Filter | None:
    """Return the first filter that refuses the node, or None when all admit it."""
    for rule in filters:
        if rule.applies(pending) and not rule.admits(pending, load):
            return rule
    return None


def sentence(pending: Pending, refused: Sequence[tuple[Filter, Sequence[Load]]], total: int) -> str:
    """Return why no node admits the task: a count per reason, most frequent first.

    ``refused``: the nodes by the first rule that refuses them; ``total``: how many nodes there are.
    """
    if not total:
        return "there is no node in the cluster"
    ordered = sorted(refused, key=lambda pair: -len(pair[1]))
    parts = [rule.explain(pending, hit) for rule, hit in ordered]
    return f"no node fits: of {_be(total, 'node', 'nodes')}, " + "; ".join(parts)
