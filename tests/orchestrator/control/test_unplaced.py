"""A task that no node takes, and the next `up`, which says where it may go.

Constraints are no part of a task's spec: the task is kept, and must go by the rules asked for last.
"""

from __future__ import annotations

import pytest

from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


def pinned(where, **more):
    placement = {"constraints": [f"node.hostname == {where}"], **more}
    return project(web={"deploy": {"placement": placement}})


async def unplaced(rig):
    await rig.until(lambda: any(t.pending_reason and t.node is None for t in rig.live("web")))
    return [t.id for t in rig.live("web")]


@pytest.mark.parametrize("after", ["at once", "failed"])
async def test_one_that_was_never_placed_goes_where_the_next_file_says(after):
    async with Rig(nodes=2) as rig:
        await rig.up(pinned("host9"))
        before = await unplaced(rig)
        if after == "failed":
            assert not (await rig.end_of(within=3600.0)).ok
        await rig.up(pinned("host1"))
        await rig.deployed()
        assert [t.node for t in rig.ready("web")] == ["n1"]
        if after == "at once":
            assert [t.id for t in rig.ready("web")] == before, "law: it is the same task"


async def test_one_whose_node_left_goes_where_the_next_file_says():
    async with Rig(nodes=3) as rig:
        await rig.up(pinned("host2"))
        await rig.deployed()
        await rig.nodes["n2"].crash()
        await rig.remove_node("n2")
        await unplaced(rig)
        await rig.up(pinned("host1"))
        await rig.deployed()
        assert [t.node for t in rig.ready("web")] == ["n1"]


async def test_it_waits_by_the_rules_of_the_next_file():
    async with Rig(nodes=2) as rig:
        await rig.up(pinned("host9"))
        await unplaced(rig)
        await rig.up(pinned("host8"))
        await rig.until(lambda: "host8" in rig.live("web")[0].pending_reason)


async def test_what_keeps_its_spec_keeps_its_rules():
    """`start` changes nothing of what is there."""
    async with Rig(nodes=2) as rig:
        await rig.up(pinned("host9"))
        before = await unplaced(rig)
        number = rig.live("web")[0].release
        await rig.control.stop("app", None)
        await rig.until(lambda: not rig.live("web"))
        await rig.start()
        await rig.until(lambda: rig.live("web"))
        assert [t.id for t in rig.live("web")] != before
        await unplaced(rig)
        assert rig.live("web")[0].release >= number
