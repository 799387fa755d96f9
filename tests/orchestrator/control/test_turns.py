"""A look at stacks is one decision, in however many turns of the event loop it is made."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.control import turns
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.exclusive import ExclusiveTasks
from orchestrator.control.mirror.records import NODES
from orchestrator.control.planning import stacks
from orchestrator.control.planning.terms import replica
from orchestrator.control.wanted import Outgoing
from orchestrator.store import keys
from orchestrator.store.base import MAX_OPERATIONS, Put
from orchestrator.store.memory import MemoryStore
from specs.node import Node
from specs.task import TaskStatus
from specs.wire import Report
from tests.orchestrator.control.builders import after, project, replicas
from tests.orchestrator.control.rig import LoopClock, PlainSealer, Rig
from tests.virtual_time import in_virtual_time

AT_ONCE = 10**9
steps = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.integers(0, 5), st.integers(0, 4)),
        st.tuples(st.just("scale"), st.integers(0, 6), st.integers(0, 5)),
        st.tuples(st.just("drain"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("anew"), st.just(0), st.just(0)),
    ),
    max_size=4,
)


async def _end_of(turn: int, todo: list[tuple[str, int, int]]) -> list[tuple[object, ...]]:
    """Return how a stack is after all of this, with turns of that length."""
    before, turns.TURN = turns.TURN, turn
    try:
        async with Rig(nodes=3) as rig:
            await _up(rig, 2, 3)
            for what, one, other in todo:
                if what == "up":
                    await _up(rig, one, other)
                elif what == "scale":
                    await rig.control.scale("app", {"db": other, "web": one})
                    await rig.until(lambda a=one, b=other: _has(rig, a, b))
                elif what == "drain":
                    node = rig.cluster.nodes[f"n{one}"]
                    away = "active" if node.availability == "drain" else "drain"
                    if away == "drain" and any(
                        n.availability == "drain" for n in rig.cluster.nodes.values()
                    ):
                        continue  # somebody must take them
                    await rig.put_node(node.model_copy(update={"availability": away}))
                    gone = f"n{one}" if away == "drain" else ""
                    await rig.until(lambda gone=gone: all(t.node != gone for t in rig.tasks()))
                else:
                    await rig.restart_controller()
                _as_made_anew(rig)
            await asyncio.sleep(120)  # freed addresses have rested, what is empty went
            _as_made_anew(rig)
            return [
                (t.service, t.slot, t.state, t.desired, t.status.ready, t.node) for t in rig.tasks()
            ]
    finally:
        turns.TURN = before


def _as_made_anew(rig: Rig) -> None:
    """What is kept of nodes' sets and of tasks is what would be made of the records now."""
    specs = Specs(rig.cluster)
    fresh = Outgoing(rig.cluster, specs, PlainSealer(), ExclusiveTasks(rig.cluster, specs))
    for node in rig.cluster.nodes:
        assert rig.control.wanted(node) == (fresh.me(node), fresh.objects(node))
    now = rig.control._new_pass()
    for task in rig.tasks():
        mark, effective = (
            now.observed.mark(task.id),
            now.specs.of("app", task.release, task.service),
        )
        kept = replica(now, task, effective)
        mark.seen = None
        made = replica(now, task, effective)
        assert replace(kept, lived=0.0) == replace(made, lived=0.0)


async def _up(rig: Rig, db: int, web: int) -> None:
    files = project(db=replicas(db), web=replicas(web, **after("service_started", "db")))
    await rig.up(files)
    await rig.deployed()


def _has(rig: Rig, web: int, db: int) -> bool:
    right = (len(rig.ready("web")), len(rig.ready("db"))) == (web, db)
    return right and len(rig.tasks()) == web + db


@settings(max_examples=12)
@given(steps)
@example([("drain", 1, 0)])
def test_in_turns_or_at_once_comes_to_the_same(todo):
    ends = []

    async def work(turn: int) -> None:
        ends.append(await _end_of(turn, todo))

    for turn in (AT_ONCE, 1):
        in_virtual_time(work(turn))
    assert ends[0] == ends[1]


@pytest.mark.looptime
async def test_what_a_decision_reads_does_not_move_while_it_is_made(monkeypatch):
    monkeypatch.setattr(turns, "TURN", 1)
    seen = []
    real = stacks.look

    def look(pass_, *rest, over):
        began, turns, found = pass_.cluster.changes, 0, real(pass_, *rest, over=over)
        while True:
            try:
                step = next(found)
            except StopIteration as end:
                seen.append((turns, pass_.cluster.changes == began))
                return end.value
            turns += step > 0
            yield step

    monkeypatch.setattr(stacks, "look", look)

    async def change(rig: Rig) -> None:
        """Somebody else writes all the time."""
        number = 0
        while True:
            node, number = rig.cluster.nodes["n1"], number + 1
            await rig.put_node(node.model_copy(update={"labels": {"number": str(number)}}))
            for _ in range(7):
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)

    async with Rig(nodes=2) as rig:
        changing = rig.group.create_task(change(rig))
        await rig.up(project(web=replicas(12)))
        await rig.deployed()
        changing.cancel()
    assert max(turns for turns, _ in seen) > 30, "others got their turn meanwhile"
    assert all(still for _, still in seen)


@pytest.mark.looptime
async def test_a_command_waits_for_the_decision_under_way(monkeypatch):
    monkeypatch.setattr(turns, "TURN", 1)
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(20)))
        for count in (3, 17, 5):
            await rig.control.scale("app", {"web": count})
        await rig.until(lambda: len(rig.tasks("web")) == 5 == len(rig.ready("web")))


def a_node(number: int) -> Node:
    return Node(id=f"n{number:04}", name=f"n{number}", address="")


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("seen", [False, True], ids=["the mirror is late", "the mirror has it"])
@pytest.mark.looptime
async def test_what_moved_while_a_decision_is_written_is_not_overwritten(chunk, seen):
    """Every write compares the version it was decided on, not the one it finds when its turn is."""
    count = 3 * MAX_OPERATIONS
    store = MemoryStore()
    for number in range(count):
        node = a_node(number)
        await store.txn((), (Put(keys.node(node.id), node.encode()),))
    cluster = await Cluster.open(store, LoopClock())
    draft = Draft(cluster)
    for node in cluster.nodes.values():
        draft.put(NODES, node.model_copy(update={"labels": {"by": "the decision"}}))
    other = a_node(count - 1).model_copy(update={"labels": {"by": "somebody else"}})
    written = []

    class Crossed:
        """A store somebody else writes to before that chunk."""

        async def txn(self, compares, operations):
            written.append(len(operations))
            if len(written) == chunk:
                result = await store.txn((), (Put(keys.node(other.id), other.encode()),))
                if seen:
                    cluster.applied(result.revision, [(keys.node(other.id), other)])
            return await store.txn(compares, operations)

        def __getattr__(self, name):
            return getattr(store, name)

    assert not await draft.commit(Crossed())
    assert cluster.nodes[other.id].labels == other.labels, "the next decision knows of it"
    again = await Cluster.open(store, LoopClock())
    assert again.nodes[other.id].labels == other.labels


@pytest.mark.looptime
async def test_who_waits_for_the_mirror_does_not_move_it_in_the_next_decision():
    store = MemoryStore()
    cluster = await Cluster.open(store, LoopClock())
    following = asyncio.create_task(cluster.follow())
    try:
        await asyncio.sleep(0.01)
        for number in range(4):
            with cluster.held():
                node = a_node(number)
                await store.txn((), (Put(keys.node(node.id), node.encode()),))
                began = cluster.changes
                await asyncio.sleep(0.01)
                assert cluster.changes == began
            # The next one begins at once, before the one that waits has had its turn.
        await asyncio.sleep(0.01)
        assert len(cluster.nodes) == 4
    finally:
        following.cancel()


@pytest.mark.parametrize("what", ["acknowledged", "silent", "another stack"])
@pytest.mark.looptime
async def test_what_happens_between_two_turns_is_looked_at_afterwards(monkeypatch, what):
    """Nothing that is said during a decision is lost: the next one is about it, at once."""
    monkeypatch.setattr(turns, "TURN", 1)
    said, ends = asyncio.Event(), []

    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(6)))
        await rig.deployed()
        real = stacks.look

        def look(pass_, *rest, over):
            found, turns = real(pass_, *rest, over=over), 0
            while True:
                try:
                    step = next(found)
                except StopIteration as end:
                    ends.append(rig.clock.monotonic())
                    return end.value
                turns += 1
                if turns == 3 and not said.is_set():
                    said.set()
                yield step

        monkeypatch.setattr(stacks, "look", look)
        await rig.control.scale("app", {"web": 3})
        await said.wait()
        if what == "acknowledged":
            await rig.until(lambda: len(rig.tasks("web")) == 3)
        elif what == "silent":
            await rig.nodes["n1"].cut()
            await rig.until(
                lambda: {t.slot for t in rig.ready("web") if t.node != "n1"} == {1, 2, 3}
            )
        else:
            await rig.up(project(web=replicas(2)), stack="other")
            await rig.deployed("other")
        assert len(ends) > 1


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({"gone": 100}, 3),
        ({"tasks": 100}, 3),
        ({"tasks": 60, "gone": 60}, 3),
        ({"gone": 1}, 20),
        ({}, 20),
        ({"gone": 1000}, 1),
    ],
    ids=str,
)
@pytest.mark.looptime
async def test_a_turn_takes_as_many_reports_as_it_has_time_for(said, taken):
    """What is gone costs a deletion each, as what has moved costs a write."""
    async with Rig(nodes=1) as rig:
        reports = [
            Report(
                tasks={f"t{n}.{i}": TaskStatus() for i in range(said.get("tasks", 0))},
                gone=tuple(f"g{n}.{i}" for i in range(said.get("gone", 0))),
            )
            for n in range(20)
        ]
        rig.control._inbox.extend(("n1", report) for report in reports)
        assert await rig.control._take_some(20) == taken
        rig.control._inbox.clear()
