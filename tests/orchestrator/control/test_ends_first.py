"""What cannot exist twice leaves a node that is to be empty by ending first.

A copy of it (under a lease, with a port of its host, with a fixed address) made beside it could
never begin while it runs. So it ends first where another node takes it; else it stays, and says
so.
"""

from __future__ import annotations

import asyncio

import pytest

from specs.states import NodeStatus
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

PORT = {"target": 80, "published": "80", "mode": "host", "protocol": "tcp"}
FIXED = {"networks": {"default": {"ipv4_address": "10.9.0.9"}}}
TWICE = {
    "a lease": {"x-corral": {"exclusive": True}},
    "a port of the host": {"ports": [PORT]},
    "a fixed address": FIXED,
}
frozen = pytest.mark.parametrize("frozen", [False, True], ids=["at rest", "its release failed"])


def once(kind: str, *, bad: bool = False, **more) -> dict:
    """Return a file with such a service; ``bad``: and with one that fails."""
    services = {"db": {**replicas(1), **TWICE[kind], **more}}
    if bad:
        services["bad"] = {"restart": "no", **replicas(1)}
    found = project(**services)
    if TWICE[kind] is FIXED:
        found["networks"]["default"]["ipam"] = {"config": [{"subnet": "10.9.0.0/24"}]}
    return found


async def drain(rig: Rig, node) -> None:
    await rig.put_node(rig.cluster.nodes[node.node.id].with_availability("drain"))


async def fail(rig: Rig, kind: str) -> None:
    """Have the newest release fail, by another service."""
    rig.how["bad"] = Behaviour(exit_code=1)
    await rig.up(once(kind, bad=True))
    end = await rig.end_of(within=120)
    assert not end.ok


@frozen
@pytest.mark.parametrize("kind", TWICE)
async def test_it_moves_by_ending_first(kind, frozen):
    async with Rig(nodes=2) as rig:
        await rig.up(once(kind))
        await rig.deployed(within=120)
        if frozen:
            await fail(rig, kind)
        (old,) = rig.live("db")
        most = 0

        def look(*_):
            nonlocal most
            most = max(most, len([t for t in rig.tasks("db") if t.state == "running"]))

        rig.watchers.append(look)
        await drain(rig, rig.fake_of(old))
        await rig.until(lambda: [t for t in rig.ready("db") if t.node != old.node], within=120)
        assert most == 1
        await rig.until(lambda: not any(t.id == old.id and t.live for t in rig.tasks("db")))


@pytest.mark.parametrize("kind", TWICE)
async def test_it_stays_where_no_other_node_takes_it(kind):
    here = {"deploy": {"replicas": 1, "placement": {"constraints": ["node.labels.a == b"]}}}
    async with Rig(nodes=2) as rig:
        await rig.put_node(rig.cluster.nodes["n1"].with_labels({"a": "b"}))
        await rig.up(once(kind, **here))
        await rig.deployed(within=120)
        (old,) = rig.live("db")
        await drain(rig, rig.fake_of(old))
        await rig.until(lambda: rig.live("db")[0].misplaced)
        assert rig.live("db")[0].misplaced.startswith("host1 is to be empty, and no node fits: ")
        await asyncio.sleep(60)
        assert [t.id for t in rig.ready("db")] == [old.id]
        assert rig.release().state == "deployed"
        await rig.put_node(rig.cluster.nodes["n2"].with_labels({"a": "b"}))
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n2"], within=120)


@frozen
async def test_back_on_a_node_that_is_to_be_empty_the_old_copy_gives_way(frozen):
    """The new one is there, and waits for the lease that the old one has again."""
    async with Rig(nodes=3) as rig:
        await rig.up(once("a lease"))
        await rig.deployed(within=120)
        (old,) = rig.live("db")
        if frozen:
            await fail(rig, "a lease")
        lost = rig.fake_of(old)
        await lost.cut("no route to host")
        await rig.until(lambda: rig.cluster.conditions[lost.node.id].status == NodeStatus.DOWN)
        await rig.until(lambda: [t for t in rig.live("db") if t.id != old.id and t.node])
        await drain(rig, lost)
        await lost.connect()
        await rig.until(lambda: [t for t in rig.ready("db") if t.id != old.id], within=120)
        (new,) = rig.live("db")
        assert new.node != old.node
