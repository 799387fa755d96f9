"""What `up` starts of what had ended or was stopped, and in which order: real loops, fake nodes."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.telling.progress import task_line
from orchestrator.errors import Invalid, NotFound
from specs.api import Start
from tests.orchestrator.control.builders import CHECK, after, project, replicas
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
        # The one-off is not run again, but what it waited for is waited for: the order holds.
        assert begun(rig) == ["app-db-1", "app-app-1"]
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
        await rig.restart("migrate")
        await rig.until(
            lambda: [t.id for t in rig.tasks("migrate") if t.state == "complete"] != [first]
        )
        await rig.until(lambda: [t.state for t in rig.tasks("migrate")] == ["complete"])
        assert rig.tasks("migrate")[0].id != first


async def ended(rig, service, state):
    await rig.until(lambda: [t for t in rig.tasks(service) if t.state == state])


# What there is of web (which depends on nothing) -> whether each verb starts or restarts it.
# Compose: `up`, `start` and `restart` start whatever does not run; ours alone skip what completed.
#                       up     start  restart
HABITS = {
    "running":           ("-",   "-",   "in place"),
    "unhealthy":         ("-",   "-",   "in place"),
    "stopped":           ("new", "new", "new"),
    "stopped with all":  ("new", "new", "new"),
    "ended 0":           ("-",   "-",   "new"),
    "ended 3":           ("new", "new", "new"),
    "ended 3, stopped":  ("new", "new", "new"),
    "ended 0, stopped":  ("-",   "-",   "new"),
    "machine restarted": ("-",   "-",   "in place"),
    "kept by reboot":    ("new", "new", "new"),
    "scaled to 0":       ("-",   "-",   "-"),
}  # fmt: skip


async def bring_about(rig, case):
    """Have a stack whose service web is so."""
    behaviour = {"ended 0": Behaviour(exit_code=0), "ended 3": Behaviour(exit_code=3)}
    rig.how["web"] = behaviour.get(case.partition(",")[0], Behaviour())
    check = CHECK if case == "unhealthy" else {}
    kept = {"x-corral": {"on_reboot": "keep"}} if case == "kept by reboot" else {}
    files = project(web={"restart": "no", **check, **kept}, other={})
    await rig.up(files)
    await rig.end_of()
    (task,) = rig.tasks("web")
    if case.startswith("ended"):
        assert task.state in ("complete", "failed")
    if case == "unhealthy":
        rig.fake_of(task).unhealthy(task.id)
        await rig.until(lambda: rig.tasks("web")[0].status.health == "unhealthy")
    if case in ("machine restarted", "kept by reboot"):
        await rig.fake_of(task).reboot()
        await rig.fake_of(task).connect()
    if case == "machine restarted":
        await rig.until(lambda: rig.ready("web") and len(rig.ready("web")[0].status.runs) == 2)
    if case == "kept by reboot":
        await ended(rig, "web", "failed")
    if case == "scaled to 0":
        await rig.control.scale("app", {"web": 0})
        await rig.until(lambda: not rig.tasks("web"))
    if case == "stopped" or case.endswith(", stopped"):
        await rig.control.stop("app", 0, ("web",))
    if case == "stopped with all":
        await rig.control.stop("app", 0)
    if "stopped" in case and not case.startswith("ended"):
        await ended(rig, "web", "shutdown")
    rig.how["web"] = Behaviour()
    return files


@pytest.mark.parametrize("verb", ["up", "start", "restart"])
@pytest.mark.parametrize("case", HABITS)
async def test_what_each_verb_does_with_what_there_is(case, verb):
    expected = HABITS[case][["up", "start", "restart"].index(verb)]
    async with Rig() as rig:
        files = await bring_about(rig, case)
        before = {t.id: t.status.restart_done for t in rig.tasks("web")}
        match verb:
            case "up":
                await rig.up(files)
            case "start":
                if (await rig.start("web")).release is not None:
                    await rig.deployed()
            case "restart":
                await rig.restart("web")
        done = lambda: {t.id: t.status.restart_done for t in rig.live("web")}  # noqa: E731 - short
        if expected == "new":
            await rig.until(lambda: rig.ready("web"))
            assert not set(done()) & set(before)
        elif expected == "in place":
            await rig.until(lambda: done() == {key: count + 1 for key, count in before.items()})
        else:
            await asyncio.sleep(3)
            assert {t.id: t.status.restart_done for t in rig.tasks("web")} == before


async def test_start_makes_a_release_of_the_same_spec_and_none_where_all_runs():
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0)
        await rig.up(project(**CHAIN))
        await rig.deployed()
        answer = await rig.start()
        assert (answer.release, answer.completed) == (None, ("migrate",))
        assert rig.release().number == 1
        hashes = {t.spec_hash for t in rig.tasks()}
        await stopped(rig)
        rig.history.clear()
        assert (await rig.start()).release == 2
        end = await rig.end_of()
        assert (end.ok, end.completed) == (True, ("migrate",))
        assert begun(rig) == ["app-db-1", "app-app-1"]
        assert {t.spec_hash for t in rig.tasks()} == hashes
        assert rig.release().spec == rig.cluster.releases[("app", 1)].spec


async def test_a_repeated_start_makes_one_release():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        await stopped(rig)
        request = Start(key="once")
        first = await rig.control.start("app", request)
        assert await rig.control.start("app", request) == first
        await rig.deployed()
        assert rig.release().number == 2


async def test_one_service_is_stopped_and_started_with_what_it_needs():
    services = {"db": {**CHECK}, "web": after("service_healthy", "db"), "other": {}}
    async with Rig() as rig:
        await rig.up(project(**services))
        await rig.deployed()
        pids = {t.id for t in rig.tasks("other")}
        await rig.control.stop("app", 0, ("db", "web"))
        await ended(rig, "db", "shutdown")
        assert rig.live("other")
        rig.history.clear()
        rig.how["db"] = Behaviour(healthy=5.0)
        await rig.start("web")
        await rig.deployed()
        assert begun(rig) == ["app-db-1", "app-web-1"]
        assert {t.id for t in rig.tasks("other")} == pids
        with pytest.raises(NotFound):
            await rig.start("nope")
        with pytest.raises(NotFound):
            await rig.control.stop("app", 0, ("nope",))


async def test_start_of_one_service_of_a_stopped_stack_leaves_the_others_down():
    services = {"db": {}, "web": after("service_started", "db"), "other": {}}
    async with Rig() as rig:
        await rig.up(project(**services))
        await rig.deployed()
        await stopped(rig)
        await rig.start("web")
        await rig.deployed()
        assert [t.service for t in rig.live()] == ["db", "web"]
        await rig.start()
        await rig.deployed()
        assert [t.service for t in rig.live()] == ["db", "other", "web"]


async def test_a_start_that_fails_says_so_and_leaves_the_rest():
    async with Rig() as rig:
        await rig.up(project(web={"restart": "no"}, other={}))
        await rig.deployed()
        await stopped(rig)
        rig.how["web"] = Behaviour(exit_code=3)
        await rig.start()
        end = await rig.end_of()
        assert (end.ok, end.service, end.exit_code) == (False, "web", 3)
        assert rig.ready("other")
        rig.how["web"] = Behaviour()
        await rig.start()
        await rig.deployed()


async def test_start_after_a_paused_update_moves_no_task_to_the_new_spec():
    async with Rig() as rig:
        two = {**CHECK, **replicas(2, update={"parallelism": 1})}
        old = project(web=two, other={})
        await rig.up(old)
        await rig.deployed()
        rig.how["web:2"] = Behaviour(exit_code=1)
        await rig.up(project(web={**two, "image": "web:2", "restart": "no"}, other={}))
        assert not (await rig.end_of()).ok
        await rig.control.stop("app", 0, ("other",))
        await ended(rig, "other", "shutdown")
        serving = {t.id: t.spec_hash for t in rig.ready("web")}
        assert serving
        await rig.start("other")
        await rig.deployed()
        assert rig.ready("other")
        assert {t.id: t.spec_hash for t in rig.ready("web")} == serving


async def test_nothing_starts_before_the_images_of_an_up_after_stop_are_there():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        await stopped(rig)
        rig.agents.fail["web:1"] = Invalid(detail="no such image")
        rig.history.clear()
        await rig.up(project(web={}), pull="always")
        assert not (await rig.end_of()).ok
        await asyncio.sleep(3)
        assert begun(rig) == []
        assert rig.cluster.stacks["app"].stopped_services == ("web",)
        del rig.agents.fail["web:1"]
        await rig.start()
        await rig.deployed()
        assert begun(rig) == ["app-web-1"]


# restart


FOLLOWERS = {
    "db": {**CHECK},
    "web": after("service_healthy", "db", restart=True),
    "edge": after("service_started", "web", restart=True),
    "app": after("service_healthy", "db"),
}


@pytest.mark.parametrize(
    ("services", "more", "restarted"),
    [
        (("db",), {}, {"db", "web", "edge"}),
        (("web",), {}, {"web", "edge"}),
        (("app",), {}, {"app"}),
        ((), {}, {"db", "web", "edge", "app"}),
        (("db",), {"no_deps": True}, {"db"}),
        (("web", "app"), {"no_deps": True}, {"web", "app"}),
    ],
)
async def test_restart_goes_along_restart_edges_and_waits_there(services, more, restarted):
    async with Rig() as rig:
        await rig.up(project(**FOLLOWERS))
        await rig.deployed()
        before = {t.id for t in rig.tasks()}
        rig.how["db"] = Behaviour(healthy=5.0)
        at = {}

        def note():
            for task in rig.live():
                if task.status.restart_done:
                    at.setdefault(task.service, rig.clock.monotonic())
            return set(at) >= restarted

        began = rig.clock.monotonic()
        await rig.restart(*services, **more)
        await rig.until(note)
        await asyncio.sleep(3)
        note()
        assert set(at) == restarted
        assert {t.id for t in rig.tasks()} == before
        if {"db", "web"} <= restarted:
            assert at["db"] < at["web"] <= at["edge"]
            assert at["web"] - at["db"] >= 5
        for name in restarted & {"app", "db"}:
            assert at[name] - began < 3, "nobody is waited for along an edge without restart"
        if "db" not in restarted:
            assert at.get("web", began) - began < 3, "what is not restarted is not waited for"


async def test_whom_a_restart_waits_for_is_said():
    async with Rig() as rig:
        await rig.up(project(**FOLLOWERS))
        await rig.deployed()
        rig.how["db"] = Behaviour(healthy=20.0)
        await rig.restart("db")
        said = lambda: task_line(rig.cluster, rig.live("web")[0])["message"]  # noqa: E731 - short
        await rig.until(lambda: "restart waits for db to be healthy" in said())
        await rig.restart_controller()
        await rig.until(lambda: rig.live("web")[0].status.restart_done == 1)
        assert "waits" not in said()


@pytest.mark.parametrize("how", ["all stopped", "db stopped", "ended"])
async def test_restart_starts_what_does_not_run_in_the_same_order(how):
    services = {n: {"restart": "no", **service} for n, service in FOLLOWERS.items()}
    async with Rig() as rig:
        await rig.up(project(**services))
        await rig.deployed()
        if how == "all stopped":
            await stopped(rig)
        elif how == "db stopped":
            await rig.control.stop("app", 0, ("db",))
            await ended(rig, "db", "shutdown")
        else:
            (db,) = rig.tasks("db")
            rig.fake_of(db).end(db.id, 3)
            await ended(rig, "db", "failed")
        rig.how["db"] = Behaviour(healthy=5.0)
        rig.history.clear()
        at = rig.clock.monotonic()
        await rig.restart("db")
        await rig.until(lambda: rig.ready("db"))
        assert rig.clock.monotonic() - at >= 5
        runs = lambda name: rig.live(name)[0].status.runs  # noqa: E731 - short
        started = lambda name: rig.live(name) and runs(name) and runs(name)[-1].started_at  # noqa: E731
        db = started("db")
        await rig.until(lambda: (started("web") or 0) >= db + 5)
        await rig.until(lambda: (started("edge") or 0) >= started("web"))
        live = {"db", "web", "edge"} if how == "all stopped" else set(services)
        assert {t.service for t in rig.live()} == live


async def test_the_grace_of_a_restart_is_for_that_restart_alone():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        await rig.restart("web", timeout=0.0)
        await rig.until(lambda: rig.live("web")[0].status.restart_done == 1)
        await rig.until(lambda: rig.live("web")[0].grace is None)
        await rig.restart("web", timeout=0.0)
        await rig.control.stop("app", None)
        await rig.until(lambda: rig.tasks("web")[0].desired == "shutdown")
        assert rig.tasks("web")[0].grace is None


# Every start is gated, whoever causes it


async def test_a_scale_after_a_stop_waits_for_what_is_starting():
    async with Rig() as rig:
        await rig.up(project(db={**CHECK}, web=after("service_healthy", "db")))
        await rig.deployed()
        await rig.control.stop("app", 0, ("web", "db"))
        await rig.until(lambda: not rig.live())
        rig.how["db"] = Behaviour(healthy=5.0)
        await rig.start("db")
        await rig.until(lambda: rig.live("db"))
        rig.history.clear()
        await rig.control.scale("app", {"web": 2})
        await rig.until(lambda: len(rig.ready("web")) == 2)
        order = [line for line in rig.history if line.endswith((" starting", "db-1 running"))]
        assert order.index("app-db-1 running") < order.index("app-web-1 starting")


async def test_a_stack_that_no_release_may_move_starts_in_order_too():
    services = {**FOLLOWERS, "bad": {"restart": "no", **after("service_started", "edge")}}
    async with Rig() as rig:
        rig.how["bad"] = Behaviour(exit_code=3)
        await rig.up(project(**services))
        assert not (await rig.end_of()).ok
        await rig.until(lambda: rig.ready("edge"))
        await stopped(rig)
        rig.how.update(db=Behaviour(healthy=5.0), bad=Behaviour())
        rig.history.clear()
        await rig.restart()
        await rig.until(lambda: all(rig.ready(name) for name in services))
        order = begun(rig)
        assert order.index("app-db-1") < order.index("app-web-1") <= order.index("app-edge-1")
        web = next(n for n, line in enumerate(rig.history) if line == "app-web-1 starting")
        assert "app-db-1 running" in rig.history[:web]
        assert rig.release().number == 1


async def test_what_replaces_a_lost_task_is_not_gated():
    async with Rig(nodes=2) as rig:
        await rig.up(
            project(
                db={**CHECK},
                web={**replicas(2), "restart": "always", **after("service_healthy", "db")},
            )
        )
        await rig.deployed()
        (db,) = rig.tasks("db")
        rig.fake_of(db).unhealthy(db.id)
        await rig.until(lambda: not rig.ready("db"))
        lost = next(t for t in rig.ready("web") if t.node != db.node)
        rig.fake_of(lost).end(lost.id, 3)
        await rig.until(lambda: len({t.id for t in rig.ready("web")} - {lost.id}) == 2)
