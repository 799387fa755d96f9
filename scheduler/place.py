"""Decide where pending tasks go, and say why some go nowhere.

``place`` is called by ``orchestrator.control.planning.placement`` on every pass that has
tasks without a node. Tasks of one group (alike in all they ask) are placed together; the
index (``scheduler.index``) answers what rules ask for all nodes at once, and the best node is
found without looking at the others (``scheduler.choice``): what a group costs hardly depends on
how many nodes there are.

Laws, held by tests/laws: never over-commits, never breaks a hard rule, does
nothing when nothing is pending, same input and seed give the same answer, the
order of the input does not matter, spreads evenly among equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scheduler.choice import Choice, choose
from scheduler.index import NODES, Candidates
from scheduler.steps import whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scheduler.choice import Spread
    from scheduler.steps import Steps
    from scheduler.view import Fleet, Pending

CHEAP = 4  # tasks of a group that cost as much as one replica
TURN = 1000  # tasks of a group placed in one step


class Refusals(Mapping[str, str]):
    """Task -> why it has no place, said when it is asked for; alike tasks share one sentence.

    It is about the cluster with all that was placed.
    """

    def __init__(
        self, index: Candidates | None = None, homes: Mapping[str, str] | None = None
    ) -> None:
        self._index = Candidates() if index is None else index
        self._homes = (
            {} if homes is None else homes
        )  # key -> node: those that were decided meanwhile
        self._tasks: dict[str, Pending] = {}
        self._said: dict[tuple[object, ...], str] = {}

    def add(self, tasks: Sequence[Pending]) -> None:
        """Take in tasks no node takes."""
        self._tasks.update((task.task, task) for task in tasks)

    def said(self) -> Steps[None]:
        """Say everything now, in steps."""
        for name in self._tasks:
            before = len(self._said)
            _ = self[name]
            yield 1 + (len(self._said) - before) * len(self._index.loads) // NODES

    def __getitem__(self, name: str) -> str:
        task = _with_homes(self._tasks[name], self._homes)
        asks = self._asks(task)
        said = self._said.get(asks)
        if said is None:
            said = self._said[asks] = self._index.explain(task)
        return said

    def _asks(self, task: Pending) -> tuple[object, ...]:
        """Return all of a task that its sentence depends on."""
        of_nodes = (task.constraints, task.platform, task.needs, task.only, task.homes, task.node)
        of_room = (
            task.cpus,
            task.memory,
            task.ports,
            task.instead_of,
            task.instead_use,
            task.aside,
        )
        of_service = (task.max_per_node, task.service if task.max_per_node else "")
        return (*of_nodes, *of_room, *of_service, self._index.crowded.get(task.spec_hash, 0))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


@dataclass(frozen=True, slots=True)
class Placed:
    """``assigned`` task -> node id; ``refused`` task -> the sentence; ``homes`` key -> node."""

    assigned: dict[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)


def place(view: Fleet, pending: Sequence[Pending], seed: int = 0) -> Placed:
    """Return a node, or the reason for none, for every pending task."""
    return whole(_decide(view, pending, seed))


def place_in_steps(view: Fleet, pending: Sequence[Pending], seed: int = 0) -> Steps[Placed]:
    """Decide the same in steps, and say every reason."""
    found = yield from _decide(view, pending, seed)
    if isinstance(found.refused, Refusals):
        yield from found.refused.said()
    return found


def _decide(view: Fleet, pending: Sequence[Pending], seed: int) -> Steps[Placed]:
    if not pending:
        return Placed()
    groups: dict[tuple[object, ...], list[Pending]] = {}
    for number, task in enumerate(pending, 1):
        if number % TURN == 0:
            yield TURN // CHEAP
        groups.setdefault(task.group, []).append(task)
    index = Candidates(seed)
    yield from index.fill(view, pending)
    homes: dict[str, str] = {}
    refused = Refusals(index, homes)
    result = Placed(refused=refused, homes=homes)
    for tasks in groups.values():
        tasks.sort(key=_within)
    yield len(groups) // CHEAP
    for tasks in sorted(groups.values(), key=lambda tasks: _order(tasks[0])):
        yield from _place_group(index, tasks, result, refused)
    return result


def _within(task: Pending) -> tuple[int, str]:
    return (task.slot, task.task)


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


def _place_group(
    index: Candidates, tasks: list[Pending], out: Placed, refused: Refusals
) -> Steps[None]:
    queue = tasks
    while queue:
        # Earlier placements may have decided homes this group shares.
        first = _with_homes(queue[0], out.homes)
        placed = yield from _fill(index, first, queue, out)
        queue = queue[placed:]
        undecided = any(home.node is None and home.key in out.homes for home in first.homes)
        if not placed or not undecided:
            refused.add(queue)
            return
        # The first one decided the home: the rest follows it.


def _with_homes(task: Pending, known: Mapping[str, str]) -> Pending:
    if all(home.node is not None or home.key not in known for home in task.homes):
        return task
    homes = tuple(replace(h, node=h.node or known.get(h.key)) for h in task.homes)
    return replace(task, homes=homes)


def _fill(index: Candidates, sample: Pending, tasks: list[Pending], out: Placed) -> Steps[int]:
    """Place tasks of one group from the front; return how many found a node."""
    deciding = [home.key for home in sample.homes if home.node is None]
    some = tasks[:1] if deciding else tasks
    nodes = index.admitted(sample)
    before = index.looked
    choices = _choices(index, sample, nodes, len(some))
    choice = next(choices)
    taken: set[int] = set()
    done = 0
    for task in some:
        position = choice.take()
        while position is None:
            further = next(choices, None)
            if further is None:
                break
            choice = further
            position = choice.take()
        if position is None:
            break
        taken.add(position)
        out.assigned[task.task] = index.ids[position]
        done += 1
        if done % TURN == 0:
            yield TURN // CHEAP
    for key in deciding if taken else ():
        out.homes[key] = out.assigned[tasks[0].task]
    index.placed(sample, taken)
    yield 1 + (index.looked - before) // NODES + done % TURN // CHEAP
    return done


def _choices(
    index: Candidates, sample: Pending, nodes: int, count: int
) -> Iterator[Choice | Spread]:
    """Return from where to take nodes, one after the other.

    First the node that has what the task's slot left, unless its spec kept failing there. Before
    all scores and spread preferences: data is worth more than an even load.
    """
    if sample.prefers is not None:
        there = nodes & index.named(sample.prefers) & ~index.failed.get(sample.spec_hash, 0)
        if there:
            yield Choice(index, sample, there, count)
    keys = [descriptor(text) for text in sample.preferences]
    yield choose(index, sample, nodes, count=count, keys=keys)


def descriptor(text: str) -> str:
    """Return the key of a preference: Compose writes ``spread: node.labels.zone``."""
    return text.removeprefix("spread:").removeprefix("spread=").strip()


__all__ = ["Placed", "place", "place_in_steps"]
