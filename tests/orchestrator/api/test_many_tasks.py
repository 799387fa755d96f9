"""What is asked of one stack or node costs what it has, not what all of them have.

`node ls` of 1,000 nodes with 20,000 tasks held the event loop for 2 s: each row looked at each
task. Here the mirror's mapping of all tasks may not be walked along at all.
"""

from __future__ import annotations

import pytest

from orchestrator.api import named, rows
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.mirror.following import goes_on
from orchestrator.nodes.upgrading import processes
from orchestrator.store import keys
from orchestrator.store.base import Put
from orchestrator.store.memory import MemoryStore
from specs.api import Stack
from specs.kit.clock import SystemClock
from specs.node import Node
from specs.states import Desired, TaskState
from specs.task import Run, Task, TaskStatus


class OnlyByKey(dict):
    """A mapping that nobody may walk along."""

    def values(self):
        raise AssertionError("law: what one stack or node has is asked of its own index")

    items = __iter__ = values


def a_task(number: int, stack: str, node: str, state: TaskState) -> Task:
    run = Run(number=1, pid=100 + number, started_at=1.0)
    return Task(
        id=f"t{number}",
        stack=stack,
        service="web",
        slot=number,
        name=f"{stack}-web-{number}",
        release=1,
        spec_hash="",
        desired=Desired.RUNNING,
        node=node,
        status=TaskStatus(state=state, runs=(run,), ready=state is TaskState.RUNNING),
    )


async def a_mirror() -> Cluster:
    store = MemoryStore()
    tasks = [
        a_task(1, "a", "n1", TaskState.RUNNING),
        a_task(2, "a", "n2", TaskState.RUNNING),
        a_task(3, "a", "n2", TaskState.FAILED),
        a_task(4, "b", "n2", TaskState.RUNNING),
    ]
    await store.txn(
        (),
        (
            *(Put(keys.task(t.stack, t.id), t.encode()) for t in tasks),
            *(Put(keys.node(n), Node(id=n, name=n.upper()).encode()) for n in ("n1", "n2", "n3")),
            Put(keys.stack("a"), Stack(name="a", release=1).encode()),
        ),
    )
    cluster = await Cluster.open(store, SystemClock())
    cluster.tasks = OnlyByKey(cluster.tasks)
    return cluster


ASKED = {
    "node ls": (
        lambda c: [rows.node_row(c, node, now=9.0).tasks for node in c.nodes.values()],
        [1, 2, 0],
    ),
    "ls": (lambda c: rows.stack_row(c, c.stacks["a"]).containers, {"running": 2, "exited": 1}),
    "tasks of a stack": (lambda c: [t.id for t in c.tasks_of("a")], ["t1", "t2", "t3"]),
    "tasks of no stack": (lambda c: list(c.tasks_of("none")), []),
    "containers by name": (lambda c: [row["id"] for row in named._rows(c, "b")], ["t4"]),
    "processes of a node": (lambda c: sorted(processes(c, "n2")), ["t2", "t4"]),
    "does a stack go on": (lambda c: goes_on(c, "a", ()), True),
}


@pytest.mark.parametrize("what", ASKED)
async def test_only_its_own_tasks_are_looked_at(what):
    ask, expected = ASKED[what]
    assert ask(await a_mirror()) == expected
