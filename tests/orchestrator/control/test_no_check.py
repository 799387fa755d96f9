"""`condition: service_healthy` on a service that nothing checks: nobody can ever say it is healthy.

Docker Compose fails the dependent ("container db has no healthcheck configured"); so do we, at
once, with what to write instead. The check may be the file's or the image's: that there is none
is known when the container runs, but for one that the file itself switches off.
"""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

HEALTHY = "service_healthy"
IMAGE = Behaviour(healthy=0.5)  # the image brings a check
OFF = {"healthcheck": {"disable": True}}
NO_TEST = {"healthcheck": {"test": ["NONE"]}}
ONLY_TIMES = {"healthcheck": {"interval": "5s"}}
WORDS = (
    "web waits for db to be healthy, but db has no health check, neither in the file nor in its "
    "image: give db a healthcheck, or write condition: service_started"
)

CASES = {
    "neither": ({}, Behaviour(), "fails"),
    "in the file": (CHECK, Behaviour(), "starts"),
    "in the image": ({}, IMAGE, "starts"),
    "the image's with other times": (ONLY_TIMES, IMAGE, "starts"),
    "only times, and the image has none": (ONLY_TIMES, Behaviour(), "fails"),
    "a one-off that ended well, unchecked": ({"restart": "no"}, Behaviour(exit_code=0), "fails"),
    "a one-off that ended well, checked": (
        {"restart": "no", **CHECK},
        Behaviour(exit_code=0, healthy=0.01, runs_for=0.5),
        "starts",
    ),
    "several": (replicas(3), Behaviour(), "fails"),
    "none of it": (replicas(0), Behaviour(), "starts"),
    "switched off here, and nobody runs": ({**OFF, **replicas(0)}, Behaviour(), "starts"),
    "crashes again and again": ({"restart": "always"}, Behaviour(exit_code=4, crashes=9), "fails"),
}


@pytest.mark.parametrize("case", CASES)
async def test_who_waits_for_the_health_of_what_nothing_checks(case):
    db, how, outcome = CASES[case]
    async with Rig() as rig:
        rig.how["db"] = how
        await rig.up(project(db=db, web=after(HEALTHY, "db"), other={}))
        begun = rig.clock.monotonic()
        end = await rig.end_of()
        assert rig.clock.monotonic() - begun < 3, "at once, not at the deadline"
        if outcome == "starts":
            assert end.ok, end.message
            assert rig.ready("web")
            return
        assert not end.ok
        assert end.message == WORDS
        assert not rig.ready("web")
        assert rig.ready("other"), "what does not wait is left alone"


@pytest.mark.parametrize("case", CASES)
async def test_what_is_not_required_is_warned_of_and_not_waited_for(case):
    db, how, outcome = CASES[case]
    async with Rig() as rig:
        rig.how["db"] = how
        await rig.up(project(db=db, web=after(HEALTHY, "db", required=False)))
        end = await rig.end_of()
        if "crashes" not in case:
            assert end.ok, end.message
        assert rig.ready("web")
        told = "\n".join(rig.release().notes)
        words = "web goes on without waiting for db to be healthy: it has no health check"
        assert (words in told) is (outcome == "fails"), told


@pytest.mark.parametrize("off", [OFF, NO_TEST], ids=["disable", "NONE"])
async def test_what_the_file_switches_off_is_refused_before_anything_changes(off):
    request = project(db=off, web=after(HEALTHY, "db"))
    async with Rig() as rig:
        with pytest.raises(Invalid) as caught:
            await rig.up(request)
        (found,) = caught.value.problems
        assert found.path == "services.web.depends_on.db"
        assert found.message == "web waits for db to be healthy, but its health check is disabled"
        assert found.hint == "give db a healthcheck, or write condition: service_started"
        # Where it is not certain, or nobody waits, it is not refused.
        await rig.up(request, services=("db",))
        await rig.deployed()
        await rig.up(request, services=("web",), no_deps=True)
        await rig.deployed()
        await rig.up(request, scale={"db": 0})
        await rig.deployed()
        await rig.up(request)  # the number stays
        await rig.deployed()
        optional = project(db=off, web=after(HEALTHY, "db", required=False))
        await rig.up(optional, scale={"db": 1}, force_recreate=True)
        await rig.deployed()
        (note,) = rig.release().notes
        assert note.startswith("web goes on without")


async def test_who_runs_already_is_not_concerned_and_a_new_one_fails_at_once():
    async with Rig() as rig:
        await rig.up(project(db={}, web=after("service_started", "db")))
        await rig.deployed()
        (web,) = rig.live("web")
        await rig.up(project(db={}, web=after(HEALTHY, "db")))
        await rig.deployed()  # depends_on is no part of a container
        assert rig.live("web") == [web]
        await rig.up(project(db={}, web=after(HEALTHY, "db"), api=after(HEALTHY, "db")))
        end = await rig.end_of(within=3)
        assert end.message.startswith("api waits for db to be healthy, but db has no health check")
        assert rig.live("web") == [web]
        assert rig.ready("db")


async def test_who_needs_the_dependent_is_blocked_by_it():
    async with Rig() as rig:
        await rig.up(project(db={}, web=after(HEALTHY, "db"), edge=after("service_started", "web")))
        end = await rig.end_of(within=3)
        assert end.message == f"{WORDS}; edge is blocked by web"


async def test_a_dependent_that_may_be_missing_does_not_fail_the_release():
    async with Rig() as rig:
        top = after("service_started", "web", required=False)
        await rig.up(project(db={}, web=after(HEALTHY, "db"), upper={**top}))
        await rig.deployed()
        assert rig.ready("upper")
        assert not rig.ready("web")
        assert any(WORDS in note for note in rig.release().notes)


async def test_what_never_ran_is_not_blamed_for_its_check():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(reject="no such device")
        await rig.up(project(db={"restart": "no"}, web=after(HEALTHY, "db")))
        end = await rig.end_of(within=3)
        assert "db: app-db-1 could not be prepared (no such device)" in end.message
        assert "web is blocked by db" in end.message


async def test_a_restart_along_the_edge_waits_until_it_runs_and_a_reboot_orders_only():
    async with Rig() as rig:
        spec = project(
            db={"restart": "always"},
            web={"restart": "always", **after("service_started", "db", restart=True)},
        )
        await rig.up(spec)
        await rig.deployed()
        edge = after(HEALTHY, "db", restart=True)
        await rig.up(project(db={"restart": "always"}, web={"restart": "always", **edge}))
        await rig.deployed()
        await rig.restart("db")
        await rig.until(lambda: all(t.status.restart_done == 1 for t in rig.live()), within=10)
        await rig.nodes["n1"].reboot()
        await rig.nodes["n1"].connect()
        await rig.until(lambda: rig.ready("web"), within=30)


async def test_a_rollback_needs_no_gate():
    edge = {**after(HEALTHY, "db"), "deploy": {"update_config": {"failure_action": "rollback"}}}
    async with Rig() as rig:
        await rig.up(project(db={}, web={**edge, **after("service_started", "db")}))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(reject="no such image")
        await rig.up(project(db={}, web={**edge, "image": "web:2"}))
        await rig.end_of(within=30)
        await asyncio.sleep(5)
        assert rig.ready("web")
