"""What an attached `up` asks of the controller: to run again, with a grace; and when logs end."""

from __future__ import annotations

import pytest

from orchestrator.control.mirror.following import goes_on
from tests.orchestrator.control.builders import CHECK, after, project
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

SUITE = {"db": {**CHECK}, "tests": {"restart": "no", **after("service_healthy", "db")}}


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(("again", "runs"), [((), 0), (("tests",), 1), (("nobody",), 0)])
async def test_what_completed_runs_again_where_that_is_asked_in_its_order(again, runs, stopped):
    async with Rig() as rig:
        rig.how.update(db=Behaviour(healthy=3.0), tests=Behaviour(exit_code=0))
        await rig.up(project(**SUITE))
        await rig.deployed()
        if stopped:
            await rig.control.stop("app", 0)
            await rig.until(lambda: not rig.live("db"))
            await rig.until(
                lambda: not [t for t in rig.tasks() if t.live and t.state != "complete"]
            )
        rig.history.clear()
        await rig.up(project(**SUITE), again=again)
        await rig.deployed()
        assert rig.history.count("app-tests-1 starting") == runs
        if runs and stopped:
            order = rig.history
            assert order.index("app-db-1 running") < order.index("app-tests-1 starting")
        rig.history.clear()
        await rig.up(project(**SUITE))  # it was asked for once only
        await rig.deployed()
        assert "app-tests-1 starting" not in rig.history


@pytest.mark.parametrize("grace", [None, 0.5, 60.0])
async def test_what_a_release_replaces_or_removes_ends_with_its_grace(grace):
    async with Rig() as rig:
        await rig.up(project(web={}, old={}))
        await rig.deployed()
        await rig.restart("web", timeout=7.0)
        graces = {}

        def note(node, task_id, _what):
            for record in node.tasks.values():
                if record.assignment.desired == "removed":
                    graces[record.assignment.service] = record.assignment.grace

        rig.watchers.append(note)
        more = {} if grace is None else {"timeout": grace}
        await rig.up(project(web={"environment": {"A": "2"}}), remove_orphans=True, **more)
        await rig.deployed()
        assert graces == {"web": grace, "old": grace}


@pytest.mark.parametrize(
    ("policy", "how", "services", "on"),
    [
        ("no", Behaviour(exit_code=0, runs_for=5.0), (), False),
        ("no", Behaviour(exit_code=3, runs_for=5.0), (), False),
        ("on-failure:0", Behaviour(exit_code=3, runs_for=5.0), ("web",), False),
        ("on-failure", Behaviour(exit_code=0, runs_for=5.0), ("web",), False),
        ("on-failure", Behaviour(exit_code=3, runs_for=20.0), ("web",), True),
        ("always", Behaviour(exit_code=0, runs_for=20.0), ("web",), True),
        ("no", Behaviour(), ("web",), True),
        ("no", Behaviour(), ("other",), False),
        ("no", Behaviour(exit_code=0, runs_for=5.0), ("other",), False),
    ],
)
async def test_logs_go_on_while_something_runs_or_can_run_again(policy, how, services, on):
    async with Rig() as rig:
        rig.how.update(web=how, other=Behaviour(exit_code=0))
        await rig.up(project(web={"restart": policy}, other={"restart": "no"}))
        assert goes_on(rig.cluster, "app", services)  # a release is under way
        assert not goes_on(rig.cluster, "nope", services)
        await rig.end_of()
        ended = lambda: rig.tasks("web")[0].status.run.finished_at is not None  # noqa: E731 - short
        if how.exit_code is not None:
            await rig.until(ended)
        assert goes_on(rig.cluster, "app", services) == on
        await rig.restart("web" if "other" not in services else "other")
        assert goes_on(rig.cluster, "app", services)  # it was asked for again
        await rig.control.stop("app", 0)
        await rig.until(lambda: not goes_on(rig.cluster, "app", services))
        assert not [t for t in rig.live() if not services or t.service in services]
