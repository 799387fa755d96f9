"""Joining: names, addresses, labels; what is chosen never clashes."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from orchestrator.errors import Conflict, Invalid
from orchestrator.nodes import members as nodes_module
from orchestrator.nodes.members import Nodes, free_address, free_name
from orchestrator.store.memory import MemoryStore
from specs.kit.clock import ManualClock
from specs.node import Node, NodeCondition, NodeFacts
from specs.states import Desired, TaskState
from specs.task import Task, TaskStatus
from specs.underlay import candidates
from tests.fakes.control import FakeCluster


@pytest.fixture
async def world():
    store, cluster = MemoryStore(), FakeCluster()
    following = asyncio.create_task(cluster.follow(store))
    made = Nodes(
        store=store,
        cluster=cluster,
        agents=None,
        pool="10.210.0.0/16",
        clock=ManualClock(),
        rng=random.Random(1),
    )
    yield made, store, cluster
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def test_joining_makes_a_member_that_the_mirror_shows(world):
    nodes, store, cluster = world
    facts = NodeFacts(hostname="Web.example.org", addresses=("127.0.0.1/8", "192.0.2.7/24"))
    node = await nodes.join(facts, name=facts.hostname, labels={"zone": "a"})
    assert (node.name, node.underlay, node.overlay) == ("web", "192.0.2.7", "10.210.0.1")
    assert cluster.nodes[node.id] == node
    assert Node.model_validate_json((await store.get(f"/nodes/{node.id}")).value) == node


async def test_joining_at_once_gives_everybody_a_name_and_an_address_of_its_own(world):
    nodes, _, _ = world
    async with asyncio.TaskGroup() as group:
        joins = [
            group.create_task(nodes.join(NodeFacts(), name="web", address=f"root@192.0.2.{n}"))
            for n in range(8)
        ]
    made = [join.result() for join in joins]
    assert len({node.name for node in made}) == 8
    assert len({node.overlay for node in made}) == 8


async def test_the_same_machine_twice_is_refused(world):
    nodes, _, _ = world
    await nodes.join(NodeFacts(), name="web", address="root@192.0.2.1")
    with pytest.raises(Conflict, match=r"root@192\.0\.2\.1 is already node web"):
        await nodes.join(NodeFacts(), name="other", address="root@192.0.2.1")


@pytest.mark.parametrize("availability", ["active", "pause", "drain", None])
async def test_a_node_whose_removal_nobody_goes_on_with_stays_where_it_is_said_what_it_takes(
    world, availability
):
    """The controller was killed during `node rm`: it was on its way out for ever."""
    nodes, store, cluster = world
    node = await nodes.join(NodeFacts(), name="web")
    leaving = node.with_removing(removing=True)
    await store.txn(writes=(nodes_module.Put(f"/nodes/{node.id}", leaving.encode()),))
    changed = await nodes.update("web", labels={"zone": "a"}, availability=availability)
    assert changed.removing == (availability is None), "law: a label says nothing of that"
    assert cluster.nodes[node.id] == changed


async def test_a_node_that_is_being_removed_is_not_made_to_stay_by_the_way(world):
    nodes, _, cluster = world
    node = await nodes.join(NodeFacts(), name="web")
    cluster.tasks["t1"] = Task(
        id="t1", stack="s", service="w", slot=1, name="s-w-1", release=1, spec_hash="h",
        desired=Desired.RUNNING, created_at=0.0, node=node.id,
        status=TaskStatus(state=TaskState.RUNNING),
    )  # fmt: skip
    lines = nodes.remove("web", force=False)
    assert (await anext(lines)).message == "draining"
    with pytest.raises(Conflict, match="node web is being removed"):
        await nodes.update("web", labels={}, availability="active")
    await nodes.update("web", labels={"zone": "a"}, availability=None)
    assert cluster.nodes[node.id].removing
    await lines.aclose()
    assert not (await nodes.update("web", labels={}, availability="active")).removing


async def test_wrong_labels_are_refused_before_anything_is_written(world):
    nodes, store, _ = world
    with pytest.raises(Invalid, match="not a label name"):
        await nodes.join(NodeFacts(), name="web", labels={"": "x"})
    assert (await store.list("/")).entries == ()


async def test_a_change_is_made_again_when_somebody_else_was_faster(world, monkeypatch):
    nodes, store, cluster = world
    node = await nodes.join(NodeFacts(), name="web")
    real, raced = store.get, []

    async def get(key):
        entry = await real(key)
        if not raced:
            raced.append(True)
            other = node.model_copy(update={"facts": NodeFacts(cpus=7.0)})
            await store.txn(writes=(nodes_module.Put(key, other.encode()),))
        return entry

    monkeypatch.setattr(store, "get", get)
    await nodes.update("web", labels={"zone": "a"}, availability=None)
    assert cluster.nodes[node.id].labels == {"zone": "a"}
    assert cluster.nodes[node.id].facts.cpus == 7.0, "the other's change is kept"


@pytest.mark.parametrize(
    ("wanted", "taken", "name"),
    [
        ("web", set(), "web"),
        ("web", {"web"}, "web-2"),
        ("web", {"web", "web-2"}, "web-3"),
        ("Über_Host.lan", set(), "ber-host"),
        ("...", set(), "node"),
        ("x" * 80, set(), "x" * 50),
    ],
)
def test_names_fit_dns(wanted, taken, name):
    assert free_name(wanted, taken) == name


def test_the_lowest_free_address_is_taken():
    assert free_address("10.210.0.0/16", {"10.210.0.1", "10.210.0.3"}) == "10.210.0.2"


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ((), ""),
        (("127.0.0.1", "::1"), ""),
        (("169.254.3.4", "fe80::1", "192.0.2.3"), "192.0.2.3"),
        (("192.0.2.3/24", "192.0.2.4"), "192.0.2.3"),
    ],
)
def test_the_underlay_is_the_first_address_others_could_reach(addresses, found):
    assert next(iter(candidates(NodeFacts(addresses=addresses), ())), "") == found


async def lost(nodes, cluster, **update):
    node = await nodes.join(NodeFacts(), name="db", address="root@192.0.2.1", labels={"zone": "a"})
    cluster.conditions[node.id] = NodeCondition(**{"status": "down", "reason": "silent", **update})
    return node


async def test_a_machine_takes_the_place_of_a_lost_node(world):
    nodes, store, cluster = world
    await nodes.join(NodeFacts(), name="n1")
    old = await lost(nodes, cluster)
    await nodes.update("db", labels={}, availability="pause")
    new = await nodes.join(NodeFacts(), name="new", address="root@192.0.2.9", replaces="db")
    assert (new.name, new.labels, new.availability) == ("db", {"zone": "a"}, "pause")
    assert new.replaces == (old.id,)
    assert new.id != old.id
    assert new.overlay != old.overlay, "the lost machine may yet run with its own"
    assert await store.get(f"/nodes/{old.id}") is None
    assert cluster.nodes[new.id] == new


async def test_a_replacement_may_be_lost_too_and_the_same_address_may_come_again(world):
    nodes, _, cluster = world
    old = await lost(nodes, cluster)
    second = await nodes.join(NodeFacts(), name="x", address=old.address, replaces="db")
    cluster.conditions[second.id] = NodeCondition(status="down")
    third = await nodes.join(NodeFacts(), name="x", address=old.address, replaces="db")
    assert third.replaces == (second.id, old.id)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("ready", "node db is ready .silent.: only a lost one is replaced"),
        ("unready", "node db is unready"),
        ("unknown", "node db is unknown"),
    ],
)
async def test_only_a_lost_node_is_replaced(world, status, words):
    nodes, store, cluster = world
    await lost(nodes, cluster, status=status)
    before = await store.list("/")
    with pytest.raises(Conflict, match=words):
        await nodes.join(NodeFacts(), name="x", address="root@192.0.2.9", replaces="db")
    assert await store.list("/") == before


async def test_the_controllers_own_machine_is_not_replaced(world):
    nodes, _, cluster = world
    node = await nodes.join(NodeFacts(), name="n1")
    cluster.conditions[node.id] = NodeCondition(status="down")
    with pytest.raises(Conflict, match="n1 is the controller's own machine"):
        nodes.lost("n1")


async def test_of_two_replacements_at_once_one_is_made(world):
    nodes, _, cluster = world
    await lost(nodes, cluster)
    made = await asyncio.gather(
        *(
            nodes.join(NodeFacts(), name="x", address=f"root@192.0.2.{n}", replaces="db")
            for n in (8, 9)
        ),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in made) == ["Conflict", "Node"]
    assert [node.name for node in cluster.nodes.values()] == ["db"]
