"""Slots with anonymous volumes: back where they were, or elsewhere and said to be empty."""

from __future__ import annotations

import pytest

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

DATA = {"volumes": [{"type": "volume", "target": "/data"}]}
ON_ONE = {"deploy": {"replicas": 9, "placement": {"constraints": ["node.name == host1"]}}}


def places(rig):
    return {task.slot: task.node for task in rig.ready("web")}


async def crowded(rig, data):
    """Three copies on three nodes; then one of these has nine other tasks."""
    await rig.up(project(web=replicas(3, **data)))
    await rig.deployed()
    before = places(rig)
    assert sorted(before.values()) == ["n1", "n2", "n3"]
    await rig.up(project(crowd={"image": "crowd", **ON_ONE}), stack="other")
    await rig.until(lambda: len(rig.cluster.by_node["n1"]) >= 10)
    return before


@pytest.mark.parametrize("way", ["stop", "update"])
@pytest.mark.parametrize("whose", ["file", "image", "both", "nobody"])
async def test_a_slot_comes_back_to_the_node_of_its_volumes(whose, way):
    data = DATA if whose in ("file", "both") else {}
    async with Rig(nodes=3) as rig:
        if whose in ("image", "both"):
            rig.how["web"] = Behaviour(volumes=("/seed",))
        before = await crowded(rig, data)
        if way == "stop":
            await rig.control.stop("app", 0)
            await rig.until(lambda: not rig.ready("web"))
            await rig.start()
        else:
            await rig.up(project(web=replicas(3, image="web:2", **data)))
        await rig.deployed()
        assert (places(rig) == before) == (whose != "nobody")


async def test_a_slot_whose_node_is_drained_moves_and_says_that_it_is_empty():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(2, **DATA), plain=replicas(2)))
        await rig.deployed()
        slot, node = next(iter(places(rig).items()))
        said = []
        real = rig.control._streams.event
        rig.control._streams.event = lambda event, revision: (
            said.append((event.kind, event.message)),
            real(event, revision),
        )
        record = rig.cluster.nodes[node]
        await rig.put_node(record.model_copy(update={"availability": "drain"}))
        await rig.until(lambda: places(rig).get(slot) not in (None, node), within=60)
        told = [text for kind, text in said if kind == "task.volumes-left"]
        (text,) = set(told)
        assert f"app-web-{slot} starts on" in text
        assert "with empty anonymous volumes" in text
        assert record.name in text
        assert "plain" not in text
