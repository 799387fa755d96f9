"""Who is told that something changed: those concerned, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.exclusive import ExclusiveTasks
from orchestrator.control.notices import Notices
from orchestrator.control.telling.progress import Streams
from orchestrator.control.wanted import Outgoing
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore
from specs.node import Node, NodeCondition
from specs.states import Desired, NodeStatus, TaskState
from specs.task import Task, TaskStatus
from tests.fakes.simulator import LoopClock
from tests.orchestrator.control.rig import PlainSealer

NODES = ("n1", "n2", "n3", "n4")


def task(number, node, *, network="net", stack="app"):
    return Task(
        id=f"t{number}",
        stack=stack,
        service="web",
        slot=number,
        name=f"{stack}-web-{number}",
        release=1,
        spec_hash="h",
        node=node,
        addresses={network: f"10.210.16.{number}"},
        desired=Desired.RUNNING,
        status=TaskStatus(state=TaskState.ASSIGNED),
    )


class Told:
    """A mirror with tasks of one network on n1 and n2, of another on n3; n4 has nothing."""

    def __init__(self):
        self.cluster = Cluster(MemoryStore(), LoopClock())
        self.revision = 0
        specs = Specs(self.cluster)
        out = Outgoing(self.cluster, specs, PlainSealer(), ExclusiveTasks(self.cluster, specs))
        streams = Streams(self.cluster, LoopClock(), {})
        self.notices = Notices(self.cluster, out, streams, asyncio.Event())
        for name in NODES:
            self.write(keys.node(name), Node(id=name, name=name, underlay="192.0.2.1"))
            self.cluster.conditions[name] = NodeCondition(status=NodeStatus.READY)
        self.tasks = [task(1, "n1"), task(2, "n2"), task(3, "n3", network="other", stack="other")]
        for one in self.tasks:
            self.put(one)

    def write(self, key, model):
        self.revision += 1
        self.cluster.applied(self.revision, [(key, model)])

    def put(self, one):
        self.write(keys.task(one.stack, one.id), one)

    async def by(self, change):
        """Return the nodes that are told after the change, and the stacks looked at."""
        await asyncio.sleep(0)
        for name in NODES:
            self.notices.event_of(name).clear()
        self.notices.take()
        change()
        await asyncio.sleep(0)
        told = {name for name in NODES if self.notices.event_of(name).is_set()}
        return told, self.notices.take()


@pytest.mark.parametrize(
    ("state", "ready", "told"),
    [
        (TaskState.PREPARING, False, {"n1"}),
        (TaskState.PREPARED, False, {"n1"}),
        (TaskState.STARTING, False, {"n1", "n2"}),
        (TaskState.RUNNING, True, {"n1", "n2"}),
        (TaskState.FAILED, False, {"n1", "n2"}),
    ],
)
async def test_a_step_of_a_start_is_news_to_its_own_node_only(state, ready, told):
    here = Told()
    moved = here.tasks[0].with_status(TaskStatus(state=state, ready=ready))
    assert await here.by(lambda: here.put(moved)) == (told, {"app"})


@pytest.mark.parametrize("change", ["leaving", "gone", "elsewhere"])
async def test_what_goes_is_news_to_all_of_its_network(change):
    here = Told()
    one = here.tasks[0]
    if change == "gone":
        found = await here.by(lambda: here.write(keys.task(one.stack, one.id), None))
    elif change == "leaving":
        found = await here.by(lambda: here.put(one.with_leaving()))
    else:
        moved = one.model_copy(update={"addresses": {"other": "10.210.17.9"}})
        found = await here.by(lambda: here.put(moved))
    told = {"n1", "n2", "n3"} if change == "elsewhere" else {"n1", "n2"}
    assert found == (told, {"app"})


@pytest.mark.parametrize(
    ("node", "told", "looked"),
    [("n1", {"n1", "n2"}, {"app"}), ("n3", {"n3"}, {"other"}), ("n4", {"n4"}, set())],
)
async def test_a_node_that_moves_is_news_to_those_it_has_to_do_with(node, told, looked):
    here = Told()
    moved = [(node, NodeStatus.READY, NodeStatus.DOWN)]
    assert await here.by(lambda: here.notices.nodes_moved(moved)) == (told, looked)


@pytest.mark.parametrize("how", ["without a node", "leaving", "misplaced"])
async def test_what_waits_for_any_node_is_looked_at_when_one_moves(how):
    here = Told()
    other = here.tasks[2]
    match how:
        case "without a node":
            waits = other.model_copy(update={"node": None, "addresses": {}})
        case "leaving":
            waits = other.with_leaving()
        case _:
            waits = other.with_misplaced("it breaks node.labels.disk == ssd")
    here.put(waits)
    moved = [("n4", NodeStatus.UNKNOWN, NodeStatus.READY)]
    _, looked = await here.by(lambda: here.notices.nodes_moved(moved))
    assert looked == {"other"}


async def test_a_node_that_comes_is_news_to_everybody():
    here = Told()
    node = Node(id="n5", name="n5", underlay="192.0.2.9")
    told, looked = await here.by(lambda: here.write(keys.node("n5"), node))
    assert (told, looked) == (set(NODES), {"app", "other"})
