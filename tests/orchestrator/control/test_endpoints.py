"""Which tasks other nodes hear of: from the start of their run until they are asked to go."""

from __future__ import annotations

import asyncio

import pytest

from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


def endpoints(rig, node="n1"):
    services = rig.nodes[node].wanted.services.values()
    return {e.name: e.ready for service in services for e in service.endpoints}


async def test_a_task_is_an_endpoint_from_its_start_and_ready_when_it_says_so():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(prepare=5.0, start=5.0, healthy=5.0)
        await rig.up(project(web=dict(CHECK)))
        seen = []
        for _ in range(36):
            await asyncio.sleep(0.5)
            if not seen or seen[-1] != endpoints(rig):
                seen.append(endpoints(rig))
        assert seen == [{}, {"app-web-1": False}, {"app-web-1": True}]


async def test_what_ended_or_was_asked_to_go_is_none():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await asyncio.sleep(1)
        assert endpoints(rig) == {"app-web-1": True, "app-web-2": True}
        rig.how["web"] = Behaviour(stop=20.0)
        await rig.control.scale("app", {"web": 1})
        await asyncio.sleep(10)
        assert len(rig.tasks()) == 2, "it takes its time"
        assert endpoints(rig) == {"app-web-1": True}
