"""What `up` starts of what had ended or was stopped, and in which order: real loops, fake nodes."""

from __future__ import annotations

import pytest

from tests.orchestrator.control.builders import CHECK, after, project
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

CHAIN = {
    "db": {**CHECK},
    "migrate": {"restart": "no", **after("service_healthy", "db")},
    "app": after("service_completed_successfully", "migrate"),
}


def begun(rig):
    """Return the tasks in the order in which they were started since the history was cleared."""
    return [line.split()[0] for line in rig.history if line.endswith(" starting")]


async def stopped(rig):
    await rig.control.stop("app", 0)
    await rig.until(lambda: not [t for t in rig.tasks() if t.live and t.state != "complete"])
    await rig.until(lambda: all(t.status.run.finished_at or not t.live for t in rig.tasks()))


async def test_gates_hold_for_the_starts_after_a_stop_and_a_one_off_is_not_run_again():
    async with Rig() as rig:
        rig.how.update(db=Behaviour(healthy=5.0), migrate=Behaviour(exit_code=0))
        await rig.up(project(**CHAIN))
        await rig.deployed()
        assert begun(rig) == ["app-db-1", "app-migrate-1", "app-app-1"]
        migrated = rig.tasks("migrate")[0].id
        await stopped(rig)
        rig.history.clear()
        at = rig.clock.monotonic()
        await rig.up(project(**CHAIN))
        await rig.until(lambda: rig.live("db"))
        await rig.deployed()
        # The one-off's condition is met already, as in Compose; it is not run for it again.
        assert set(begun(rig)) == {"app-db-1", "app-app-1"}
        assert [t.id for t in rig.tasks("migrate")] == [migrated]
        assert rig.clock.monotonic() - at >= 5


async def test_a_dependent_waits_for_the_health_of_what_is_started_again():
    services = {"db": {**CHECK}, "web": after("service_healthy", "db")}
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=5.0)
        await rig.up(project(**services))
        await rig.deployed()
        await stopped(rig)
        rig.history.clear()
        await rig.up(project(**services))
        await rig.deployed()
        order = [line for line in rig.history if line in ("app-db-1 running", "app-web-1 starting")]
        assert order == ["app-db-1 running", "app-web-1 starting"]


@pytest.mark.parametrize("policy", ["no", "on-failure:0"])
async def test_up_starts_what_ended_whatever_its_policy(policy):
    async with Rig() as rig:
        rig.how["web"] = Behaviour(exit_code=3, runs_for=5.0)
        await rig.up(project(web={"restart": policy}))
        await rig.until(lambda: [t for t in rig.tasks("web") if t.state == "failed"])
        failed = rig.tasks("web")[0].id
        rig.how["web"] = Behaviour()
        await rig.up(project(web={"restart": policy}))
        await rig.deployed()
        assert len(rig.ready("web")) == 1
        assert rig.ready("web")[0].id != failed


async def test_a_second_up_of_what_runs_changes_nothing():
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0)
        await rig.up(project(**CHAIN))
        await rig.deployed()
        before = {t.id for t in rig.tasks()}
        rig.history.clear()
        await rig.up(project(**CHAIN))
        await rig.deployed()
        assert {t.id for t in rig.tasks()} == before
        assert rig.history == []


async def test_restart_starts_what_ended_and_runs_a_one_off_again():
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0)
        await rig.up(project(**CHAIN))
        await rig.deployed()
        first = rig.tasks("migrate")[0].id
        await rig.control.restart("app", ("migrate",), None)
        await rig.until(
            lambda: [t.id for t in rig.tasks("migrate") if t.state == "complete"] != [first]
        )
        await rig.until(lambda: [t.state for t in rig.tasks("migrate")] == ["complete"])
        assert rig.tasks("migrate")[0].id != first
