"""A node whose disk is full: it is heard, what runs there counts, and nothing new comes to it."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.telling.words import words_of
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
FULL = "no room is left: /var/lib/corral/agent has 0 of 20480 MiB free; free some"
BROKEN = "the MTU is too small"


async def until_status(rig, node, status):
    await rig.until(lambda: rig.cluster.conditions[node].status == status, within=20)


@pytest.mark.parametrize(
    ("network", "room", "reason"),
    [
        ("", FULL, FULL),
        (BROKEN, "", f"its network is not in order: {BROKEN}"),
        (BROKEN, FULL, f"its network is not in order: {BROKEN}; {FULL}"),
    ],
)
async def test_the_reason_names_what_is_the_matter(network, room, reason):
    async with Rig(nodes=2) as rig:
        agent = rig.nodes["n2"].agent
        agent.network.troubled, agent.full = network, room
        await until_status(rig, "n2", "unready")
        assert rig.cluster.conditions["n2"].reason == reason
        agent.network.troubled = agent.full = ""
        await until_status(rig, "n2", "ready")
        assert rig.cluster.conditions["n2"].reason == ""


async def test_what_runs_there_counts_and_nothing_new_comes():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        rig.nodes["n2"].agent.full = FULL
        await until_status(rig, "n2", "unready")
        await rig.control.scale("app", {"web": 6})
        await rig.until(lambda: len(rig.ready("web")) == 6)
        assert before <= {t.id for t in rig.live("web")}, "law: nothing is replaced because of it"
        assert [t.node for t in rig.live("web")].count("n2") == 1
        await rig.control.remove("app", volumes=True, timeout=None)
        await rig.until(lambda: not rig.tasks("web"), within=60)
        assert not rig.nodes["n2"].agent.containers.alive


async def test_a_task_that_belongs_there_waits_with_the_reason():
    async with Rig(nodes=2) as rig:
        rig.nodes["n2"].agent.full = FULL
        await until_status(rig, "n2", "unready")
        await rig.up(
            project(web=replicas(1, deploy={"placement": {"constraints": ["node.id == n2"]}}))
        )
        await rig.until(lambda: any(FULL in t.pending_reason for t in rig.tasks("web")))
        rig.nodes["n2"].agent.full = ""
        await rig.deployed()


LITTLE = "cannot mount the root of it: no inode is left on the disk (df -i): delete some files"


@pytest.mark.parametrize("full", [("n2",), ("n1", "n2"), ("n3",)])
async def test_what_cannot_be_prepared_for_lack_of_room_goes_elsewhere(full):
    """The node learns with the first task that it has none; who had been served goes on."""
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        for node in full:
            rig.nodes[node].agent.crowded = LITTLE
        await rig.control.scale("app", {"web": 9})
        await rig.until(lambda: len(rig.ready("web")) == 9 and len(rig.live("web")) == 9)
        assert before <= {t.id for t in rig.live("web")}
        assert [t.node for t in rig.live("web") if t.node in full] == list(full)
        made = {t.id for t in rig.tasks("web")}
        await rig.until(lambda: len(rig.tasks("web")) == 9)
        assert len(made) <= 9 + 6, "law: one try for each node and task, no loop"


async def test_where_no_node_has_room_it_waits_where_it_is_and_says_why():
    async with Rig(nodes=2) as rig:
        for node in rig.nodes.values():
            node.agent.crowded = LITTLE
        await rig.up(project(web=replicas(1)))
        await rig.until(
            lambda: any("no room on the disk" in t.pending_reason for t in rig.tasks("web"))
        )
        assert len(rig.tasks("web")) <= 3
        rig.nodes["n1"].agent.crowded = ""
        await rig.deployed()
        assert [t.node for t in rig.live("web")] == ["n1"]


@pytest.mark.parametrize("tie", ["volume", "constraint", "global"])
async def test_what_is_tied_to_the_full_node_waits_there(tie):
    async with Rig(nodes=2) as rig:
        deploy = {"placement": {"constraints": ["node.id == n2"]}}
        service = replicas(1, deploy={} if tie == "volume" else deploy)
        if tie == "volume":
            service["volumes"] = [{"type": "volume", "source": "data", "target": "/data"}]
        if tie == "global":
            service = {"deploy": {"mode": "global", **deploy}}
        await rig.up(project(web=service, top={"volumes": {"data": {"name": "app_data"}}}))
        await rig.deployed()
        (home,) = [t.node for t in rig.live("web")]
        rig.nodes[home].agent.crowded = LITTLE
        service["environment"] = {"A": "1"}
        await rig.up(project(web=service, top={"volumes": {"data": {"name": "app_data"}}}))
        await rig.until(lambda: any(t.status.crowded for t in rig.tasks("web")))
        await asyncio.sleep(20)
        assert {t.node for t in rig.tasks("web")} <= {home, None}
        assert len(rig.tasks("web")) <= 3
        rig.nodes[home].agent.crowded = ""
        await rig.deployed(within=120)
        assert [t.node for t in rig.live("web")] == [home]


@pytest.mark.parametrize(
    ("network", "room", "kept"), [("", FULL, True), (BROKEN, FULL, True), (BROKEN, "", False)]
)
async def test_a_restart_takes_nothing_away_where_nothing_could_come_back(network, room, kept):
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        agent = rig.nodes["n2"].agent
        agent.network.troubled, agent.full = network, room
        await until_status(rig, "n2", "unready")
        (there,) = [t for t in rig.live("web") if t.node == "n2"]
        (other,) = [t for t in rig.live("web") if t.node == "n1"]
        await rig.restart("web")
        await rig.until(lambda: rig.cluster.tasks[other.id].status.restart_done)
        if kept:
            said = f"restart waits for room on {rig.cluster.nodes['n2'].name} ({FULL})"
            await rig.until(lambda: said in words_of(rig.cluster, rig.cluster.tasks[there.id]).text)
            await asyncio.sleep(10)
            assert len(rig.cluster.tasks[there.id].status.runs) == 1
            assert rig.cluster.tasks[there.id].status.ready, "law: the old run serves on"
            agent.full = ""
        await rig.until(lambda: rig.cluster.tasks[there.id].status.restart_done)
        await rig.until(lambda: len(rig.ready("web")) == 2)
        assert not rig.cluster.tasks[there.id].restart_waits
