"""A machine took the place of a lost node: what was tied to that one is this one's, but its data.

Nothing may start on an empty folder where data is expected, whatever kind of place it was.
"""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.store import keys
from orchestrator.store.base import Delete, Put
from specs.objects import CreateVolume
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

PATH = "/srv/db"
BIND = {"volumes": [{"type": "bind", "source": PATH, "target": "/data"}]}
VOLUME = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
FILE = {"db": VOLUME, "top": {"volumes": {"data": {"name": "app_data"}}}}
PINNED = {"deploy": {"placement": {"constraints": ["node.name == host2"]}}}


async def replaced(rig):
    """Lose n2 and put n9 in its place, as `node replace` does."""
    old = rig.cluster.nodes["n2"]
    await rig.nodes["n2"].crash()
    await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
    await rig.add_node(9)
    await rig.until(lambda: "n9" in rig.cluster.nodes)
    new = rig.cluster.nodes["n9"].instead_of(old)
    await rig.store.txn((), (Delete(keys.node("n2")), Put(keys.node("n9"), new.encode())))
    await rig.until(lambda: "n2" not in rig.cluster.nodes)
    await rig.nodes["n9"].connect()
    await rig.until(lambda: rig.cluster.conditions["n9"].status == "ready")


def why(rig, service="db"):
    return " ".join(sorted({t.pending_reason for t in rig.live(service)}))


async def test_data_of_a_bound_path_is_waited_for_and_never_made_anew():
    async with Rig(nodes=2) as rig:
        rig.agents.has = {"n2": {PATH: "there"}}
        await rig.up(project(db={**BIND, **PINNED}))
        await rig.deployed()
        await replaced(rig)
        await rig.until(lambda: "was on the machine that host2 replaces" in why(rig))
        for state in ("absent", "made", "unknown"):
            rig.agents.has = {"n9": {PATH: state}}
            await asyncio.sleep(30)
            assert rig.ready("db") == [], state
        rig.agents.has = {"n9": {PATH: "there"}}
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n9"])
        assert rig.cluster.bound_paths["app", PATH].node == "n9"
        # From here on it is n9's like any other: what is gone there is made as ever.
        rig.agents.has = {}
        await rig.up(project(db={**BIND, **PINNED, "image": "db:2"}))
        await rig.deployed()


async def test_of_a_path_nobody_was_asked_about_it_is_not_said_that_it_lacks():
    async with Rig(nodes=2) as rig:
        rig.agents.has = {"n2": {PATH: "there"}}
        await rig.up(project(db={**BIND, **PINNED}))
        await rig.deployed()
        rig.agents.has = {"n9": {PATH: "absent"}}
        await replaced(rig)
        await rig.until(lambda: "put the data there" in why(rig))
        await rig.nodes["n9"].crash()
        await rig.until(lambda: rig.cluster.conditions["n9"].status == "down")
        await rig.until(lambda: "host2 is down: it is asked once it is ready" in why(rig))
        assert f"{PATH} was on the machine that host2 replaces" in why(rig)
        assert "put the data" not in why(rig)


async def test_a_path_the_new_machine_is_just_asked_about_is_said_so():
    async with Rig(nodes=2) as rig:
        rig.agents.has = {"n2": {PATH: "there"}}
        await rig.up(project(db={**BIND, **PINNED}))
        await rig.deployed()
        real = rig.agents.paths

        async def paths(node, asked):
            if node == "n9":
                await asyncio.Event().wait()
            return await real(node, asked)

        rig.agents.paths = paths
        await replaced(rig)
        await rig.until(lambda: "host2 is asked whether it is there" in why(rig))
        assert f"{PATH} was on the machine that host2 replaces" in why(rig)
        assert "put the data" not in why(rig)


async def test_a_volume_is_waited_for_until_somebody_says_where_it_is():
    async with Rig(nodes=2) as rig:
        await rig.control.make(CreateVolume(name="app_data", node="host2"))
        await rig.up(
            project(db=VOLUME, top={"volumes": {"data": {"name": "app_data", "external": True}}})
        )
        await rig.deployed()
        await replaced(rig)
        await rig.until(lambda: "its data is on the machine that host2 replaces" in why(rig))
        await asyncio.sleep(60)
        assert rig.ready("db") == []
        (row,) = rig.control.volumes().volumes
        assert row.reason == (
            "its data is on the machine that host2 replaces: corral volume restore app_data FILE "
            "puts a backup of it in place, corral volume create --node NODE app_data begins with "
            "what NODE has of it, else empty"
        )
        await rig.control.make(CreateVolume(name="app_data", node="host2"))
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n9"])
        assert rig.control.volumes().volumes[0].reason == ""


async def test_what_was_put_back_before_it_joined_is_found():
    async with Rig(nodes=2) as rig:
        await rig.control.make(CreateVolume(name="app_data", node="host2"))
        await rig.up(
            project(db=VOLUME, top={"volumes": {"data": {"name": "app_data", "external": True}}})
        )
        await rig.deployed()
        real = rig.add_node

        async def add(number):
            await real(number)
            rig.nodes[f"n{number}"].agent.volumes.names = ("app_data",)

        rig.add_node = add
        await replaced(rig)
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n9"])


async def test_what_is_pinned_by_name_alone_goes_on_at_once():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=PINNED))
        await rig.deployed()
        await replaced(rig)
        await rig.until(lambda: [t.node for t in rig.ready("web")] == ["n9"])
