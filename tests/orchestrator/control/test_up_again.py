"""`up` typed again after it was cut short, at whatever moment: it goes on, nothing twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


def file():
    return project(db=CHECK, web=replicas(2, **after("service_healthy", "db")))


@pytest.mark.parametrize("moment", [0.0, 0.3, 1.02, 1.2, 1.8, 2.5, 3.5, 10.0])
@pytest.mark.parametrize("killed", [False, True], ids=["", "and the controller was killed, too"])
async def test_up_again(moment, killed):
    async with Rig(nodes=2) as rig:
        rig.agents.delay = 0.5  # images take half a second to be known
        rig.how["db"] = Behaviour(prepare=0.5, start=0.2, healthy=1.0)
        rig.how["web"] = Behaviour(prepare=0.5, start=0.2)
        await rig.up(file())
        await asyncio.sleep(moment)
        if killed:
            await rig.restart_controller()
        there = {task.id for task in rig.tasks()}
        await rig.up(file())
        await rig.deployed()
        assert there <= {task.id for task in rig.live()}, "what was begun is gone on with"
        assert sorted(t.name for t in rig.live()) == ["app-db-1", "app-web-1", "app-web-2"]
        started = [line for line in rig.history if line.endswith(" running")]
        assert sorted(started) == sorted(set(started)), "each runs once"
        assert len(rig.cluster.releases) <= 2
