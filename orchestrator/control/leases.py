"""Which exclusive tasks may run: the controller's side of leases, from what the mirror has.

``control.py`` has one; every session asks it for its node's answers and tells it the node's next
questions. What follows from them is ``specs/lease.py``. Nothing of it is stored: a controller that
begins waits for a term instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import node_status
from specs.lease import Candidate, LeaseBook
from specs.states import FINAL, HEARD, Desired, TaskState
from specs.wire import LeaseAnswer

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.exclusive import ExclusiveTasks
    from specs.kit.clock import Clock
    from specs.task import Task
    from specs.wire import LeaseQuestion, Stamp


class Leases:
    """``some`` is set while there are exclusive services: only then anything is asked."""

    def __init__(self, cluster: Cluster, tasks: ExclusiveTasks, clock: Clock) -> None:
        self._cluster = cluster
        self._tasks = tasks
        self._clock = clock
        self._book = LeaseBook(begun=clock.monotonic())
        self._homes: dict[str, str] = {}  # task -> node, of those that were given one
        self.some = asyncio.Event()

    def look(self) -> None:
        """Take note of whether there are exclusive services."""
        if self._tasks.services():
            self.some.set()
        else:
            self.some.clear()

    def answer(self, node: str, question: int, stamp: Stamp) -> LeaseAnswer:
        """Decide the answer to a node's last question."""
        nodes = self._cluster.nodes
        tasks = self._tasks.services()
        self._let_go()
        found = self._book.answer(
            node,
            {service: [self._candidate(t) for t in ts] for service, ts in tasks.items()},
            {n.id: n.joined_at for n in nodes.values()},
            self._clock.monotonic(),
        )
        self._homes |= {task: node for task, why in found.items() if not why}
        members = tuple(sorted(n for n in nodes if n != node))
        return LeaseAnswer(stamp=stamp, question=question, tasks=found, members=members)

    def asked(self, node: str, told: LeaseAnswer, question: LeaseQuestion) -> None:
        """Take a node's word: it has our answer, and holds these."""
        self._book.claims[node] = frozenset(question.holds)
        self._book.confirmed[node] = frozenset(told.members)

    def _let_go(self) -> None:
        """Forget holders of which their node, which is heard, has nothing left."""
        for service, (task, _) in list(self._book.holder.items()):
            home = self._homes.get(task, "")
            if task not in self._cluster.tasks and self._heard(home):
                del self._book.holder[service]
        for node in [n for n in self._book.claims if n not in self._cluster.nodes]:
            del self._book.claims[node]
            self._book.confirmed.pop(node, None)
        holding = {task for task, _ in self._book.holder.values()}
        self._homes = {task: node for task, node in self._homes.items() if task in holding}

    def _candidate(self, task: Task) -> Candidate:
        return Candidate(
            task=task.id,
            node=task.node or "",
            wanted=task.desired is Desired.RUNNING,
            heard=self._heard(task.node or ""),
            over=task.state in FINAL and task.state is not TaskState.ORPHANED,
            order=(task.created_at, task.id),
            created_at=task.created_at,
        )

    def _heard(self, node: str) -> bool:
        return node_status(self._cluster, node) in HEARD
