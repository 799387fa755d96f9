"""Absolute binds: who is asked, where tasks go, what is kept, whatever happens meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.api.rows import task_row
from specs.oneoff import StartOneOff
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

PATH = "/srv/db"
GLOBAL = {"deploy": {"mode": "global"}}


def bind(source=PATH, *, read_only=False):
    return {
        "volumes": [{"type": "bind", "source": source, "target": "/data", "read_only": read_only}]
    }


def has(rig, *nodes, path=PATH, state="there"):
    for node in nodes:
        rig.agents.has.setdefault(node, {})[path] = state


def places(rig, service=None):
    return sorted(task.node or "" for task in rig.live(service))


CASES = {
    # nodes with the path, service -> nodes it runs on (None: one of them, whichever)
    "nobody has it": ((), replicas(2, **bind()), None),
    "one has it": (("n2",), replicas(2, **bind()), ["n2", "n2"]),
    "all have it": (("n1", "n2", "n3"), replicas(3, **bind()), ["n1", "n2", "n3"]),
    "two have it, read only": (
        ("n2", "n3"),
        replicas(4, **bind(read_only=True)),
        ["n2", "n2", "n3", "n3"],
    ),
    "nobody has it, read only": ((), replicas(3, **bind(read_only=True)), ["n1", "n2", "n3"]),
    "global": (("n2",), {**GLOBAL, **bind()}, ["n1", "n2", "n3"]),
    "a socket one has": (("n3",), replicas(2, **bind("/run/x.sock")), ["n3", "n3"]),
}


@pytest.mark.parametrize("case", CASES)
async def test_where_tasks_go_at_first(case):
    nodes, service, expected = CASES[case]
    async with Rig(nodes=3) as rig:
        has(rig, *nodes)
        has(rig, *nodes, path="/run/x.sock")
        await rig.up(project(web=service))
        await rig.deployed()
        assert places(rig) == expected or (expected is None and len(set(places(rig))) == 1)


async def test_who_reads_what_another_writes_goes_to_it():
    async with Rig(nodes=3) as rig:
        await rig.up(project(db=bind(), copy=bind(read_only=True)))
        await rig.deployed()
        assert len(set(places(rig))) == 1


async def test_it_comes_back_to_its_data_after_down_and_not_after_down_with_volumes():
    async with Rig(nodes=3) as rig:
        has(rig, "n3")
        await rig.up(project(db=bind()))
        await rig.deployed()
        for volumes in (False, True):
            await rig.control.remove("app", volumes=volumes, timeout=None)
            await rig.until(lambda: "app" not in rig.cluster.stacks)
            rig.agents.has = {"n2": {PATH: "there"}}
            await rig.up(project(db=bind()))
            await rig.deployed()
            assert places(rig) == (["n2"] if volumes else ["n3"])


async def test_of_what_runs_without_a_record_the_place_is_kept():
    """Records are younger than some stacks, and than a store that was lost."""
    async with Rig(nodes=2) as rig:
        has(rig, "n2")
        await rig.up(project(db=bind()))
        await rig.deployed()
        rig.cluster.bound_paths.clear()
        rig.agents.has = {}
        await rig.up(project(db={**bind(), "image": "db:2"}))
        await rig.deployed()
        assert places(rig) == ["n2"]


async def test_while_its_node_is_down_it_waits_and_says_for_what():
    async with Rig(nodes=2) as rig:
        await rig.up(project(db=bind()))
        await rig.deployed()
        (first,) = rig.live()
        await rig.nodes[first.node].crash()
        await rig.until(lambda: rig.cluster.conditions[first.node].status == "down")
        await asyncio.sleep(30)
        assert [t.id for t in rig.tasks()] == [first.id]
        row = task_row(rig.cluster, rig.cluster.tasks[first.id], now=rig.clock.wall())
        assert f"path {PATH}" in row.status
        await rig.nodes[first.node].connect()
        await rig.until(lambda: rig.ready("db"))


async def test_a_new_task_waits_for_the_node_with_the_data_by_name():
    async with Rig(nodes=2) as rig:
        await rig.up(project(db=bind()))
        await rig.deployed()
        (first,) = rig.live()
        await rig.nodes[first.node].crash()
        await rig.until(lambda: rig.cluster.conditions[first.node].status == "down")
        await rig.control.scale("app", {"db": 2})
        await rig.until(lambda: any("its data is on" in t.pending_reason for t in rig.tasks()))
        (waiting,) = [t for t in rig.tasks() if t.pending_reason]
        assert f"path {PATH} (its data is on host{first.node[1:]})" in waiting.pending_reason


@pytest.mark.parametrize(("everywhere", "moves"), [(True, True), (False, False)])
async def test_a_drained_node_keeps_what_has_its_data_there_only(everywhere, moves):
    async with Rig(nodes=1) as rig:
        has(rig, "n1")
        await rig.up(project(db=bind()))
        await rig.deployed()
        await rig.add_node(2)
        await rig.nodes["n2"].connect()
        await rig.until(lambda: (c := rig.cluster.conditions.get("n2")) and c.status == "ready")
        if everywhere:
            has(rig, "n2")
        node = rig.cluster.nodes["n1"]
        await rig.put_node(node.model_copy(update={"availability": "drain"}))
        await asyncio.sleep(60)
        assert places(rig) == (["n2"] if moves else ["n1"])


async def test_a_node_that_does_not_say_is_waited_for_a_moment_and_then_lacks_it():
    async with Rig(nodes=3) as rig:
        has(rig, "n1", "n2", "n3")
        rig.agents.deaf.add("n3")
        await rig.up(project(db=replicas(3, **bind())))
        await rig.deployed()
        assert len(set(places(rig))) == 1
        assert "n3" not in places(rig)


async def test_what_is_on_every_node_later_binds_to_none():
    async with Rig(nodes=2) as rig:
        has(rig, "n1")
        await rig.up(project(db=replicas(1, **bind())))
        await rig.deployed()
        assert places(rig) == ["n1"]
        await asyncio.sleep(5)
        has(rig, "n2")
        await rig.control.scale("app", {"db": 2})
        await rig.until(lambda: places(rig) == ["n1", "n2"])


async def test_on_another_node_it_is_never_made():
    async with Rig(nodes=2) as rig:
        has(rig, "n1", "n2")
        await rig.up(project(db=replicas(2, **bind()), every={**GLOBAL, **bind()}))
        await rig.deployed()
        told = {
            (held.service, held.elsewhere)
            for node in rig.nodes.values()
            for held in node.wanted.tasks.values()
        }
        assert told == {("db", (PATH,)), ("every", ())}


async def test_on_one_node_nobody_is_asked_and_it_may_be_made():
    async with Rig() as rig:
        await rig.up(project(db=bind()))
        await rig.deployed()
        (held,) = rig.nodes["n1"].wanted.tasks.values()
        assert held.elsewhere == ()
        assert rig.agents.looked == []


async def test_up_says_what_stays_on_one_node_where_there_are_others_and_once():
    def told(row):
        return [w.message for w in row.warnings if w.code == "pinned"]

    async with Rig(nodes=2) as rig:
        request = rig.request(project(db=bind(), web={}))
        assert told(await rig.control.deploy("app", request)) == [
            f"stays on one node, where its data is: db (path {PATH}, unless every node has it)"
        ]
        await rig.deployed()
        again = rig.request(project(db={**bind(), "image": "db:2"}))
        assert told(await rig.control.deploy("app", again)) == []
    async with Rig() as rig:
        assert told(await rig.control.deploy("app", rig.request(project(db=bind())))) == []


@pytest.mark.parametrize("first", [True, False])
async def test_a_one_off_goes_where_the_data_is(first):
    async with Rig(nodes=3) as rig:
        has(rig, "n3")
        if not first:
            await rig.up(project(db=bind()))
            await rig.deployed()
        request = StartOneOff(deploy=rig.request(project(db=bind())), service="db")
        end = [line async for line in rig.control.start_oneoff("app", request)][-1]
        await rig.until(lambda: rig.cluster.oneoffs[end.task].task.node)
        assert rig.cluster.oneoffs[end.task].task.node == "n3"


async def test_a_one_off_that_reads_goes_where_what_is_written_is():
    """Its spec has its own service alone: that another service writes the path, the record says."""
    db = {**bind(), "deploy": {"placement": {"constraints": ["node.hostname==host1"]}}}
    async with Rig(nodes=2) as rig:
        has(rig, "n2")
        services = {"db": db, "backup": bind(read_only=True)}
        await rig.up(project(**services))
        await rig.deployed()
        assert places(rig) == ["n1", "n1"]
        has(rig, "n1", state="made")
        request = StartOneOff(
            deploy=rig.request(project(**services), services=("backup",)),
            service="backup",
            dependencies=False,
        )
        end = [line async for line in rig.control.start_oneoff("app", request)][-1]
        await rig.until(lambda: rig.cluster.oneoffs[end.task].task.node)
        assert rig.cluster.oneoffs[end.task].task.node == "n1"


async def test_of_two_paths_each_is_asked_for_itself():
    """Law: that one path needs no question takes nothing from what is asked of the next one."""
    second = {**bind("/b")["volumes"][0], "target": "/more"}
    both = {"volumes": [*bind("/a")["volumes"], second]}
    async with Rig(nodes=2) as rig:
        has(rig, "n1", "n2", path="/b")
        await rig.up(project(web=both))
        await rig.deployed()
        (first,) = rig.live()
        other = "n2" if first.node == "n1" else "n1"
        await rig.nodes[other].crash()
        await rig.remove_node(other)
        await rig.until(lambda: other not in rig.cluster.nodes)
        await rig.up(project(web={**both, "command": ["new"]}))
        await rig.deployed()
        assert places(rig) == [first.node]
