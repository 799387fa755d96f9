"""x-corral.strategy: pack, from the file to the nodes; another strategy moves nothing."""

from __future__ import annotations

import pytest

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

PACK = {"x-corral": {"strategy": "pack"}}
NEEDS = {"resources": {"reservations": {"memory": "16m"}}}


async def test_a_packed_service_fills_one_node_and_a_spread_one_does_not():
    async with Rig(nodes=3) as rig:
        packed = replicas(4, deploy=NEEDS, **PACK)
        await rig.up(project(web=packed, db=replicas(3)))
        await rig.deployed()
        assert len({t.node for t in rig.ready("web")}) == 1
        assert len({t.node for t in rig.ready("db")}) == 3
        before = {t.id for t in rig.ready("web")}
        await rig.up(project(web=replicas(4, deploy=NEEDS), db=replicas(3)))
        await rig.deployed()
        assert {t.id for t in rig.ready("web")} == before, "a strategy is for what is placed anew"
        await rig.control.scale("app", {"web": 6})
        await rig.until(lambda: len({t.node for t in rig.ready("web")}) == 3)


async def test_a_stacks_strategy_holds_for_its_services():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3), db=replicas(3), top=PACK))
        await rig.deployed()
        assert len({t.node for t in [*rig.ready("web"), *rig.ready("db")]}) == 1
