"""A node whose network is not in order, or whose address changed: what becomes of it."""

from __future__ import annotations

import asyncio

import pytest

from specs.wire import Report
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
WHY = "the MTU of the device with 192.0.2.2 is 500; the overlay needs 626 at least"


def statuses(rig):
    return {node: str(c.status) for node, c in rig.cluster.conditions.items()}


async def test_a_node_without_a_working_network_is_not_ready_and_says_why():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        rig.nodes["n2"].agent.network.troubled = WHY
        await rig.until(lambda: statuses(rig)["n2"] == "unready", within=20)

        condition = rig.cluster.conditions["n2"]
        assert condition.reason == f"its network is not in order: {WHY}"
        # What runs there runs on, and counts.
        assert {t.id for t in rig.live("web")} == before
        assert len(rig.ready("web")) == 3
        # Nothing new comes to it.
        await rig.control.scale("app", {"web": 6})
        await rig.until(lambda: len(rig.ready("web")) == 6)
        assert [t.node for t in rig.live("web")].count("n2") == 1

        rig.nodes["n2"].agent.network.troubled = ""
        await rig.until(lambda: statuses(rig)["n2"] == "ready", within=20)
        assert before <= {t.id for t in rig.live("web")}
        await rig.control.scale("app", {"web": 9})
        await rig.until(lambda: len(rig.ready("web")) == 9)
        assert [t.node for t in rig.live("web")].count("n2") == 3


async def test_where_no_network_works_the_reason_is_the_tasks_reason():
    async with Rig() as rig:
        rig.nodes["n1"].agent.network.troubled = WHY
        await rig.until(lambda: statuses(rig)["n1"] == "unready", within=20)
        await rig.up(project(web=replicas(1)))
        await rig.until(lambda: any(WHY in t.pending_reason for t in rig.tasks("web")))
        rig.nodes["n1"].agent.network.troubled = ""
        await rig.deployed()


async def test_nobody_waits_for_the_word_of_a_node_without_a_working_network():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        rig.nodes["n3"].agent.network.troubled = WHY
        rig.nodes["n3"].late = 1000.0  # nothing comes into force there
        await rig.until(lambda: statuses(rig)["n3"] == "unready", within=20)
        begun = rig.clock.monotonic()
        await rig.control.scale("app", {"web": 1})
        await rig.until(lambda: len([t for t in rig.tasks("web") if t.node != "n3"]) <= 1)
        assert rig.clock.monotonic() - begun < 4.0


async def tell(rig, node, **facts):
    """Have a node's agent say what its machine is now."""
    fake = rig.nodes[node]
    report = Report(facts=fake.node.facts.model_copy(update=facts))
    await rig.control.ingest(node, report)


async def test_the_mtu_a_node_has_is_told_to_the_others():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        for mtu in (1300, 1500):
            rig.nodes["n2"].agent.network.mtu = mtu
            await rig.until(
                lambda mtu=mtu: all(
                    rig.nodes[n].wanted.peers["n2"].mtu == mtu for n in ("n1", "n3")
                ),
                within=20,
            )
        assert rig.nodes["n2"].wanted.peers["n1"].mtu == 0


async def test_a_nodes_new_address_is_told_to_the_others_and_to_itself():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        await tell(rig, "n2", addresses=("192.0.2.77", "10.210.0.2"))
        await rig.until(
            lambda: all(
                rig.nodes[n].wanted.peers["n2"].underlay == "192.0.2.77" for n in ("n1", "n3")
            )
        )
        await rig.until(lambda: rig.nodes["n2"].agent.holdings.held.me.underlay == "192.0.2.77")
        assert rig.cluster.nodes["n2"].overlay == "10.210.0.2", "the overlay does not move"
        assert {t.id for t in rig.live("web")} == before
        # A named one is left alone, and is told as it is named.
        await rig.put_node(rig.cluster.nodes["n2"].with_underlay("192.0.2.78", asked=True))
        await rig.until(lambda: rig.nodes["n1"].wanted.peers["n2"].underlay == "192.0.2.78")
        await tell(rig, "n2", addresses=("192.0.2.79",))
        await asyncio.sleep(5)
        assert rig.nodes["n1"].wanted.peers["n2"].underlay == "192.0.2.78"
