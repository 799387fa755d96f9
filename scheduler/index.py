"""The cluster while tasks are placed: which nodes admit a task, which of them has the least on it.

Made for one call of ``scheduler.place`` from its view. No node is asked again for every task: what
a rule asks (a constraint, a platform) is answered once, for all nodes, as a set (``sets.py``). A
rule without an entry in ``_ASKED`` is asked node by node, which is right and slow.

Law (tests/laws/test_plain_place.py): a set holds exactly the nodes its filter admits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scheduler import constraints, order, scores, sets
from scheduler.filters import FILTERS, SLACK, applying, fits, sentence
from scheduler.steps import STEP
from scheduler.view import Load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from scheduler.filters import Filter
    from scheduler.steps import Steps
    from scheduler.view import Fleet, Pending

NODES = 8  # to look at so many costs as much as one replica
_FEW = 4  # of what is wanted: each is looked for
_FIXED = tuple(rule for rule in FILTERS if rule.fixed)


class Candidates:
    """Nodes by position, and the sets of them that are asked for.

    ``services``, ``specs``, ``failed``, ``crowded``, ``images``: who has tasks of a service, of a
    spec, failures of it, no room on the disk for it, an image; of what is to be placed only.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.loads: list[Load] = []
        self.ids: list[str] = []
        self.all = 0
        self.looked = 0  # at so many nodes, all told
        self.services: dict[str, int] = {}
        self.specs: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.crowded: dict[str, int] = {}
        self.images: dict[str, int] = {}
        self._at: dict[str, int] = {}
        self._codes: list[int] = []
        self._runs: list[order.Stretch] = []
        self._known: dict[Hashable, int] = {}
        self._values: dict[str, dict[str | None, int]] = {}
        self._branches: dict[str, tuple[int, list[tuple[str, int]]]] = {}  # the last asked for
        self._full: dict[Hashable, int] = {}
        self._buckets = order.Buckets(self.loads)

    def fill(self, view: Fleet, pending: Sequence[Pending]) -> Steps[None]:
        """Take in the nodes of a view, in steps; once."""
        named = sorted((len(name.encode()), scores.code(name), name) for name in view.nodes)
        for position, (length, code, name) in enumerate(named):
            if position % (STEP * NODES) == 0:
                yield STEP
            self.loads.append(Load(view.nodes[name]))
            self.ids.append(name)
            self._at[name] = position
            self._codes.append(code)
            if not self._runs or self._runs[-1].length != length:
                self._runs.append(order.Stretch(position, length, []))
            self._runs[-1].codes.append(code)
        self.all = (1 << len(named)) - 1
        specs = {task.spec_hash for task in pending}
        images = {task.image for task in pending if task.image}
        for kept, wanted, have in (
            (self.services, {task.service for task in pending}, [n.services for n in self.loads]),
            (self.specs, specs, [n.specs for n in self.loads]),
            (self.failed, specs, [n.node.failures for n in self.loads]),
            (self.crowded, specs, [n.node.crowded for n in self.loads]),
            (self.images, images, [n.node.images for n in self.loads]),
        ):
            yield len(named) // NODES
            kept.update((key, self.set_of(at)) for key, at in _who_has(wanted, have).items())

    def set_of(self, positions: Collection[int]) -> int:
        """Return the nodes at these positions."""
        return sets.of(positions, len(self.loads))

    def named(self, *nodes: str) -> int:
        """Return the nodes with these ids, those that are there."""
        return self.set_of([self._at[node] for node in nodes if node in self._at])

    # what rules admit

    def admitted(self, pending: Pending) -> int:
        """Return the nodes that no fixed rule refuses."""
        asked = (pending.constraints, pending.platform, pending.needs, pending.only)
        found = self._known.get(asked)
        if found is None:
            found = self.all
            for rule in _FIXED:
                if rule.name not in _OWN and rule.applies(pending):
                    found &= self.admits(rule, pending, self.all)
            self._known[asked] = found
        if pending.node is not None:
            found &= self.named(pending.node)
        if pending.homes:
            found &= _homes(self, pending)
        return found & ~self.crowded.get(pending.spec_hash, 0)

    def admits(self, rule: Filter, pending: Pending, among: int) -> int:
        """Return the nodes, of those, that this rule admits."""
        asked = _ASKED.get(rule.name)
        if asked is not None:
            return asked(self, pending) & among
        loads = self.loads
        self.looked += among.bit_count()
        return self.set_of([p for p in sets.positions(among) if rule.admits(pending, loads[p])])

    def known(self, key: Hashable, make: Callable[[], int]) -> int:
        """Return the set that is kept under this key."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = make()
        return found

    def values(self, key: str) -> Mapping[str | None, int]:
        """Return the nodes by what they have under a key of constraints."""
        found = self._values.get(key)
        if found is None:
            where: dict[str | None, list[int]] = {}
            for position, load in enumerate(self.loads):
                where.setdefault(constraints.value_of(load.node, key), []).append(position)
            found = {value: self.set_of(some) for value, some in where.items()}
            self._values[key] = found
        return found

    def branches(self, key: str, nodes: int) -> list[tuple[str, int]]:
        """Return those of the nodes with each value, sorted by it; no value is an empty one."""
        known = self._branches.get(key)
        if known is None or known[0] != nodes:
            found: dict[str, int] = {}
            for value, some in self.values(key).items():
                if some & nodes:
                    found[value or ""] = found.get(value or "", 0) | some & nodes
            self.looked += len(self._values[key])
            known = self._branches[key] = (nodes, sorted(found.items()))
        return known[1]

    def by(self, trait: Callable[[Load], Hashable], admits: Callable[[Load], bool]) -> int:
        """Return the nodes that are admitted, where equal traits have equal answers."""
        answers: dict[Hashable, bool] = {}
        found = []
        for position, load in enumerate(self.loads):
            key = trait(load)
            if key not in answers:
                answers[key] = admits(load)
            if answers[key]:
                found.append(position)
        return self.set_of(found)

    def full(self, pending: Pending) -> int:
        """Return nodes known to have no room for a task like this."""
        return self._full.get(_demand(pending), 0)

    def mark_full(self, pending: Pending, nodes: int) -> None:
        """Keep that these have none, by what is on them: within one call nothing goes away."""
        key = _demand(pending)
        self._full[key] = self._full.get(key, 0) | nodes

    # who is best

    def best(self, among: int, pending: Pending) -> int:
        """Return the best of these nodes (not none), by share, image, number of tasks, tie-break.

        None of them has a task of the service, or that does not matter.
        """
        image = self.images.get(pending.image, 0)
        found = self._buckets.least(among, image, pack=pending.pack)
        return order.first(self._runs, found, self.seed, pending.service)

    def ties(self, service: str) -> Callable[[int], int]:
        """Return the function that gives a node's tie-break for the service."""
        codes = self._codes
        flips = {run.length: scores.flip(self.seed, service, run.length) for run in self._runs}
        if len(flips) == 1:
            flip = flips.popitem()[1]
            return lambda position: codes[position] ^ flip
        ids = self.ids
        return lambda position: codes[position] ^ flips[len(ids[position].encode())]

    def placed(self, pending: Pending, positions: Collection[int]) -> None:
        """Note that these nodes got such tasks."""
        nodes = self.set_of(positions)
        self.services[pending.service] = self.services.get(pending.service, 0) | nodes
        self.specs[pending.spec_hash] = self.specs.get(pending.spec_hash, 0) | nodes
        self._buckets.moved.update(positions)

    # why none

    def explain(self, pending: Pending) -> str:
        """Return why no node admits the task: a sentence that counts the reasons."""
        left = self.all
        refused: list[tuple[str, Filter, list[Load]]] = []
        for rule in applying(pending):
            hit = left & ~self.admits(rule, pending, left)
            left ^= hit
            if hit:
                where = sorted(sets.positions(hit), key=self.ids.__getitem__)
                refused.append((self.ids[where[0]], rule, [self.loads[p] for p in where]))
        refused.sort(key=lambda one: one[0])
        return sentence(pending, [one[1:] for one in refused], len(self.loads))


def _who_has(wanted: set[str], have: Sequence[Collection[str]]) -> dict[str, list[int]]:
    """Return the positions of those who have what is wanted."""
    found: dict[str, list[int]] = {}
    if len(wanted) <= _FEW:
        for key in wanted:
            if at := [position for position, there in enumerate(have) if key in there]:
                found[key] = at
        return found
    for position, there in enumerate(have):
        if there:
            for key in wanted.intersection(there):
                found.setdefault(key, []).append(position)
    return found


def _demand(pending: Pending) -> Hashable:
    return (pending.cpus, pending.memory, pending.ports)


# which nodes a rule admits, answered for all of them at once


def _pinned(index: Candidates, pending: Pending) -> int:
    return index.all if pending.node is None else index.named(pending.node)


def _homes(index: Candidates, pending: Pending) -> int:
    found = index.all
    for home in pending.homes:
        if home.node is not None:
            found &= index.named(home.node)
    return found


def _by_trait(
    name: str, trait: Callable[[Load], Hashable], asks: Callable[[Pending], Hashable]
) -> Callable[[Candidates, Pending], int]:
    """Return how a rule answers that looks at one trait of a node, and at what tasks ask of it."""
    rule = next(rule for rule in _FIXED if rule.name == name)

    def answer(index: Candidates, pending: Pending) -> int:
        return index.known(
            (name, asks(pending)), lambda: index.by(trait, partial(rule.admits, pending))
        )

    return answer


def _disk(index: Candidates, pending: Pending) -> int:
    return index.all & ~index.crowded.get(pending.spec_hash, 0)


def _constraints(index: Candidates, pending: Pending) -> int:
    found = index.all
    for text in pending.constraints:
        found &= index.known(("constraint", text), partial(_constraint, index, text))
    return found


def _constraint(index: Candidates, text: str) -> int:
    rule = constraints.parse(text)
    matching = 0
    for value, nodes in index.values(rule.key).items():
        if value is not None and value.casefold() in rule.values:
            matching |= nodes
    return index.all & ~matching if rule.operator == "!=" else matching


def _paths(index: Candidates, pending: Pending) -> int:
    found = index.all
    for only in pending.only:
        found &= index.known(only, partial(index.named, *only.nodes))
    return found


def _resources(index: Candidates, pending: Pending) -> int:
    """Answer for what is on the nodes now: who places looks no further than this call."""
    cpus, memory = pending.cpus - SLACK, pending.memory
    index.looked += len(index.loads) // 4
    found = index.set_of(
        [
            position
            for position, load in enumerate(index.loads)
            if load.node.memory - load.memory >= memory and load.node.cpus - load.cpus >= cpus
        ]
    )
    # Something is kept for it on these.
    for node in filter(None, (pending.node, pending.instead_of)):
        bit = index.named(node)
        if bit and fits(pending, index.loads[bit.bit_length() - 1]):
            found |= bit
    return found


_OWN = frozenset({"node", "home", "disk"})  # what a task asks that others hardly do
_ASKED: dict[str, Callable[[Candidates, Pending], int]] = {
    "node": _pinned,
    "home": _homes,
    "ready": _by_trait("ready", lambda n: (n.node.status, n.node.availability), lambda _: None),
    "resources": _resources,
    "disk": _disk,
    "constraints": _constraints,
    "platform": _by_trait("platform", lambda n: (n.node.os, n.node.arch), lambda p: p.platform),
    "paths": _paths,
    "version": _by_trait("version", lambda n: n.node.wire, lambda p: p.needs),
}
