"""A store that does not know its nodes any more: they are found again by what their peers keep."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from orchestrator.control import state
from orchestrator.control.adopting import adopt
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.state import StateQuestion
from orchestrator.errors import Conflict
from orchestrator.store import keys
from orchestrator.store.base import Put
from orchestrator.store.memory import MemoryStore
from specs import skew
from specs.kit.clock import ManualClock
from specs.node import Node
from specs.objects import CreateVolume
from specs.oneoff import StartOneOff
from specs.states import FINAL, TaskState
from specs.wire import HeldSet, Instructions, NodeSelf, Objects, Peer, Stamp
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import PlainSealer, Rig

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.looptime


def peer(number: int, **more: str) -> Peer:
    address = {} if number == 1 else {"address": f"root@host{number}", "host_key": f"key{number}"}
    fixed = {"underlay": f"192.0.2.{number}", "overlay": f"10.210.0.{number}"}
    return Peer(node=f"n{number}", name=f"host{number}", **{**fixed, **address, **more})


def holds(number: int, *peers: Peer) -> HeldSet:
    me = NodeSelf(node=f"n{number}", name=f"host{number}", overlay=f"10.210.0.{number}")
    return HeldSet(me=me, objects=Objects(peers={p.node: p for p in peers}))


class Agents:
    """Who answers with what; a node is reached as its record says."""

    def __init__(self, cluster: Cluster, **answers: HeldSet) -> None:
        self.cluster, self.answers = cluster, answers
        self.decided: list[bool] = []
        self.asked: list[Node] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.blank: frozenset[str] = frozenset()

    @property
    def behind(self) -> object:
        return type("Behind", (), {"words": "older", "newer": ()})()

    async def held(self, nodes=None):
        asked = list(self.cluster.nodes.values()) if nodes is None else list(nodes)
        self.asked += asked
        return {n.id: self.answers[n.id] for n in asked if n.id in self.answers}

    def decide(self, *, discard: bool, taken: Mapping[int, int]) -> None:
        self.decided.append(discard)
        self.taken = dict(taken)

    async def begun(self) -> None:
        await self.goes_on.wait()


HOME = Node(id="n1", name="host1", overlay="10.210.0.9")  # given anew: it had .1
CASES = {
    # what answers -> who is known afterwards, who is named as absent
    "all answer": (
        {"n1": holds(1, peer(2), peer(3)), "n2": holds(2), "n3": holds(3)},
        {"n1", "n2", "n3"},
        (),
    ),
    "one is away": (
        {"n1": holds(1, peer(2), peer(3)), "n2": holds(2)},
        {"n1", "n2"},
        ("host3",),
    ),
    "an agent of an earlier version kept no addresses": (
        {"n1": holds(1, peer(2, host_key=""), peer(3)), "n2": holds(2), "n3": holds(3)},
        {"n1", "n3"},
        ("host2",),
    ),
    "nobody else was there": ({"n1": holds(1)}, {"n1"}, ()),
    "it was added again meanwhile, as another": (
        {"n1": holds(1, peer(2, address="root@again")), "n2": holds(2), "n7": holds(7)},
        {"n1", "n7"},
        ("host2",),
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_forgotten_nodes_are_asked_and_known_again(case):
    answers, known, absent = CASES[case]
    store, clock = MemoryStore(), ManualClock()
    await store.txn((), (Put(keys.node("n1"), HOME.encode()),))
    if "n7" in known:
        again = Node(id="n7", name="again", address="root@again")
        await store.txn((), (Put(keys.node("n7"), again.encode()),))
    cluster = await Cluster.open(store, clock)
    agents = Agents(cluster, **answers)
    question = StateQuestion(store, cluster, PlainSealer(), agents, clock)
    assert (await question.show()).absent == absent
    assert set(cluster.nodes) <= {"n1", "n7"}, "law: to look changes nothing"
    if absent:
        with pytest.raises(Conflict, match=absent[0]):
            await question.adopt(without_absent=False)
        assert not agents.decided
    await question.adopt(without_absent=bool(absent))
    assert set(cluster.nodes) == known
    for number in (2, 3):
        if f"n{number}" in known:
            node = cluster.nodes[f"n{number}"]
            assert (node.name, node.address, node.host_key) == (
                f"host{number}",
                f"root@host{number}",
                f"key{number}",
            )
            assert (node.underlay, node.overlay) == (f"192.0.2.{number}", f"10.210.0.{number}")
    assert cluster.nodes["n1"].overlay == "10.210.0.1", "law: no address is given twice"
    assert agents.decided == [False]


async def test_the_machine_it_was_restored_to_is_not_waited_for():
    """It is the controller's own node, and its agent is a new one: it holds nothing of anybody."""
    store, clock = MemoryStore(), ManualClock()
    await store.txn((), (Put(keys.node("n1"), HOME.encode()),))
    second = Node(id="n2", name="host2", address="root@host2")
    await store.txn((), (Put(keys.node("n2"), second.encode()),))
    cluster = await Cluster.open(store, clock)
    agents = Agents(cluster, n2=holds(2))
    question = StateQuestion(store, cluster, PlainSealer(), agents, clock)
    assert (await question.show()).absent == ("host1",), "its agent does not answer yet"
    agents.blank = frozenset({"n1"})
    assert (await question.show()).absent == ()
    await question.adopt(without_absent=False)
    assert agents.decided == [False]


async def test_what_was_taken_over_is_told_by_the_epoch_in_which_it_was_heard():
    """A node that was away for long heard the controller last in an epoch before."""
    store, clock = MemoryStore(), ManualClock()
    await store.txn((), (Put(keys.node("n1"), HOME.encode()),))
    cluster = await Cluster.open(store, clock)
    heard = {
        "n1": holds(1, peer(2), peer(3), peer(4)).model_copy(update=last(4, 90)),
        "n2": holds(2).model_copy(update=last(4, 95)),
        "n3": holds(3).model_copy(update=last(2, 137)),
        "n4": holds(4),
    }
    agents = Agents(cluster, **heard)
    question = StateQuestion(store, cluster, PlainSealer(), agents, clock)
    await question.adopt(without_absent=False)
    assert agents.taken == {4: 95, 2: 137}


def last(epoch: int, revision: int) -> dict[str, object]:
    return {"stamp": Stamp(cluster="c", epoch=epoch, generation=7), "revision": revision}


async def test_to_discard_touches_no_node_that_the_store_does_not_know():
    store, clock = MemoryStore(), ManualClock()
    await store.txn((), (Put(keys.node("n1"), HOME.encode()),))
    cluster = await Cluster.open(store, clock)
    agents = Agents(cluster, n1=holds(1, peer(2)), n2=holds(2))
    question = StateQuestion(store, cluster, PlainSealer(), agents, clock)
    await question.discard()
    assert set(cluster.nodes) == {"n1"}
    assert agents.decided == [True]


@pytest.mark.parametrize("never", [False, True])
@pytest.mark.parametrize("discard", [False, True])
async def test_an_answer_comes_when_what_was_decided_has_begun(monkeypatch, discard, never):
    store = MemoryStore()
    await store.txn((), (Put(keys.node("n1"), HOME.encode()),))
    cluster = await Cluster.open(store, ManualClock())
    agents = Agents(cluster, n1=holds(1))
    agents.goes_on.clear()
    question = StateQuestion(store, cluster, PlainSealer(), agents, ManualClock())
    if never:
        monkeypatch.setattr(state, "BEGINS", 0.01)
    asked = question.discard() if discard else question.adopt(without_absent=False)
    answer = asyncio.create_task(asked)
    if not never:
        for _ in range(1000):
            await asyncio.sleep(0)
        assert agents.decided == [discard]
        assert not answer.done(), "law: who asks next does not hear the old question"
        agents.goes_on.set()
    await answer
    assert agents.decided == [discard]


async def test_every_node_keeps_how_its_peers_are_reached():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        kept = rig.nodes["n1"].wanted.peers
        assert {p.node: p.address for p in kept.values()} == {
            "n2": "root@host2",
            "n3": "root@host3",
        }


DATA = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
HERS = {"volumes": {"data": {"name": "hers", "external": True}}}


async def one_off(rig, services, **more):
    deploy = rig.request(services, services=("web",))
    asked = StartOneOff(deploy=deploy, service="web", dependencies=False, **more)
    end = [line async for line in rig.control.start_oneoff("app", asked)][-1]
    await rig.until(lambda: rig.cluster.oneoffs[end.task].task.state is TaskState.RUNNING)
    return rig.cluster.oneoffs[end.task]


MINE = {"volumes": {"data": {}}}
# of the file, of `run`; its exit code, if it ended meanwhile; what its node kept of it besides its
# assignment; whose the volume is, what is said, and whether its record stays once it has ended
ONCE = {
    "it mounts what is nobody's": (HERS, {}, None, True, "", "it runs to its end", True),
    "it mounts its stack's": (MINE, {}, None, True, "app", "it runs to its end", True),
    "--rm": (MINE, {"remove": True, "aliases": True}, None, True, "app", "it runs to", False),
    "it ended meanwhile": (MINE, {}, 3, True, "app", "it has ended", True),
    "--rm, it ended meanwhile": (MINE, {"remove": True}, 0, True, "app", "it has ended", False),
    "without a release": (MINE, {"name": "first"}, None, True, "app", "it runs to its end", True),
    "kept by an older agent": (HERS, {"remove": True}, None, False, "", "it runs to its end", True),
    "the same, ended": (MINE, {"aliases": True}, 1, False, "", "it has ended", True),
}


@pytest.mark.parametrize("case", ONCE)
async def test_a_one_off_that_only_its_node_knows_is_taken_over(case):
    """Law: what runs is not stopped because the store that knew it was lost."""
    top, more, code, kept, owner, said, stays = ONCE[case]
    async with Rig() as rig:
        await rig.control.make(CreateVolume(name="hers"))
        if case != "without a release":
            await rig.up(project(web={}))
            await rig.deployed()
        one = await one_off(rig, project(web=DATA, top=top), **more)
        node, nodes = rig.nodes["n1"], rig.cluster.nodes
        await node.hang_up()
        if code is not None:
            node.end(one.id, code)
            await rig.until(lambda: node.tasks[one.id].state in FINAL)
        held = await node.agent.held()
        if not kept:
            older = held.objects.tasks[one.id].model_copy(update={"oneoff": None})
            tasks = {**held.objects.tasks, one.id: older}
            held = held.model_copy(
                update={"objects": held.objects.model_copy(update={"tasks": tasks})}
            )
        await rig.halt()
        rig.store = MemoryStore()
        lost = await Cluster.open(rig.store, rig.clock)
        made = adopt(lost, {"n1": held}, PlainSealer(), wall=0.0, found=nodes)
        assert await made.draft.commit(rig.store)
        (line,) = [line for line in made.said if line.startswith("one-off")]
        assert line.startswith(f"one-off {one.task.name}: taken over, {said}")
        volume = "hers" if top is HERS else "app_data"
        assert {v.name: (v.stack, v.node) for v in lost.volumes.values()} == {volume: (owner, "n1")}
        (again,) = lost.oneoffs.values()
        update = {"status": again.task.status}
        if not kept:
            update["created_at"] = 0.0
        assert again.task == one.task.model_copy(update=update), "also that it is paused, or not"
        if kept:
            assert again.kept == one.kept

        runs = len(node.tasks[one.id].runs)
        await rig.boot()
        await node.connect()
        if code is None:
            await rig.until(lambda: one.id in rig.cluster.oneoffs)
            await rig.until(lambda: node.wanted.tasks[one.id].oneoff is not None)
            was, now = held.objects.tasks[one.id], node.wanted.tasks[one.id]
            same = {"oneoff": None}
            assert now.model_copy(update=same) == was.model_copy(update=same), "the same task"
            node.end(one.id, 5)
        ended = lambda: (now := rig.cluster.oneoffs.get(one.id)) and now.over  # noqa: E731 - short
        await rig.until(ended)
        found = rig.cluster.oneoffs[one.id].task.status
        assert found.run.exit_code == (5 if code is None else code)
        assert len(found.runs) == runs, "law: it runs once"
        if not stays:
            await rig.until(lambda: not node.tasks.get(one.id))
        else:
            assert rig.cluster.oneoffs[one.id].shown


# What the service has of its own, and whether the store knows the task. Of one that it does not
# know, and that is called as its service, nothing tells that it is no one-off: it is not ended.
OF_OLDER = {
    "known": ({}, True),
    "unknown": ({}, False),
    "known, and named as its service": ({"container_name": "web"}, True),
}


@pytest.mark.parametrize("case", OF_OLDER)
async def test_what_an_older_agent_runs_of_a_service_is_no_one_off(case):
    """It keeps of no task of which release and spec it is; nor does it of a one-off."""
    top, known = OF_OLDER[case]
    async with Rig() as rig:
        await rig.up(project(web=top))
        await rig.deployed()
        node = rig.nodes["n1"]
        held = await node.agent.held()
        said = Instructions(stamp=held.stamp, me=held.me, put=held.objects)
        older = Instructions.model_validate_json(skew.encode(said, 1)).put
        assert not any(one.spec_hash or one.release for one in older.tasks.values())
        held = held.model_copy(update={"objects": older})
        await node.hang_up()
        await rig.halt()
        if not known:
            rig.store = MemoryStore()
        lost = await Cluster.open(rig.store, rig.clock)
        before = dict(lost.tasks)
        made = adopt(lost, {"n1": held}, PlainSealer(), wall=0.0, found=dict(rig.cluster.nodes))
        assert not [line for line in made.said if "one-off" in line]
        assert await made.draft.commit(rig.store)
        assert not lost.oneoffs, "law: a task is of a service, or a one-off"
        assert dict(lost.tasks) == before, "the store's own word is all there is"


@pytest.mark.parametrize("held", ["runs", "ended", "not there", "of a node that is away"])
async def test_a_one_off_that_the_store_knows_is_as_its_node_says_and_runs_once(held):
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        one = await one_off(rig, project(web={}))
        if held == "ended":
            rig.nodes["n1"].end(one.id, 3)
        said = await rig.nodes["n1"].agent.held()
        if held == "not there":
            tasks = {key: task for key, task in said.objects.tasks.items() if key != one.id}
            objects = said.objects.model_copy(update={"tasks": tasks})
            said = said.model_copy(update={"objects": objects})
        helds = {} if held == "of a node that is away" else {"n1": said}
        made = adopt(rig.cluster, helds, PlainSealer(), wall=0.0)
        kept = {known.id: known for known in made.draft.oneoffs("app")}
        assert (one.id in kept) == (held != "not there"), "law: it is not sent again"
        if held == "ended":
            assert kept[one.id].task.status == said.tasks[one.id]
        forgotten = [line for line in made.said if line.startswith("one-off")]
        words = f"one-off {one.task.name}: forgotten, no node has it any more"
        assert forgotten == ([words] if held == "not there" else [])
