"""Scale: at once whatever became of the last release, and told by the next `up`."""

from __future__ import annotations

import asyncio

import pytest

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(
    ("bad", "before", "count"),
    [
        (Behaviour(reject="bad mount"), 3, 4),
        (Behaviour(reject="bad mount"), 1, 2),
        (Behaviour(exit_code=1, runs_for=0.0), 3, 4),
        (Behaviour(exit_code=1, runs_for=0.0), 1, 2),
        (Behaviour(exit_code=1, runs_for=0.0), 3, 5),
        (Behaviour(reject="bad mount"), 3, 1),
    ],
)
async def test_after_a_paused_update_it_acts_at_once(bad, before, count):
    async with Rig() as rig:
        service = {"restart": "no"}
        await rig.up(project(web=replicas(before, **service)))
        await rig.deployed()
        rig.how["web:2"] = bad
        await rig.up(project(web=replicas(before, image="web:2", **service)))
        assert (await rig.end_of()).state == "failed"
        began = rig.clock.monotonic()
        await rig.control.scale("app", {"web": count})
        await rig.until(
            lambda: len(rig.ready("web")) == count and len(rig.live("web")) == count, within=20
        )
        assert rig.clock.monotonic() - began < 5
        await asyncio.sleep(60)
        assert {t.release for t in rig.ready("web")} == {1}
        assert len(rig.ready("web")) == count


@pytest.mark.parametrize(
    ("scaled", "told"),
    [
        (0, "web keeps the 0 replicas it was scaled to; the file says 2"),
        (1, "web keeps the 1 replica it was scaled to; the file says 2"),
        (5, "web keeps the 5 replicas it was scaled to; the file says 2"),
        (2, ""),
    ],
)
async def test_the_next_up_says_that_a_number_stays(scaled, told):
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.scale("app", {"web": scaled})
        row = await rig.control.deploy("app", rig.request(project(web=replicas(2))))
        assert [w.message for w in row.warnings] == [told] * bool(told)
        await rig.deployed()
        assert len(rig.live("web")) == scaled
        # The file's own number, changed, and a number given now need no words.
        asked = rig.request(project(web=replicas(2)), scale={"web": 3})
        assert not (await rig.control.deploy("app", asked)).warnings
        changed = rig.request(project(web=replicas(4)))
        assert not (await rig.control.deploy("app", changed)).warnings
        await rig.deployed()
        assert len(rig.live("web")) == 4


DATA = {"volumes": {"data": {"name": "app_data"}}}
OWN = {"volumes": {"data": {"name": "app_data", "x-corral": {"per_slot": True}}}}
USES = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
READS = {"volumes": [{"type": "volume", "source": "data", "target": "/data", "read_only": True}]}
SHARES = "the 3 copies of db share the volume app_data, on one node"


@pytest.mark.parametrize(
    ("service", "top", "told"),
    [
        (USES, DATA, SHARES),
        (READS, DATA, ""),
        (USES, OWN, ""),
        ({}, DATA, ""),
        ({**USES, "deploy": {"replicas": 2}}, DATA, ""),
        ({**USES, "deploy": {"replicas": 0}}, DATA, SHARES),
    ],
    ids=["shared", "only read", "one each", "none", "shared already", "from none"],
)
@pytest.mark.parametrize("by", ["scale", "up --scale"])
async def test_copies_that_come_to_share_a_volume_are_warned_of_once(service, top, told, by):
    async def say(count):
        if by == "scale":
            rows = await rig.control.scale("app", {"db": count})
        else:
            asked = rig.request(project(db=service, top=top), scale={"db": count})
            rows = (await rig.control.deploy("app", asked)).warnings
        return [row.message for row in rows if row.code == "shared-volume"]

    async with Rig() as rig:
        await rig.up(project(db=service, top=top))
        await rig.deployed()
        assert await say(3) == [told] * bool(told)
        assert await say(4) == [], "once"
        assert await say(1) == []
