"""`corral rm`: what has ended goes, what runs stays, and nothing is run again by that."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import NotFound
from specs.states import FINAL
from tests.orchestrator.control.builders import after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


def names(rig):
    return {task.name for task in rig.tasks()}


def ended(tasks):
    return all(task.state in FINAL for task in tasks)


async def test_a_completed_one_off_goes_and_is_run_again_by_the_next_up_only():
    services = {
        "migrate": {"restart": "no"},
        "web": {**replicas(2), **after("service_completed_successfully", "migrate")},
    }
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0)
        await rig.up(project(**services))
        await rig.deployed()
        (first,) = rig.tasks("migrate")
        found = await rig.control.forget("app", ())
        assert found.tasks == ("app-migrate-1",)
        assert found.running == ("web",)
        await rig.until(lambda: names(rig) == {"app-web-1", "app-web-2"})
        await asyncio.sleep(120)
        assert names(rig) == {"app-web-1", "app-web-2"}, "nobody asked for it"
        await rig.up(project(**services))
        await rig.deployed()
        (second,) = rig.tasks("migrate")
        assert (second.state, second.id != first.id) == ("complete", True)


async def test_what_was_stopped_goes_and_starts_anew():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2), db={}))
        await rig.deployed()
        await rig.control.stop("app", None, ("web",))
        await rig.until(lambda: ended(rig.tasks("web")))
        assert (await rig.control.forget("app", ("web",))).tasks == ("app-web-1", "app-web-2")
        await rig.until(lambda: names(rig) == {"app-db-1"})
        await asyncio.sleep(120)
        assert names(rig) == {"app-db-1"}
        await rig.control.stop("app", None)
        await rig.until(lambda: ended(rig.tasks()))
        await rig.control.forget("app", ())
        await rig.until(lambda: not names(rig))
        await rig.start()
        await rig.deployed()
        assert len(rig.ready("web")) == 2


async def test_what_runs_is_left_alone_and_names_are_known():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        found = await rig.control.forget("app", ("web",))
        assert (found.tasks, found.running) == ((), ("web",))
        assert len(rig.ready("web")) == 2
        with pytest.raises(NotFound, match="wbe"):
            await rig.control.forget("app", ("wbe",))
