"""`create`, `up --no-start` and `up --no-recreate`: what is made, what is left, what starts it."""

from __future__ import annotations

import asyncio

import pytest

from specs.states import FINAL
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

CHAIN = {"db": {**CHECK}, "web": {**after("service_healthy", "db"), **replicas(2)}}


def states(rig):
    return {t.name: t.state.value for t in rig.tasks() if t.live}


PREPARED = {"app-db-1": "prepared", "app-web-1": "prepared", "app-web-2": "prepared"}


async def test_what_is_created_has_all_but_a_process_and_start_starts_it_in_order():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=2.0)
        await rig.up(project(**CHAIN), no_start=True)
        await rig.deployed()
        assert states(rig) == PREPARED
        assert all(t.node for t in rig.tasks())
        ids = {t.id for t in rig.tasks()}
        assert not [line for line in rig.history if line.endswith(" starting")]
        rig.history.clear()
        await rig.start()
        await rig.deployed()
        begun = [line.split()[0] for line in rig.history if line.endswith(" starting")]
        assert begun[0] == "app-db-1", "the gates hold for this start, too"
        assert sorted(begun) == ["app-db-1", "app-web-1", "app-web-2"]
        assert {t.id for t in rig.tasks() if t.live} == ids, "they are the tasks that were created"
        assert not rig.cluster.stacks["app"].created


@pytest.mark.parametrize("how", ["up", "start-one", "stop-start", "down", "restart-controller"])
async def test_what_becomes_of_the_created(how):
    async with Rig() as rig:
        await rig.up(project(**CHAIN), no_start=True)
        await rig.deployed()
        match how:
            case "up":
                await rig.up(project(**CHAIN))
                await rig.deployed()
                assert set(states(rig).values()) == {"running"}
            case "start-one":
                await rig.start("db")
                await rig.deployed()
                assert states(rig) == {**PREPARED, "app-db-1": "running"}
            case "stop-start":
                await rig.control.stop("app", 0)
                await rig.until(lambda: not states(rig))
                await rig.start()
                await rig.deployed()
                assert set(states(rig).values()) == {"running"}
            case "down":
                await rig.control.remove("app", volumes=False, timeout=0)
                await rig.until(lambda: not rig.tasks())
            case _:
                await rig.restart_controller()
                await rig.until(lambda: states(rig) == PREPARED)


async def test_what_runs_is_left_and_only_the_rest_is_created():
    async with Rig() as rig:
        await rig.up(project(db=CHAIN["db"]))
        await rig.deployed()
        db = rig.tasks("db")[0].id
        changed = {**CHAIN["db"], "command": ["other"]}
        await rig.up(project(db=changed, web=CHAIN["web"]), no_start=True)
        await rig.deployed()
        assert states(rig) == {**PREPARED, "app-db-1": "running"}
        assert [t.id for t in rig.tasks("db") if t.live] == [db]
        number = rig.release().number
        assert await rig.up(project(db=changed), no_start=True) == number, "nothing is left to make"
        await rig.up(project(db=changed, web=CHAIN["web"]))
        await rig.deployed()
        assert set(states(rig).values()) == {"running"}
        assert [t.id for t in rig.tasks("db") if t.live] != [db], "now the change comes"


async def test_an_image_that_is_not_there_fails_the_creation():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(reject="no such image")
        await rig.up(project(web={}), no_start=True)
        end = await rig.end_of()
        assert not end.ok
        assert "no such image" in end.message


@pytest.mark.parametrize("was", ["running", "stopped", "ended", "scaled"])
async def test_no_recreate_keeps_what_exists_and_makes_what_is_missing(was):
    async with Rig() as rig:
        if was == "ended":
            rig.how["web"] = Behaviour(exit_code=3, runs_for=5.0)
        await rig.up(project(web={**replicas(2), "restart": "no"}))
        if was == "ended":
            await rig.until(lambda: len([t for t in rig.tasks("web") if t.state == "failed"]) == 2)
            rig.how["web"] = Behaviour()
        else:
            await rig.deployed()
        if was == "stopped":
            await rig.control.stop("app", 0)
            await rig.until(lambda: not states(rig))
        before = {t.id: t.spec_hash for t in rig.tasks("web")}
        hashes = set(before.values())
        more = 3 if was == "scaled" else 2
        changed = {**replicas(more), "restart": "no", "command": ["other"]}
        await rig.up(project(web=changed, db={}), no_recreate=True)
        await rig.deployed()
        live = {t.slot: t for t in rig.tasks("web") if t.live}
        assert {live[slot].spec_hash for slot in (1, 2)} == hashes, "what exists keeps its spec"
        assert len(live) == more
        if was in ("running", "scaled"):
            assert {live[1].id, live[2].id} == set(before)
        if was == "scaled":
            assert live[3].spec_hash not in hashes
        assert len(rig.ready("db")) == 1
        await rig.up(project(web=changed, db={}))
        await rig.deployed()
        assert not hashes & {t.spec_hash for t in rig.tasks("web") if t.live}


@pytest.mark.parametrize(
    ("how", "fresh"),
    [
        ({"force_recreate": True, "renew_volumes": True}, True),
        ({"renew_volumes": True}, None),  # nothing is made anew
        ({"force_recreate": True}, False),
        ({"renew_volumes": True, "command": ["other"]}, True),
        ({"renew_volumes": True, "stopped": True}, False),  # started again, not made anew
        ({"renew_volumes": True, "others": True}, None),
    ],
)
async def test_what_begins_with_empty_anonymous_volumes(how, fresh):
    async with Rig(nodes=3) as rig:
        services = {"web": {}, "db": {}}
        await rig.up(project(**services))
        await rig.deployed()
        before = {t.id for t in rig.tasks("web")}
        if how.pop("stopped", False):
            await rig.control.stop("app", 0)
            await rig.until(lambda: not states(rig))
        if how.pop("others", False):
            how |= {"services": ("db",), "force_recreate": True}
        if command := how.pop("command", None):
            services["web"] = {"command": command}
        await rig.up(project(**services), **how)
        await rig.deployed()
        made = [t for t in rig.tasks("web") if t.live and t.id not in before]
        assert [t.fresh_volumes for t in made] == ([] if fresh is None else [fresh])
        if fresh:  # what replaces it one day keeps what it wrote
            await rig.fake_of(made[0]).crash()

            def others():
                return [t for t in rig.ready("web") if t.id != made[0].id]

            await rig.until(others, within=600)
            assert not others()[0].fresh_volumes


def commands(rig, service):
    specs = rig.control._specs
    return [specs.of("app", t.release, service).task.command for t in rig.live(service)]


async def kept(rig, **more):
    """`up`, an edit of web, and `up --no-recreate`: web is as it was."""
    await rig.up(project(web={"command": ["old"]}, db=more))
    await rig.deployed()
    await rig.up(project(web={"command": ["new"]}, db=more), no_recreate=True)
    await rig.deployed()
    assert commands(rig, "web") == [("old",)]


async def test_what_was_not_recreated_is_as_it_was_after_stop_and_start():
    async with Rig() as rig:
        await kept(rig)
        await rig.control.stop("app", 0)
        await rig.until(lambda: not rig.live())
        await rig.start()
        await rig.until(lambda: rig.ready("web") and rig.ready("db"))
        assert commands(rig, "web") == [("old",)]


@pytest.mark.parametrize("touched", [False, True])
async def test_a_rollback_recreates_what_the_release_that_failed_has_changed_and_no_more(touched):
    async with Rig() as rig:
        rolls = {"deploy": {"update_config": {"failure_action": "rollback"}}}
        await kept(rig, **rolls)
        before = [t.id for t in rig.live("web")]
        rig.how["db:bad"] = Behaviour(never_ready=True)
        web = {"command": ["newest" if touched else "new"]}
        services = {"web": web, "db": {**rolls, "image": "db:bad"}}
        await rig.up(project(**services), services=() if touched else ("db",))
        end = await rig.end_of(within=900)
        assert not end.ok
        await rig.until(lambda: rig.release().state.value == "rolled_back", within=900)
        await asyncio.sleep(60)
        assert rig.ready("db")
        assert rig.ready("web")
        assert ([t.id for t in rig.live("web")] == before) == (not touched)
        assert commands(rig, "web") == [("new",) if touched else ("old",)]


@pytest.mark.parametrize("edited", [{"command": ["new"]}, {"image": "web:2"}])
async def test_what_was_only_created_gives_way_to_what_the_file_says_now(edited):
    async with Rig() as rig:
        await rig.up(project(web={"command": ["old"]}, db={}), no_start=True)
        await rig.deployed()
        (db,) = rig.live("db")
        number = await rig.up(project(web=edited, db={}), no_start=True)
        await rig.deployed()
        assert states(rig) == {"app-db-1": "prepared", "app-web-1": "prepared"}
        assert [(t.id, t.release) for t in rig.live("db")] == [(db.id, db.release)]
        assert [t.release for t in rig.live("web")] == [number]
        await rig.start()
        await rig.deployed()
        (web,) = rig.live("web")
        assert (web.release, web.status.ready) == (number, True)
        assert rig.history.count("app-web-1 starting") == 1, "law: the old one never ran"


@pytest.mark.parametrize("how", ["one", "named", "all", "whole", "ended", "beside", "stopped"])
async def test_what_was_removed_is_created_again(how):
    """`rm -sf SERVICE; create`: its rows are there again, as on a fresh stack."""
    services = {"db": {}, "web": replicas(2), "migrate": {"restart": "no"}}
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0)
        await rig.up(project(**services))
        await rig.deployed()
        gone = {"all": (), "whole": (), "ended": ("migrate",)}.get(how, ("web",))
        if how == "whole":
            await rig.control.stop("app", 0)
        elif how != "ended":
            await rig.control.stop("app", 0, gone or ("db", "web"))
        if how in ("beside", "stopped"):
            await rig.control.stop("app", 0, ("db",))
        ending = gone or ("db", "web")
        await rig.until(lambda: all(t.state in FINAL for t in rig.tasks() if t.service in ending))
        if how != "stopped":
            await rig.control.forget("app", gone)
            await rig.until(lambda: not [t for t in rig.tasks() if not gone or t.service in gone])
        named = {"named": ("web",), "ended": ("migrate",)}.get(how, ())
        await rig.up(project(**services), no_start=True, services=named)
        await rig.deployed()
        webs = {"app-web-1": "prepared", "app-web-2": "prepared"}
        every = {**webs, "app-db-1": "prepared", "app-migrate-1": "prepared"}
        running = {"app-db-1": "running"}
        assert states(rig) == {
            "one": {**webs, **running},
            "named": {**webs, **running},
            "all": every,
            "whole": every,
            "ended": {
                "app-web-1": "running", "app-web-2": "running", **running,
                "app-migrate-1": "prepared",
            },
            "beside": webs,
            "stopped": {},
        }[how]  # fmt: skip
        await rig.start()
        await rig.deployed()
        assert len(rig.ready("web")) == 2
        assert len(rig.ready("db")) == 1
