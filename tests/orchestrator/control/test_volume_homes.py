"""A volume whose home left the cluster: where its data is, by what members report."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.mirror.records import Volume
from orchestrator.control.planning.homes import holders
from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.objects import CreateVolume
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import FakeNode, Rig

pytestmark = pytest.mark.looptime

DB = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
FILE = {"db": DB, "top": {"volumes": {"data": {"name": "app_data", "external": True}}}}


async def joins(rig, number, *volumes):
    """Add a machine that holds volumes from an earlier life."""
    await rig.add_node(number)
    node: FakeNode = rig.nodes[f"n{number}"]
    node.agent.volumes.names = volumes
    await rig.until(lambda: f"n{number}" in rig.cluster.nodes)
    await node.connect()
    await rig.until(lambda: (c := rig.cluster.conditions.get(f"n{number}")) and c.status == "ready")


async def without_its_home(rig):
    await rig.control.make(CreateVolume(name="app_data", node="host2"))
    await rig.up(project(**FILE))
    await rig.deployed()
    assert rig.cluster.volumes["app_data"].home == "host2"
    await rig.nodes["n2"].crash()
    await rig.remove_node("n2")
    await rig.until(lambda: any(t.pending_reason for t in rig.live("db")))


def why(rig):
    return next(t.pending_reason for t in rig.live("db"))


@pytest.mark.parametrize(
    ("come", "home", "words"),
    [
        ([], "", ["its data is on host2, which left the cluster"]),  # nobody has it: by name
        ([()], "", ["its data is on host2, which left the cluster"]),  # a machine, without it
        ([("other",)], "", ["its data is on host2, which left the cluster"]),
        ([("app_data",)], "n3", []),  # the machine is back, as another node
        ([(), ("app_data", "other")], "n4", []),
    ],
)
async def test_where_a_volume_is_at_home_whose_home_left(come, home, words):
    async with Rig(nodes=2) as rig:
        await without_its_home(rig)
        told = []
        real = rig.control._streams.event
        rig.control._streams.event = lambda event, revision: (
            told.append(event.message) if event.kind == "volume.home" else None,
            real(event, revision),
        )
        for number, volumes in enumerate(come, start=3):
            await joins(rig, number, *volumes)
        if home:
            await rig.until(lambda: [t.node for t in rig.ready("db")] == [home])
            assert rig.cluster.volumes["app_data"].node == home
            name = rig.cluster.volumes["app_data"].home
            assert name == rig.cluster.nodes[home].name
            where = "host2, which left the cluster, had it"
            assert told == [f"volume app_data is at home on {name} now: it has it, and {where}"]
        else:
            assert all(word in why(rig) for word in words), why(rig)
            assert "n2" not in why(rig)


async def test_where_several_have_it_the_user_decides():
    async with Rig(nodes=3) as rig:
        for node in ("n1", "n3"):
            rig.nodes[node].agent.volumes.names = ("app_data",)
            await rig.nodes[node].cut()
            await rig.nodes[node].connect()
        await rig.until(lambda: rig.control._observed.volumes.keys() >= {"n1", "n3"})
        await without_its_home(rig)
        assert why(rig) == (
            "volume app_data was on host2, which left the cluster, and host1, host3 have one of "
            "that name: corral volume create --node NODE app_data says which it is"
        )
        await rig.control.make(CreateVolume(name="app_data", node="host3"))
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n3"])


@pytest.mark.parametrize("node", ["n2", ""])
async def test_a_volume_that_is_at_home_stays_whoever_else_has_one(node):
    async with Rig(nodes=2) as rig:
        volume = Volume(name="app_data", node=node)
        await rig.store.txn((), (Put(keys.volume("app_data"), volume.encode()),))
        await joins(rig, 3, "app_data")
        assert rig.cluster.volumes["app_data"].node == node


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ({}, []),
        ({"a": {"v"}}, ["a"]),
        ({"a": {"w"}}, []),
        ({"a": {"v"}, "b": {"v", "w"}}, ["a", "b"]),
        ({"gone": {"v"}}, []),
        ({"gone": {"v"}, "b": {"v"}}, ["b"]),
    ],
)
def test_who_holds_a_volume(held, found):
    assert holders("v", ["a", "b"], held) == found


@pytest.mark.parametrize("first", ["n1", "n3"])
async def test_after_a_restart_it_is_decided_when_every_member_has_said(first):
    """Law: who says first is not who has it."""
    async with Rig(nodes=3) as rig:
        for node in ("n1", "n3"):
            rig.nodes[node].agent.volumes.names = ("app_data",)
        await without_its_home(rig)
        for node in ("n1", "n3"):
            await rig.nodes[node].hang_up()
        await rig.halt()
        await rig.boot()
        await rig.nodes[first].connect()
        await rig.until(lambda: first in rig.control._observed.volumes)
        await asyncio.sleep(20)
        assert rig.cluster.volumes["app_data"].node == "n2", "the other one has yet to say"
        await rig.nodes["n3" if first == "n1" else "n1"].connect()
        await rig.until(lambda: "host1, host3 have one" in why(rig))
        assert rig.cluster.volumes["app_data"].node == "n2"


async def test_a_volume_that_was_removed_is_in_nobodys_report_any_more():
    def on(node):
        return {**DB, "deploy": {"placement": {"constraints": [f"node.hostname=={node}"]}}}

    top = {"volumes": {"data": {"name": "app_data"}}}
    async with Rig(nodes=3) as rig:
        await rig.up(project(db=on("host2"), top=top))
        await rig.deployed()
        n2 = rig.nodes["n2"]
        n2.agent.volumes.names = ("app_data",)
        await n2.cut()
        await n2.connect()
        await rig.until(lambda: "app_data" in rig.control._observed.volumes["n2"])
        await rig.control.remove("app", volumes=True, timeout=0)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert rig.agents.removed == [("n2", "app_data")]
        n2.agent.volumes.names = ()
        await rig.up(project(db=on("host3"), top=top))
        await rig.deployed()
        await rig.up(project(db=DB, top=top))
        await rig.deployed()
        assert rig.cluster.volumes["app_data"].node == "n3"
        await rig.nodes["n3"].crash()
        await rig.remove_node("n3")
        await rig.until(lambda: any(t.pending_reason for t in rig.live("db")))
        assert "its data is on host3, which left the cluster" in why(rig)
        assert rig.cluster.volumes["app_data"].node == "n3"


@pytest.mark.parametrize(
    ("held", "words", "ways"),
    [
        (
            ("app_data",),
            "and host1 has one of that name; host3 may have it too and has not been heard yet",
            ("corral volume create --node host1 app_data", "corral node rm"),
        ),
        ((), "host3 may have it too and has not been heard yet", ("corral node rm",)),
    ],
)
@pytest.mark.parametrize("way", ["heard", "removed", "said"])
async def test_a_member_that_was_not_heard_yet_holds_a_home_back_and_that_is_said(
    held, words, ways, way
):
    """Law: data is not taken for another volume's; who waits says for whom and what helps."""
    async with Rig(nodes=3) as rig:
        rig.nodes["n1"].agent.volumes.names = held
        await without_its_home(rig)
        for node in ("n1", "n3"):
            await rig.nodes[node].hang_up()
        await rig.halt()
        await rig.boot()
        await rig.nodes["n1"].connect()
        await rig.until(lambda: "host3" in why(rig))
        await asyncio.sleep(300)  # however long
        assert words in why(rig)
        assert all(one in why(rig) for one in ways)
        assert rig.cluster.volumes["app_data"].node == "n2"

        if way == "heard":
            await rig.nodes["n3"].connect()
        elif way == "removed":
            await rig.remove_node("n3")
        else:
            await rig.control.make(CreateVolume(name="app_data", node="host1"))
        if held or way == "said":
            await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n1"])
        else:
            await rig.until(lambda: "its data is on host2, which left the cluster" in why(rig))
