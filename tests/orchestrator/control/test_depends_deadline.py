"""``x-corral.depends_deadline``: when a service stops waiting, for every kind of edge."""

from __future__ import annotations

import asyncio

import pytest

from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

HEALTHY, COMPLETED, STARTED = (
    "service_healthy",
    "service_completed_successfully",
    "service_started",
)
NOWHERE = {"deploy": {"placement": {"constraints": ["node.labels.disk == gold"]}}}
# condition -> (the dependency, how it is, the words of the edge)
NEVER = {
    HEALTHY: (CHECK, Behaviour(never_ready=True), "for db to be healthy"),
    COMPLETED: ({}, Behaviour(), "for db to complete"),
    STARTED: (NOWHERE, Behaviour(), "for db to start"),
}


def waiting(condition, deadline, *, required=True, **more):
    return {
        **after(condition, "db", required=required),
        "x-corral": {"depends_deadline": deadline},
        **more,
    }


async def seconds_to_end(rig):
    begun = rig.clock.monotonic()
    end = await rig.end_of(within=900)
    return end, rig.clock.monotonic() - begun


@pytest.mark.parametrize("condition", NEVER)
async def test_an_edge_that_is_waited_for_too_long_fails_the_release(condition):
    db, how, words = NEVER[condition]
    async with Rig() as rig:
        rig.how["db"] = how
        await rig.up(project(db=db, web=waiting(condition, "20s")))
        end, took = await seconds_to_end(rig)
        assert end.state == "failed"
        assert f"web waited 20 s {words} (x-corral.depends_deadline)" in end.message
        assert 19 < took < 23


async def test_each_edge_has_its_own():
    async with Rig() as rig:
        rig.how["db"] = rig.how["cache"] = Behaviour(never_ready=True)
        both = after(HEALTHY, "db", "cache")
        web = {**both, "x-corral": {"depends_deadline": {"cache": "15s", "db": "40s"}}}
        await rig.up(project(db=CHECK, cache=CHECK, web=web))
        end, took = await seconds_to_end(rig)
        assert "web waited 15 s for cache to be healthy" in end.message
        assert 14 < took < 18


async def test_a_chain_is_not_held_to_the_time_of_those_before():
    """api's own time begins when db is there."""
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=25.0)
        rig.how["api"] = Behaviour(healthy=10.0)
        api = {**CHECK, **after(HEALTHY, "db")}
        web = {**after(HEALTHY, "api"), "x-corral": {"depends_deadline": "20s"}}
        await rig.up(project(db=CHECK, api=api, web=web))
        await rig.deployed()


async def test_who_can_do_without_goes_on_then_and_that_is_said():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=50.0)
        web = waiting(HEALTHY, "20s", required=False)
        await rig.up(project(db=CHECK, web=web))
        begun = rig.clock.monotonic()
        await rig.until(lambda: rig.ready("web"))
        assert 19 < rig.clock.monotonic() - begun < 23
        (note,) = rig.release().notes
        assert note == (
            "web goes on without db, waited for as long as x-corral.depends_deadline says"
        )
        await asyncio.sleep(5)
        assert len(rig.tasks("web")) == 1, "law: that is not taken back"
        await rig.deployed()


async def test_it_may_be_longer_than_the_releases_own():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=80.0)
        await rig.up(project(db=CHECK, web=waiting(HEALTHY, "100s")), deadline=30.0)
        await rig.deployed(within=200)


async def test_what_comes_in_time_is_not_held_to_it_later():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=10.0)
        rig.how["web"] = Behaviour(healthy=60.0)
        await rig.up(project(db=CHECK, web=waiting(HEALTHY, "20s", **CHECK)))
        await rig.deployed(within=200)


async def test_a_partial_update_waits_and_gives_up_alike():
    """Only web is named: db is updated with it, as it depends on it; other is left alone."""
    files = [
        project(
            db={"image": f"db:{n}", **CHECK},
            web=waiting(HEALTHY, "20s", image=f"web:{n}"),
            other={"image": f"other:{n}"},
        )
        for n in (1, 2)
    ]
    async with Rig() as rig:
        rig.how["db:1"] = Behaviour(healthy=0.1)
        await rig.up(files[0])
        await rig.deployed()
        rig.how["db:2"] = Behaviour(never_ready=True)
        await rig.up(files[1], services=("web",))
        end, took = await seconds_to_end(rig)
        assert "web waited 20 s for db to be healthy" in end.message
        assert 19 < took < 23
        assert [t.release for t in rig.ready("web")] == [1], "law: what serves is not stopped"
        assert [t.release for t in rig.live("other")] == [1]


async def test_a_paused_dependency_does_not_use_up_the_time():
    def files(n):
        db = replicas(3, image=f"db:{n}", update={"monitor": "1s"})
        return project(db=db, web=waiting(STARTED, "20s", image=f"web:{n}"))

    async with Rig() as rig:
        await rig.up(files(1))
        await rig.deployed()
        await rig.up(files(2))
        await rig.until(lambda: [t for t in rig.ready("db") if t.release == 2])
        await rig.steer("pause", "db")
        await asyncio.sleep(100)
        assert rig.release().state.value == "deploying"
        await rig.steer("resume")
        await rig.deployed()
