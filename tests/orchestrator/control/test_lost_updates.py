"""A store is lost in the middle of an update: what nodes hold says who has traffic, and who not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.control.adopting import adopt
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.store.memory import MemoryStore
from tests.orchestrator.control.rig import Behaviour, PlainSealer, Rig
from tests.orchestrator.control.test_blue_green import NEW, OLD, began, web
from tests.orchestrator.control.test_rollout_situations import (
    COUNT,
    shares,
    weighted,
    with_canary,
)

pytestmark = pytest.mark.looptime


async def lose_the_store(rig: Rig) -> None:
    """The controller dies, and another one takes over what nodes hold."""
    helds = {name: await fake.agent.held() for name, fake in rig.nodes.items()}
    nodes: dict[str, Any] = dict(rig.cluster.nodes)
    for fake in rig.nodes.values():
        await fake.hang_up()
    await rig.halt()
    rig.store = MemoryStore()
    lost = await Cluster.open(rig.store, rig.clock)
    made = adopt(lost, helds, PlainSealer(), wall=rig.clock.wall(), found=nodes)
    assert await made.draft.commit(rig.store)
    await rig.boot()
    for fake in rig.nodes.values():
        await fake.connect()


@pytest.mark.parametrize("when", ["made", "up without traffic", "over"])
async def test_one_set_of_a_blue_green_update_has_traffic_whenever_the_store_is_lost(when):
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        rig.how["web:2"] = Behaviour(start=5.0) if when == "made" else Behaviour()
        await rig.up(web("web:2"))
        match when:
            case "made":
                await rig.until(lambda: sum(len(n.wanted.tasks) for n in rig.nodes.values()) == 6)
                assert traffic.ready() == OLD
            case "up without traffic":
                await rig.until(lambda: traffic.ready() == {**OLD, **NEW})
                assert traffic.now() == OLD
            case _:
                await rig.deployed()
                await asyncio.sleep(5)
        await lose_the_store(rig)
        await rig.until(lambda: rig.release().state.value == "deployed", within=60)
        await asyncio.sleep(5)
        for told in traffic.seen.values():
            assert told == [OLD, NEW], "law: every node is told of one whole set, then the other"
        assert traffic.ready() == {**OLD, **NEW}
        await rig.steer("abort")
        await rig.until(lambda: traffic.now() == OLD, within=5)


async def test_a_canary_keeps_its_share_when_the_store_is_lost():
    async with Rig(nodes=3) as rig:
        await with_canary(rig, weighted("web:1"), weighted("web:2"))
        told = {"release 1": 0, "release 2": 10}
        await rig.until(lambda: list(shares(rig).values()) == [told] * 3)
        await lose_the_store(rig)
        await asyncio.sleep(10)
        assert list(shares(rig).values()) == [told] * 3
        assert len(rig.ready("web")) == COUNT + 1, "and it stands"
        await rig.steer("promote")
        await rig.until(lambda: rig.release().state.value == "deployed", within=100)
        assert set(shares(rig)["n1"].values()) == {0}
