"""The nodes that may take the tasks of one group, the best of them first.

Most nodes have nothing of the service: of these the index knows the best without a look at the
others (``plain``). Those that have something, and all where there are about as many tasks as nodes,
lie in a heap by their whole score. Spread preferences come first: a tree of branches, the one with
the fewest tasks of the spec first, whose leaves are such choices.

Law (tests/laws/test_plain_place.py): every task gets the node that looking at all of them for each
task would give it, whichever way it was found.
"""

from __future__ import annotations

import heapq
from functools import partial
from typing import TYPE_CHECKING

from scheduler import constraints, scores, sets
from scheduler.filters import FILTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.index import Candidates
    from scheduler.scores import Score
    from scheduler.view import Pending

_DYNAMIC = tuple(rule for rule in FILTERS if not rule.fixed)
ALL = 8  # nodes that are scored as quickly as the best of all is found without
_NOTHING = (0, 0, 1)  # of what has neither failures nor tasks of the spec or service


class Choice:
    """Takes nodes for tasks like ``sample``, ``count`` of them at most, from a set of nodes."""

    def __init__(self, index: Candidates, sample: Pending, nodes: int, count: int) -> None:
        self._index = index
        self._sample = sample
        self._rules = [rule for rule in _DYNAMIC if rule.applies(sample)]
        self._image = index.images.get(sample.image, 0)
        self._tie = index.ties(sample.service)
        marked = index.failed.get(sample.spec_hash, 0)
        if not sample.pack:
            marked |= index.services.get(sample.service, 0) | index.specs.get(sample.spec_hash, 0)
        if sample.instead_of is not None:
            marked |= index.named(sample.instead_of)
        # A score from here on is behind all that are plain.
        self._marked = (1,) if sample.pack else _NOTHING
        self._plain = nodes & ~marked & ~index.full(sample) if self._rules else nodes & ~marked
        some = nodes & marked
        if self._plain.bit_count() <= ALL * count:
            some |= self._plain
            self._plain = 0
        self._heap = [self._score(position) for position in sets.positions(some)]
        index.looked += len(self._heap)
        heapq.heapify(self._heap)

    def _score(self, position: int) -> Score:
        sample, load = self._sample, self._index.loads[position]
        if sample.pack:
            share = scores.dominant_share(load)
            full = share >= scores.FULL
            return (
                load.node.failures.get(sample.spec_hash, 0),
                int(full),
                0,
                share if full else -share,
                0 if self._image >> position & 1 else 1,
                -load.tasks,
                self._tie(position),
                position,
            )
        return (*scores.spread(sample, load), self._tie(position), position)

    def take(self) -> int | None:
        """Put the next task on the best node and return where; None: nobody has room."""
        position = self._best_plain() if self._plain else None
        heap, loads = self._heap, self._index.loads
        while heap:
            best = heap[0]
            if position is not None and (best >= self._marked or best > self._score(position)):
                break
            if self._rules and not self._has_room(best[-1]):
                heapq.heappop(heap)
                continue
            load = loads[best[-1]]
            load.add(self._sample)
            # Nobody else places meanwhile: what the others had is still true.
            failures, specs, services, _, image, _, tie, where = best
            if self._sample.pack:
                again = self._score(where)
            else:
                share = scores.dominant_share(load)
                again = (failures, specs + 1, services + 1, share, image, load.tasks, tie, where)
            heapq.heapreplace(heap, again)
            return where
        if position is not None:
            self._plain ^= 1 << position
            loads[position].add(self._sample)
            heapq.heappush(heap, self._score(position))
        return position

    def _best_plain(self) -> int | None:
        """Return the best of those with nothing of the service that has room."""
        index, tried = self._index, 0
        while self._plain:
            position = index.best(self._plain, self._sample)
            if self._has_room(position):
                return position
            self._plain ^= 1 << position
            index.mark_full(self._sample, 1 << position)
            tried += 1
            if tried == ALL:
                # It seems to be full: all are asked at once.
                for rule in self._rules:
                    some = index.admits(rule, self._sample, self._plain)
                    index.mark_full(self._sample, self._plain ^ some)
                    self._plain = some
        return None

    def _has_room(self, position: int) -> bool:
        load = self._index.loads[position]
        return all(rule.admits(self._sample, load) for rule in self._rules)


class Spread:
    """Takes the best node of the emptiest branch of the first of these preferences."""

    def __init__(
        self, index: Candidates, sample: Pending, nodes: int, count: int, keys: Sequence[str]
    ) -> None:
        self._make = partial(choose, index, sample, count=count, keys=keys[1:])
        key = keys[0]
        counts: dict[str, int] = {}
        for position in sets.positions(index.specs.get(sample.spec_hash, 0) & nodes):
            load = index.loads[position]
            value = constraints.value_of(load.node, key) or ""
            counts[value] = counts.get(value, 0) + load.specs.get(sample.spec_hash, 0)
        branches = index.branches(key, nodes)
        # Most branches have nothing of the spec, and get none: the first by name is the next.
        self._empty = iter(branches)
        self._heap: list[tuple[int, str, Choice | Spread]] = []
        if counts:
            self._empty = iter([each for each in branches if not counts.get(each[0])])
            self._heap = [(counts[v], v, self._make(some)) for v, some in branches if counts.get(v)]
            heapq.heapify(self._heap)
        self._next = next(self._empty, None)

    def take(self) -> int | None:
        """Put the next task on the best node and return where; None: nobody has room."""
        heap = self._heap
        while True:
            if self._next is not None and (not heap or heap[0] >= (0, self._next[0])):
                value, some = self._next
                heapq.heappush(heap, (0, value, self._make(some)))
                self._next = next(self._empty, None)
            if not heap:
                return None
            tasks, value, below = heap[0]
            position = below.take()
            if position is not None:
                heapq.heapreplace(heap, (tasks + 1, value, below))
                return position
            heapq.heappop(heap)


def choose(
    index: Candidates, sample: Pending, nodes: int, *, count: int, keys: Sequence[str]
) -> Choice | Spread:
    """Return who takes nodes for ``count`` such tasks, spread over the values of these keys."""
    if keys:
        return Spread(index, sample, nodes, count, keys)
    return Choice(index, sample, nodes, count)
