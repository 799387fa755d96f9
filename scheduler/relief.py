"""What would have to change for a task to fit: every rule of every node, and the smallest change.

``refusals.py`` tells the first rule that refuses a node; here all of them are looked at, because
what helps is what remains once a rule is out of the way. Each proposal is tried: the task (or the
node) is changed as it says, and only what then admits is proposed. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scheduler import constraints
from scheduler.filters import FILTERS, SLACK, first_refusal, port_holder, spare
from scheduler.refusals import WORDS, satisfying
from scheduler.scores import spread
from scheduler.view import Load
from specs.kit.amounts import size
from specs.states import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from scheduler.view import Fleet, NodeView, Pending

    Ways: TypeAlias = Iterator[tuple[str, Pending, NodeView]]  # words, and both as they are then

MIB = 1024 * 1024
PROPOSALS = 4  # told at most


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """What one node says of a task: the rules that refuse it, in the order they are asked.

    ``binding``: the only rule in the way, on one of the nodes that are nearest to admitting.
    """

    node: str
    rules: tuple[tuple[str, str], ...] = ()  # name of the rule, what is said behind the node's name
    binding: bool = False

    @property
    def fits(self) -> bool:
        """Whether it may run there."""
        return not self.rules


@dataclass(frozen=True, slots=True)
class Relief:
    """Something that would make a node admit the task: ``words`` say what, ``node`` is that."""

    words: str
    node: str
    pending: Pending
    view: NodeView


def verdicts(fleet: Fleet, task: Pending) -> tuple[NodeVerdict, ...]:
    """Return what every node says, by name."""
    found = []
    for _, node in sorted(fleet.nodes.items(), key=lambda item: item[1].name):
        load = Load(node)
        rules = tuple((name, WORDS[name](task, load)[0]) for name in _refusing(task, load))
        found.append(NodeVerdict(node.name, rules))
    least = min((len(v.rules) for v in found), default=0)
    return tuple(replace(v, binding=v.rules != () and len(v.rules) == least) for v in found)


def changes(fleet: Fleet, task: Pending) -> tuple[Relief, ...]:
    """Return the smallest changes that make a node admit the task, the most modest first.

    Only nodes with the fewest rules in the way are looked at; each change was tried.
    """
    ranked = sorted(
        ((_refusing(task, Load(node)), node) for _, node in sorted(fleet.nodes.items())),
        key=lambda pair: (len(pair[0]), pair[1].name),
    )
    if not ranked or not ranked[0][0]:
        return ()
    homes = (replace(h, lost=h.node not in {None, *fleet.nodes}) for h in task.homes)
    task = replace(task, homes=tuple(homes))
    least = len(ranked[0][0])
    found: dict[str, Relief] = {}
    for rules, node in ranked:
        if len(rules) > least:
            break
        for words, pending, view in _relaxed(rules, task, node):
            if first_refusal(pending, Load(view)) is None:
                found.setdefault(words, Relief(words, node.name, pending, view))
    best = sorted(found.values(), key=lambda c: (_rank(c, task), c.words))
    return tuple(_most_memory(best)[:PROPOSALS])


# What decides between nodes that admit a task, in the order of scheduler.scores.spread.
_BETTER = (
    "it failed there least",
    "fewest of this release are there",
    "fewest of {name} are there",
    "least is reserved there",
    "its image is there",
    "fewest tasks are there",
)


def chosen(fleet: Fleet, task: Pending, node: str) -> str:
    """Return why that node was taken for the task, of those that admit it; "" = nothing decided.

    ``fleet`` is as it was before; what was placed in the same moment is not counted.
    """
    admit = {n: Load(view) for n, view in fleet.nodes.items()}
    admit = {n: load for n, load in admit.items() if first_refusal(task, load) is None}
    if node not in admit:
        return ""
    home = next((home.key for home in task.homes if home.node == node), "")
    if home or len(admit) == 1:
        alone = "no other node takes it" if len(fleet.nodes) > 1 else ""
        return f"{home} is there" if home else alone
    if task.prefers == node:
        return "its anonymous volumes are there"
    return "the service is packed" if task.pack else _better(task, admit, node)


def _better(task: Pending, admit: dict[str, Load], node: str) -> str:
    """Return what the node has less of than all others that admit the task, or ""."""
    mine = spread(task, admit[node])
    best = min(spread(task, load) for other, load in admit.items() if other != node)
    name = task.service.rpartition("/")[2]
    found = zip(_BETTER, mine, best, strict=True)
    words, ours, theirs = next(((w, o, t) for w, o, t in found if o != t), ("", 0, 0))
    return words.format(name=name) if ours < theirs else ""


def _refusing(task: Pending, load: Load) -> tuple[str, ...]:
    return tuple(r.name for r in FILTERS if r.applies(task) and not r.admits(task, load))


def _relaxed(
    rules: tuple[str, ...], task: Pending, node: NodeView
) -> Iterator[tuple[str, Pending, NodeView]]:
    """Yield ways to take all these rules away, with words for all of it."""
    ways: list[tuple[list[str], Pending, NodeView]] = [([], task, node)]
    for rule in rules:
        ways = [
            ([*words, said], changed, view)
            for words, pending, known in ways
            for said, changed, view in _ways(rule, pending, known)
        ]
    for words, pending, view in ways:
        yield " and ".join(words), pending, view


def _ways(rule: str, task: Pending, node: NodeView) -> Iterator[tuple[str, Pending, NodeView]]:
    """Yield ways past one rule; none past that a global service's task belongs to its node."""
    ways = _WAYS.get(rule)
    if ways is not None:
        yield from ways(task, node, task.service.rpartition("/")[2])


def _up(task: Pending, node: NodeView, _: str) -> Ways:
    if node.status == NodeStatus.READY:
        yield f"corral node activate {node.name}", task, replace(node, availability="active")
    else:
        back = replace(node, status=NodeStatus.READY, availability="active", reason="")
        yield f"bring {node.name} back (it is {node.status})", task, back


def _fewer_ports(task: Pending, node: NodeView, name: str) -> Ways:
    held = {p for p in task.ports if port_holder(replace(task, ports=(p,)), Load(node))}
    ports = ", ".join(sorted(f"{p.port}/{p.protocol}" for p in held))
    rest = tuple(p for p in task.ports if p not in held)
    yield f"drop host port {ports} of {name}", replace(task, ports=rest), node


def _more_a_node(task: Pending, node: NodeView, name: str) -> Ways:
    count = node.use.services.get(task.service, 0) + 1
    yield f"max_replicas_per_node: {count} for {name}", replace(task, max_per_node=count), node


def _other_platform(task: Pending, node: NodeView, name: str) -> Ways:
    platform = f"{node.os}/{node.arch}"
    yield f"build {name} for {platform}", replace(task, platform=platform), node


def _with_paths(task: Pending, node: NodeView, _: str) -> Ways:
    lacking = [only for only in task.only if node.id not in only.nodes]
    there = tuple(only for only in task.only if only not in lacking)
    what = " and ".join(only.what for only in lacking)
    yield f"make {what} on {node.name}", replace(task, only=there), node


def _with_room(task: Pending, node: NodeView, _: str) -> Ways:
    yield f"free room on the disk of {node.name}", task, replace(node, crowded=frozenset())


def _upgraded(task: Pending, node: NodeView, _: str) -> Ways:
    yield f"corral upgrade {node.name}", task, replace(node, wire=2**31)


def _less(task: Pending, node: NodeView, name: str) -> Ways:
    """Yield the reservation that fits on the node, where there is room for any."""
    cpus, memory = spare(task, Load(node))
    asked, parts, after = [], [], task
    if task.memory > memory:
        fitting = memory // MIB * MIB
        if fitting <= 0:
            return
        asked.append(size(fitting))
        parts.append("memory")
        after = replace(after, memory=fitting)
    if task.cpus - SLACK > cpus:
        left = int(cpus * 100) / 100
        if left <= 0:
            return
        asked.append(f"{left:g} CPUs")
        after = replace(after, cpus=left)
    yield f"reserve at most {' and '.join(asked)} for {name}", after, node


def _other_place(task: Pending, node: NodeView, name: str) -> Ways:
    """Yield both ways past the constraints: without them, and a node that has the label."""
    rest, labels = list(task.constraints), dict(node.labels)
    commands: list[str] = []
    dropped: list[str] = []
    after, by_labels = task, True
    while (rule := constraints.broken(after.constraints, node)) is not None:
        dropped.append(rule.text.strip())
        rest.remove(rule.text)
        after = replace(after, constraints=tuple(rest))
        label, command = constraints.label_of(rule.key), satisfying(rule, node)
        if label is None or not command:
            by_labels = False
            continue
        commands.append(command)
        if rule.operator == "!=":
            labels.pop(label, None)
        else:
            labels[label] = rule.values[0]
    if by_labels:
        yield " and ".join(commands), task, replace(node, labels=labels)
    many = "constraint" if len(dropped) == 1 else "constraints"
    said = ", ".join(repr(text) for text in dropped)
    yield f"remove {many} {said} of {name}", after, node


def _other_home(task: Pending, node: NodeView, _: str) -> Ways:
    """Yield a volume's move, where it is nothing but volumes that tie the task elsewhere.

    What left the cluster moves nowhere: its copy is put back, or it begins empty.
    """
    away = [home for home in task.homes if home.node not in (None, node.id)]
    if all(home.key.startswith("volume ") or home.what.startswith("volume ") for home in away):
        names = [home.what.split()[1] for home in away]
        lost = [home.what.split()[1] for home in away if home.lost]
        homes = tuple(replace(h, node=node.id) if h in away else h for h in task.homes)
        after = replace(task, homes=homes)
        there = [
            f"corral volume move {name} --to {node.name}" for name in names if name not in lost
        ]
        if lost:
            back = [f"corral volume restore {name} FILE --node {node.name}" for name in lost]
            yield " and ".join([*back, *there]), after, node
            there = [f"corral volume create --node {node.name} {name}" for name in lost] + there
        yield " and ".join(there), after, node


_WAYS: dict[str, Callable[[Pending, NodeView, str], Ways]] = {
    "home": _other_home,
    "ready": _up,
    "resources": _less,
    "disk": _with_room,
    "constraints": _other_place,
    "platform": _other_platform,
    "paths": _with_paths,
    "version": _upgraded,
    "ports": _fewer_ports,
    "max-replicas": _more_a_node,
}
_ORDER = ("activate", "max_replicas", "reserve", "drop host port", "label", "remove constraint")


def _rank(change: Relief, task: Pending) -> tuple[int, int]:
    """Return how much a change asks: what a command does before what a file must give up."""
    place = next((n for n, word in enumerate(_ORDER) if word in change.words), len(_ORDER))
    if "corral volume create" in change.words:
        place = len(_ORDER) + 1  # it begins empty: what has a copy is put back
    return place, task.memory - change.pending.memory


def _most_memory(found: list[Relief]) -> list[Relief]:
    """Keep of several reservations the one that gives up least."""
    kept, reserved = [], False
    for change in found:
        if change.words.startswith("reserve at most"):
            if reserved:
                continue
            reserved = True
        kept.append(change)
    return kept
