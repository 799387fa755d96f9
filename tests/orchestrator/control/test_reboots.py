"""A node was restarted: its end is not the end of its tasks, and they start again in order."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.api.rows import task_row
from specs.states import TaskState
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

DATA = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
TOP = {"volumes": {"data": {"name": "app_data"}}}
EVERYWHERE = {"deploy": {"mode": "global"}}
SHORT, LONG = 3.0, 30.0  # seconds without power: less and more than until a node counts as down


async def deployed(rig, **services):
    await rig.up(project(top=TOP, **services))
    await rig.deployed()


async def off_and_on(rig, node="n2", *, off=SHORT, **how):
    await rig.nodes[node].reboot(**how)
    await asyncio.sleep(off)
    await rig.nodes[node].connect()
    await asyncio.sleep(0.05)  # its first report is there


@pytest.mark.parametrize("restart", ["no", "on-failure", "always"])
@pytest.mark.parametrize(
    ("service", "off", "same"),
    [
        (replicas(3), SHORT, True),
        (replicas(3), LONG, False),  # the lost one was replaced meanwhile
        (EVERYWHERE, SHORT, True),
        (EVERYWHERE, LONG, True),
        (DATA, SHORT, True),
        (DATA, LONG, True),
    ],
)
async def test_what_ran_on_a_restarted_node_runs_again(restart, service, off, same):
    async with Rig(nodes=3) as rig:
        await deployed(rig, web={**service, "restart": restart})
        before = {t.id for t in rig.live("web")}
        node = next(t.node for t in rig.live("web"))
        await off_and_on(rig, node, off=off)
        await rig.until(lambda: len(rig.ready("web")) == len(before))
        await asyncio.sleep(20)
        assert len(rig.ready("web")) == len(rig.live("web")) == len(before), "and no more"
        assert ({t.id for t in rig.live("web")} == before) is same
        assert rig.release().state == "deployed"


@pytest.mark.parametrize("service", [replicas(3), EVERYWHERE, DATA])
async def test_an_end_reported_as_the_machine_s_is_not_the_task_s(service):
    """Agents of an earlier version take it for the task's; it is replaced at once."""
    async with Rig(nodes=3) as rig:
        await deployed(rig, web={**service, "restart": "no"})
        count = len(rig.live("web"))
        node = next(t.node for t in rig.live("web"))
        await off_and_on(rig, node, ends=True)
        await rig.until(lambda: len(rig.ready("web")) == count)
        assert {t.attempt for t in rig.live("web")} == {0}, "no attempt was used up"


@pytest.mark.parametrize("off", [SHORT, LONG])
@pytest.mark.parametrize("restart", ["no", "always"])
async def test_what_the_file_says_to_keep_is_left_as_it_ended(restart, off):
    async with Rig(nodes=3) as rig:
        keep = {"restart": restart, "x-corral": {"on_reboot": "keep"}}
        await deployed(rig, job={**replicas(3), **keep})
        node = rig.live("job")[0].node
        await off_and_on(rig, node, off=off)
        await asyncio.sleep(60)
        assert len(rig.tasks("job")) == 3, "nothing takes its place, here or elsewhere"
        assert [t.node for t in rig.tasks("job") if t.state is TaskState.FAILED] == [node]


async def test_a_stopped_stack_stays_stopped():
    async with Rig(nodes=3) as rig:
        await deployed(rig, web={**EVERYWHERE, "restart": "always"})
        await rig.control.stop("app", None)
        await rig.until(lambda: not rig.live("web"))
        await off_and_on(rig)
        await asyncio.sleep(30)
        assert not rig.live("web")


async def test_a_completed_one_off_is_not_run_again_and_an_interrupted_one_is():
    async with Rig() as rig:
        rig.how["done"] = Behaviour(exit_code=0)
        rig.how["long"] = Behaviour(exit_code=0, runs_for=50)
        await deployed(rig, done={}, long={})
        await rig.until(lambda: rig.tasks("done")[0].state is TaskState.COMPLETE)
        await off_and_on(rig, "n1", off=1.0)
        rig.history.clear()
        await rig.until(lambda: rig.tasks("long")[0].state is TaskState.COMPLETE, within=120)
        assert rig.history == ["app-long-1 complete"]
        assert len(rig.tasks()) == 2


def starts(rig):
    """Collect the names of tasks as they start."""
    seen = []
    rig.watchers.append(
        lambda node, task, what: what == "started" and seen.append(rig.cluster.tasks[task].service)
    )
    return seen


async def test_dependents_start_again_after_what_they_depend_on():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=5)
        rig.how["migrate"] = Behaviour(exit_code=0)
        rig.how["app"] = Behaviour(start=2)
        await deployed(
            rig,
            db=CHECK,
            migrate=after("service_healthy", "db"),
            app=after("service_completed_successfully", "migrate"),
            web=after("service_started", "app"),
            late=after("service_healthy", "db"),
        )
        before = {t.id for t in rig.tasks()}
        seen = starts(rig)
        begun = rig.clock.monotonic()
        await off_and_on(rig, "n1", off=1.0)
        await rig.until(lambda: all(rig.ready(s) for s in ("db", "app", "web", "late")))
        assert sorted(seen) == ["app", "db", "late", "web"], "a completed one-off is not run again"
        assert seen.index("app") < seen.index("web")
        assert seen.index("db") < seen.index("late")
        assert 5 < rig.clock.monotonic() - begun < 8, "and no longer than it takes"
        assert {t.id for t in rig.tasks()} == before


async def test_an_interrupted_one_off_is_waited_for_again():
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0, runs_for=9)
        await rig.up(project(migrate={}, app=after("service_completed_successfully", "migrate")))
        await asyncio.sleep(1)
        await rig.nodes["n1"].reboot()
        await rig.nodes["n1"].connect()
        begun = rig.clock.monotonic()
        await rig.until(lambda: rig.ready("app"))
        assert rig.clock.monotonic() - begun > 8


@pytest.mark.parametrize(
    ("condition", "broken"),
    [
        ("service_healthy", "failed"),
        ("service_started", "failed"),
        ("service_healthy", "lost"),
        ("service_started", "lost"),
        ("service_healthy", "scaled"),
    ],
)
async def test_what_cannot_come_is_not_waited_for(condition, broken):
    """It orders and never refuses."""
    async with Rig(nodes=2) as rig:
        on = lambda host: {"deploy": {"placement": {"constraints": [f"node.hostname == {host}"]}}}  # noqa: E731 - two words
        await deployed(
            rig,
            db={**on("host1"), **CHECK, **DATA, "restart": "no"},
            web={**on("host2"), **after(condition, "db"), "restart": "no"},
        )
        (db,) = rig.live("db")
        match broken:
            case "failed":
                rig.nodes["n1"].end(db.id, 3)
            case "lost":
                await rig.nodes["n1"].cut()
                await asyncio.sleep(LONG)
            case "scaled":
                await rig.control.scale("app", {"db": 0})
                await rig.until(lambda: not rig.live("db"))
        begun = rig.clock.monotonic()
        await off_and_on(rig, "n2", off=1.0)
        await rig.until(lambda: rig.ready("web"))
        assert rig.clock.monotonic() - begun < 3


async def test_after_a_failed_release_too():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=3)
        await deployed(rig, db=CHECK, web=after("service_healthy", "db"))
        rig.how["bad"] = Behaviour(reject="no such image")
        await rig.up(project(db=CHECK, web=after("service_healthy", "db"), bad={}))
        assert not (await rig.end_of()).ok
        seen = starts(rig)
        await off_and_on(rig, "n1", off=1.0)
        await rig.until(lambda: rig.ready("web"))
        assert seen == ["db", "web"]


async def test_a_controller_that_starts_meanwhile_goes_on():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=5)
        await deployed(rig, db=CHECK, web=after("service_healthy", "db"))
        await off_and_on(rig, "n1", off=1.0)
        await asyncio.sleep(1)
        await rig.restart_controller()
        await rig.until(lambda: rig.ready("web"))
        assert rig.live("web")[0].admitted == "again"


def status_of(rig, service):
    (task,) = rig.live(service)
    return task_row(rig.cluster, task, now=rig.clock.wall()).status


async def test_who_waits_says_for_whom():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=20)
        await deployed(rig, db=CHECK, web=after("service_healthy", "db"))
        await off_and_on(rig, "n1", off=1.0)
        await asyncio.sleep(1)
        assert "the machine was restarted; waits for db to be healthy" in status_of(rig, "web")
        await rig.until(lambda: rig.ready("web"))
        assert status_of(rig, "web").startswith("running")
        assert "(" not in status_of(rig, "web")


@pytest.mark.parametrize("controller", [True, False])
async def test_after_a_minute_it_starts_all_the_same_and_says_so(controller):
    async with Rig() as rig:
        await deployed(rig, db=CHECK, web=after("service_healthy", "db"))
        rig.how["db"] = Behaviour(never_ready=True)
        node, seen = rig.nodes["n1"], starts(rig)
        await node.reboot()
        if controller:
            await node.connect()
        else:
            await node.agent.boot()
        await asyncio.sleep(59)
        assert seen == ["db"]
        await asyncio.sleep(2)
        assert seen == ["db", "web"]
        if not controller:
            await node.connect()
        await asyncio.sleep(1)
        assert rig.ready("web")
        assert "(started without waiting any longer for db to be healthy)" in status_of(rig, "web")
