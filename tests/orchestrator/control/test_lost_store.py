"""A store that does not know its nodes any more: they are found again by what their peers keep."""

from __future__ import annotations

import pytest

from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.state import StateQuestion
from orchestrator.errors import Conflict
from orchestrator.store import keys
from orchestrator.store.base import Put
from orchestrator.store.memory import MemoryStore
from specs.kit.clock import ManualClock
from specs.node import Node
from specs.wire import HeldSet, NodeSelf, Objects, Peer
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import PlainSealer, Rig

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

    @property
    def behind(self) -> object:
        return type("Behind", (), {"words": "older"})()

    async def held(self, nodes=None):
        asked = list(self.cluster.nodes.values()) if nodes is None else list(nodes)
        self.asked += asked
        return {n.id: self.answers[n.id] for n in asked if n.id in self.answers}

    def decide(self, *, discard: bool) -> None:
        self.decided.append(discard)


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


async def test_to_discard_touches_no_node_that_the_store_does_not_know():
    store, clock = MemoryStore(), ManualClock()
    await store.txn((), (Put(keys.node("n1"), HOME.encode()),))
    cluster = await Cluster.open(store, clock)
    agents = Agents(cluster, n1=holds(1, peer(2)), n2=holds(2))
    question = StateQuestion(store, cluster, PlainSealer(), agents, clock)
    await question.discard()
    assert set(cluster.nodes) == {"n1"}
    assert agents.decided == [True]


async def test_every_node_keeps_how_its_peers_are_reached():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        kept = rig.nodes["n1"].wanted.peers
        assert {p.node: p.address for p in kept.values()} == {
            "n2": "root@host2",
            "n3": "root@host3",
        }
