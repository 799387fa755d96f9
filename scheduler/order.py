"""Nodes in the order in which a task without others of its service there would take them.

They lie in buckets by the share of them that is taken, in each by their number of tasks; a node
that got a task moves to another when somebody asks next. In a bucket the tie-break decides, which
every service has of its own: :func:`first` finds the least of a set without looking at each.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple

from scheduler import scores, sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.view import Load

_TOP = 1 << 31  # the highest bit of a code


class Stretch(NamedTuple):
    """Nodes whose ids have ``length`` bytes, at positions from ``start`` on, sorted by code."""

    start: int
    length: int
    codes: list[int]


def first(runs: Sequence[Stretch], nodes: int, seed: int, service: str) -> int:
    """Return the node of the set (not empty) with the smallest tie-break for the service."""
    if not nodes & (nodes - 1):
        return nodes.bit_length() - 1
    found, least = -1, _TOP << 1
    for run in runs:
        some = nodes >> run.start & (1 << len(run.codes)) - 1
        if some:
            flip = scores.flip(seed, service, run.length)
            position = _descend(run.codes, some, flip)
            tie = run.codes[position] ^ flip
            if tie < least:
                found, least = run.start + position, tie
    return found


def _descend(codes: list[int], nodes: int, flip: int) -> int:
    """Return which of these nodes has the smallest ``code ^ flip``.

    From the top bit down: the half whose bit is as flip's is the better one, if anybody is there.
    """
    low, high, prefix, bit = 0, len(codes), 0, _TOP
    while bit and nodes & (nodes - 1):
        middle = bisect_left(codes, prefix | bit, low, high)
        above, below = nodes >> middle - low, nodes & (1 << middle - low) - 1
        if above and (flip & bit or not below):
            nodes, low, prefix = above, middle, prefix | bit
        else:
            nodes, high = below, middle
        bit >>= 1
    return low + (nodes & -nodes).bit_length() - 1


class Buckets:
    """The nodes of ``loads`` by what is on them; ``moved``: positions that got tasks since."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self._loads = loads
        self._where: list[tuple[int, int]] = []  # share and tasks, by position
        self._shares: list[int] = []  # sorted
        self._all: dict[int, int] = {}  # share -> nodes
        self._tasks: dict[int, dict[int, int]] = {}  # share -> number of tasks -> nodes
        self.moved: set[int] = set()

    def least(self, among: int, image: int, *, pack: bool = False) -> int:
        """Return of this set (not empty) the nodes with the least share, then image, then tasks.

        ``image``: the nodes that have it. ``pack``: with the largest share that is not full.
        """
        if not self._where:
            self._make()
        for position in self.moved:
            self._move(position)
        self.moved.clear()
        shares = scores.packing(self._shares) if pack else self._shares
        share = next(share for share in shares if self._all[share] & among)
        found = self._all[share] & among
        found = found & image or found
        tasks = self._tasks[share]
        if len(tasks) == 1 or not found & (found - 1):
            return found
        ordered = sorted(tasks, reverse=pack)
        return next(some for count in ordered if (some := tasks[count] & found))

    def _make(self) -> None:
        self.moved.clear()
        lists: dict[int, dict[int, list[int]]] = {}
        for position, load in enumerate(self._loads):
            share = scores.dominant_share(load)
            self._where.append((share, load.tasks))
            lists.setdefault(share, {}).setdefault(load.tasks, []).append(position)
        for share, by_tasks in lists.items():
            made = {count: sets.of(some, len(self._loads)) for count, some in by_tasks.items()}
            self._tasks[share], self._all[share] = made, sum(made.values())
        self._shares = sorted(lists)

    def _move(self, position: int) -> None:
        load, bit = self._loads[position], 1 << position
        share, count = self._where[position]
        now, tasks = scores.dominant_share(load), load.tasks
        if (now, tasks) == (share, count):
            return
        self._where[position] = (now, tasks)
        left = self._tasks[share]
        left[count] ^= bit
        if not left[count]:
            del left[count]
        if now != share:
            self._all[share] ^= bit
            if not self._all[share]:
                del self._all[share], self._tasks[share]
                del self._shares[bisect_left(self._shares, share)]
            if now not in self._all:
                insort(self._shares, now)
                self._all[now], self._tasks[now] = 0, {}
            self._all[now] |= bit
        there = self._tasks[now]
        there[tasks] = there.get(tasks, 0) | bit
