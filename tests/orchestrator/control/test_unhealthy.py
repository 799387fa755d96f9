"""An unhealthy container that nothing restarts: who waits for it, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from specs.states import Health, TaskState
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

SICK = Behaviour(healthy=1.0, sick=True)


def db(restart="no", on_unhealthy=None):
    own = {"x-corral": {"on_unhealthy": on_unhealthy}} if on_unhealthy else {}
    return {**CHECK, "restart": restart, **own}


@pytest.mark.parametrize(
    ("restart", "on_unhealthy", "at_once"),
    [
        ("no", None, True),
        ("on-failure", None, False),  # its node restarts it: it may get well
        ("always", None, False),
        ("no", "restart", False),
        ("no", "keep", True),
        ("always", "keep", True),
        ("always", "restart", False),
    ],
)
async def test_who_waits_for_the_health_of_a_sick_one_fails_at_once(restart, on_unhealthy, at_once):
    async with Rig() as rig:
        rig.how["db"] = SICK
        await rig.up(
            project(db=db(restart, on_unhealthy), web=after("service_healthy", "db"), other={})
        )
        begun = rig.clock.monotonic()
        if not at_once:
            await asyncio.sleep(20)
            assert rig.release().state == "deploying"
            return
        end = await rig.end_of()
        assert rig.clock.monotonic() - begun < 2
        assert not end.ok
        assert end.message == (
            "db: app-db-1 is unhealthy (3 failed checks in a row; its check said: no answer); "
            "web is blocked by db"
        )
        assert rig.live("db"), "it runs on"
        assert rig.ready("other")


@pytest.mark.parametrize("condition", ["service_started", "service_completed_successfully", None])
async def test_where_nobody_waits_for_its_health_it_has_time_to_get_well(condition):
    edge = after(condition, "db") if condition else {}
    async with Rig() as rig:
        rig.how["db"] = SICK
        await rig.up(project(db=db(), web=edge))
        begun = rig.clock.monotonic()
        end = await rig.end_of()
        assert not end.ok
        assert 30 < rig.clock.monotonic() - begun < 33
        assert "db: app-db-1 is unhealthy" in end.message


async def test_a_slow_starter_gets_well_in_time():
    async with Rig() as rig:
        rig.how["db"] = SICK
        await rig.up(project(db=db()))
        await asyncio.sleep(20)
        (task,) = rig.live("db")
        rig.nodes["n1"].say(
            task.id, state=TaskState.RUNNING, health=Health.HEALTHY, ready=True, reason=""
        )
        await rig.deployed()


async def test_a_dependent_that_started_already_is_not_concerned():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=1.0)
        rig.how["late"] = Behaviour(prepare=10.0)
        await rig.up(project(db=db(), web=after("service_healthy", "db"), late={}))
        await rig.until(lambda: rig.ready("web"))
        rig.nodes["n1"].unhealthy(rig.live("db")[0].id)
        await asyncio.sleep(15)
        assert rig.release().state == "deploying", "it does not serve, so the release is not over"
        assert rig.ready("web")


async def test_a_new_dependent_of_a_sick_one_that_ran_before_fails_at_once():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=1.0)
        await rig.up(project(db=db()))
        await rig.deployed()
        rig.nodes["n1"].unhealthy(rig.live("db")[0].id)
        await rig.up(project(db=db(), web=after("service_healthy", "db")))
        end = await rig.end_of(within=3)
        assert not end.ok
        assert "web is blocked by db" in end.message


UNCHANGED = {
    # the policy, x-corral.on_unhealthy, what else the `up` brings -> how long it takes
    "nothing else": ("no", None, {}, 0.5),
    "kept": ("always", "keep", {}, 0.5),
    "another service is new": ("no", None, {"other": {}}, 2),
    "another service changed": ("no", None, {"web": {"image": "web:2"}}, 7),
    "who starts after it is new": (
        "no",
        None,
        {"web": {}, "new": after("service_started", "db")},
        2,
    ),
}


@pytest.mark.parametrize("case", UNCHANGED)
async def test_what_was_deployed_long_ago_and_is_sick_now_is_told_and_not_waited_for(case):
    restart, on_unhealthy, more, seconds = UNCHANGED[case]
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=1.0)
        services = {"db": db(restart, on_unhealthy), "web": {}}
        await rig.up(project(**services))
        await rig.deployed()
        (sick,) = rig.live("db")
        rig.nodes["n1"].unhealthy(sick.id)
        await rig.until(lambda: not rig.ready("db"))
        begun = rig.clock.monotonic()
        await rig.up(project(**{**services, **more}))
        await rig.deployed()
        assert rig.clock.monotonic() - begun < seconds
        (note,) = rig.release().notes
        assert note.startswith("db: app-db-1 is unhealthy (")
        assert note.endswith("); it was there before and is left as it is")
        assert [t.id for t in rig.live("db")] == [sick.id]


async def test_what_is_made_anew_is_judged_by_its_health():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=1.0)
        await rig.up(project(db=db()))
        await rig.deployed()
        rig.nodes["n1"].unhealthy(rig.live("db")[0].id)
        await rig.until(lambda: not rig.ready("db"))
        rig.how["db"] = SICK
        await rig.up(project(db=db()), force_recreate=True)
        assert not (await rig.end_of()).ok


async def test_an_update_to_a_sick_one_is_a_failed_update():
    async with Rig() as rig:
        update = {"failure_action": "rollback"}
        await rig.up(project(web={**replicas(2, update=update), **CHECK}))
        await rig.deployed()
        rig.how["web:2"] = SICK
        await rig.up(project(web={**replicas(2, update=update), **CHECK, "image": "web:2"}))
        end = await rig.end_of(within=5)
        assert end.state == "rolled_back"
        assert "is unhealthy" in end.message
