"""A task with data on a node that is down starts only after the one before it has ended there.

It can run nowhere else, so it comes to that node when it is back: with the old one, which ran on
all the while. Two of them would write the same data.
"""

from __future__ import annotations

import asyncio

import pytest

from specs.states import NodeStatus
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

VOLUME = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
BIND = {"volumes": [{"type": "bind", "source": "/srv/data", "target": "/data"}]}


def file(image: str, mount: dict) -> dict:
    db = {"image": image, **replicas(1), **mount}
    return project(db=db, top={"volumes": {"data": {"name": "app_data"}}})


@pytest.mark.parametrize("mount", [VOLUME, BIND], ids=["named volume", "path of the node"])
@pytest.mark.parametrize("restart", [False, True], ids=["same controller", "another controller"])
async def test_what_is_updated_while_its_node_is_down_waits_for_the_old_one(mount, restart):
    async with Rig(nodes=2) as rig:
        await rig.up(file("db:1", mount))
        await rig.deployed()
        (old,) = rig.live("db")
        home = rig.fake_of(old)
        await home.cut("no route to host")
        await rig.until(lambda: rig.cluster.conditions[home.node.id].status == NodeStatus.DOWN)
        await rig.up(file("db:2", mount))
        await rig.until(lambda: len(rig.live("db")) == 2)
        await asyncio.sleep(10)
        runs: set[str] = {old.id}
        twice = []

        def watch(_node, task, what):
            if what == "started":
                runs.add(task)
                twice.extend([task] if old.id in runs and task != old.id else [])
            elif what == "stopping":
                runs.discard(task)

        rig.watchers.append(watch)
        if restart:
            await rig.halt()
            await rig.boot()
            for fake in rig.nodes.values():
                await fake.hang_up()
                await fake.connect()
        else:
            await home.connect()
        await rig.until(lambda: [t.release for t in rig.ready("db")] == [2], within=120)
        assert not twice, "law: two tasks never write the same data"


async def test_it_says_what_it_waits_for():
    async with Rig(nodes=2) as rig:
        await rig.up(file("db:1", VOLUME))
        await rig.deployed()
        (old,) = rig.live("db")
        home = rig.fake_of(old)
        await home.cut("no route to host")
        await rig.until(lambda: rig.cluster.conditions[home.node.id].status == NodeStatus.DOWN)
        await rig.up(file("db:2", VOLUME))
        await rig.until(lambda: len(rig.live("db")) == 2)
        await asyncio.sleep(10)
        new = next(t for t in rig.live("db") if t.id != old.id)
        assert new.desired == "prepared"


async def test_so_it_is_while_another_release_prepares_its_images():
    async with Rig(nodes=2) as rig:
        await rig.up(file("db:1", VOLUME))
        await rig.deployed()
        (old,) = rig.live("db")
        home = rig.fake_of(old)
        await home.cut("no route to host")
        await rig.until(lambda: rig.cluster.conditions[home.node.id].status == NodeStatus.DOWN)
        await rig.up(file("db:2", VOLUME))
        await rig.until(lambda: len(rig.live("db")) == 2)
        rig.agents.delay = 5.0
        await rig.up(file("db:3", VOLUME))
        await asyncio.sleep(2)
        assert rig.release().state == "pending"
        assert [t.desired for t in rig.live("db") if t.id != old.id] == ["prepared"]


async def test_what_can_move_is_not_held_by_a_node_that_is_down():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={"image": "web:1", **replicas(2)}))
        await rig.deployed()
        lost = rig.nodes["n2"]
        await lost.cut("no route to host")
        await rig.until(lambda: rig.cluster.conditions["n2"].status == NodeStatus.DOWN)
        await rig.up(project(web={"image": "web:2", **replicas(2)}))
        await rig.deployed(within=120)
        assert {t.node for t in rig.ready("web")} == {"n1"}
