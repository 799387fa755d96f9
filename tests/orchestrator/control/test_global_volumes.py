"""A global service's named volume: each node has its own, as in Swarm; it ties nothing."""

from __future__ import annotations

import pytest

from specs.objects import CreateVolume
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

MOUNT = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
GLOBAL = {**MOUNT, "deploy": {"mode": "global"}}
NFS = {"driver_opts": {"type": "nfs", "o": "addr=192.0.2.9", "device": ":/x"}}


def file(service, **volume):
    return project(agent=service, top={"volumes": {"data": {"name": "app_data", **volume}}})


CASES = {
    # volume of the file, made by hand on a node first -> nodes of the tasks, home, everywhere
    "named": ({}, None, ["n1", "n2", "n3"], "", True),
    "external": ({"external": True}, "", ["n1", "n2", "n3"], "", True),
    "external-at-home": ({"external": True}, "host2", ["n1", "n2", "n3"], "n2", True),
    "a-share": (NFS, None, ["n1", "n2", "n3"], "", False),
}


@pytest.mark.parametrize("case", CASES)
async def test_each_node_has_its_own(case):
    volume, made, nodes, home, everywhere = CASES[case]
    async with Rig(nodes=3) as rig:
        if made is not None:
            await rig.control.make(CreateVolume(name="app_data", node=made))
        await rig.up(file(GLOBAL, **volume))
        await rig.until(lambda: sorted(t.node for t in rig.ready("agent")) == nodes)
        record = rig.cluster.volumes["app_data"]
        assert (record.node, record.everywhere) == (home, everywhere)
        (row,) = rig.control.volumes().volumes
        assert row.everywhere is everywhere


async def test_a_service_that_is_not_global_stays_with_the_one_it_began_with():
    async with Rig(nodes=3) as rig:
        both = {
            "agent": GLOBAL,
            "db": {**MOUNT, "deploy": {"replicas": 2}},
            "top": {"volumes": {"data": {"name": "app_data"}}},
        }
        await rig.up(project(**both))
        await rig.until(lambda: len(rig.ready("agent")) == 3 and len(rig.ready("db")) == 2)
        (home,) = {t.node for t in rig.ready("db")}
        record = rig.cluster.volumes["app_data"]
        assert (record.node, record.everywhere) == (home, True)


async def test_a_new_node_gets_one_and_down_v_takes_them_all():
    async with Rig(nodes=2) as rig:
        await rig.up(file(GLOBAL))
        await rig.deployed()
        await rig.add_node(3)
        await rig.until(lambda: "n3" in rig.cluster.nodes)
        await rig.nodes["n3"].connect()
        await rig.until(lambda: len(rig.ready("agent")) == 3)
        await rig.control.remove("app", volumes=True, timeout=0)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert sorted(rig.agents.removed) == [(f"n{n}", "app_data") for n in (1, 2, 3)]
        assert rig.cluster.volumes == {}
