"""An `up` that asks for what runs already makes no release, and one that asks for more does."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.mirror.released import task_spec
from specs.api import ClientMachine, Start
from specs.states import TaskState
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

FILE = {"web": replicas(2), "job": {"restart": "no"}}


async def shop(rig):
    rig.how["job"] = Behaviour(exit_code=0, runs_for=1.0)
    await rig.up(project(**FILE), config_files=("/a.yaml",))
    await rig.deployed()
    await rig.until(lambda: rig.tasks("job")[0].state is TaskState.COMPLETE)


async def again(rig, file=None, **more):
    more.setdefault("config_files", ("/a.yaml",))
    return await rig.control.deploy("app", rig.request(project(**(file or FILE)), **more))


async def test_the_same_once_more_is_no_release():
    async with Rig(nodes=2) as rig:
        await shop(rig)
        before = {task.id: task.status.run for task in rig.tasks()}
        for _ in range(3):
            row = await again(rig)
            assert (row.number, row.state, row.unchanged) == (1, "deployed", True)
            assert row.completed == ("job",), "it is said that it is not run again"
        assert list(rig.cluster.stack_releases["app"]) == [1], "law: nothing is pushed out"
        assert {task.id: task.status.run for task in rig.tasks()} == before
        assert rig.cluster.stacks["app"].config_files == ("/a.yaml",)
        assert (await again(rig, config_files=("/b.yaml",))).unchanged
        assert rig.cluster.stacks["app"].config_files == ("/b.yaml",), "only the files moved"


async def test_a_key_said_twice_means_one_answer():
    async with Rig() as rig:
        await shop(rig)
        request = rig.request(project(**FILE))
        first = await rig.control.deploy("app", request)
        await asyncio.sleep(5.0)
        assert await rig.control.deploy("app", request) == first, "its answer was lost, say"
        assert (first.number, first.unchanged, first.completed) == (1, True, ("job",))
        made = rig.request(project(web=replicas(3)))
        assert not (await rig.control.deploy("app", made)).unchanged
        await rig.deployed()
        again = await rig.control.deploy("app", made)
        assert (again.number, again.unchanged) == (2, False), "that one was made by it"


@pytest.mark.parametrize(
    "wish",
    [
        {"force_recreate": True},
        {"renew_volumes": True},
        {"build": "always"},
        {"services": ("web",)},
        {"scale": {"web": 3}},
        {"again": ("job",)},
        {"no_deps": True},
        {"client": ClientMachine(hostname="host2", boot_id="boot2")},
    ],
    ids=lambda wish: next(iter(wish)),
)
async def test_another_wish_is_one(wish):
    async with Rig(nodes=2) as rig:
        await shop(rig)
        row = await again(rig, **wish)
        assert (row.number, row.unchanged) == (2, False)
        await rig.deployed()
        if not set(wish) & {"force_recreate", "renew_volumes", "build", "again"}:
            assert (await again(rig, **wish)).unchanged, "the same wish again is none"


async def test_what_kept_its_spec_gets_it_with_the_next():
    async with Rig() as rig:
        await shop(rig)
        other = {**FILE, "web": replicas(2, command=["new"])}
        assert not (await again(rig, other, no_recreate=True)).unchanged
        await rig.deployed()
        assert (await again(rig, other, no_recreate=True)).unchanged
        assert not (await again(rig, other)).unchanged


@pytest.mark.parametrize("asked", ["what failed", "what runs"])
async def test_what_was_started_as_it_was_gets_the_files_spec(asked):
    """`start` brings the newest release's spec along, but its tasks keep their own."""
    async with Rig() as rig:
        await shop(rig)
        spec = "new" if asked == "what failed" else "old"
        other = {**FILE, "web": replicas(2, command=[spec], update={"failure_action": "pause"})}
        if asked == "what runs":
            await again(rig, other)
            await rig.deployed()
        else:
            rig.how["web"] = Behaviour(exit_code=3, runs_for=0.5)
            await again(rig, other)
            await rig.until(lambda: rig.release().over)
            assert rig.release().state == "failed"
            rig.how["web"] = Behaviour()
        await rig.control.stop("app", None)
        await rig.until(lambda: not any(task.status.ready for task in rig.live("web")))
        await rig.control.start("app", Start(key="once"))
        await rig.until(lambda: rig.release().over)
        assert (rig.release().only_starts, rig.release().state) == (True, "deployed")
        row = await again(rig, other)
        await rig.deployed()
        commands = {task_spec(rig.cluster, task).command for task in rig.ready("web")}
        assert commands == {(spec,)}, f"unchanged: {row.unchanged}"
        assert (await again(rig, other)).unchanged


async def test_another_file_is_one_and_the_first_again_is_another():
    async with Rig() as rig:
        await shop(rig)
        other = {**FILE, "web": replicas(2, command=["new"])}
        assert (await again(rig, other)).number == 2
        assert (await again(rig)).number == 3, "what is under way is no answer"
        await rig.deployed()
        assert (await again(rig)).unchanged


async def test_what_was_scaled_stays_and_needs_none():
    async with Rig() as rig:
        await shop(rig)
        await rig.control.scale("app", {"web": 3})
        await rig.until(lambda: len(rig.live("web")) == 3)
        await rig.until(lambda: all(task.status.ready for task in rig.live("web")))
        row = await again(rig)
        assert row.unchanged
        assert "keeps the 3 replicas" in row.warnings[0].message


@pytest.mark.parametrize("how", ["stop", "stop web", "ended", "down"])
async def test_what_does_not_run_is_started(how):
    async with Rig() as rig:
        await shop(rig)
        if how == "stop":
            await rig.control.stop("app", None)
        elif how == "stop web":
            await rig.control.stop("app", None, ("web",))
        elif how == "ended":
            rig.how["web"] = Behaviour()
            for task in rig.live("web"):
                rig.fake_of(task).end(task.id, 3)
        else:
            await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: not any(task.status.ready for task in rig.live("web")))
        if how == "down":
            await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert not (await again(rig)).unchanged
        await rig.deployed()
        assert len(rig.live("web")) == 2


@pytest.mark.parametrize("becomes", ["another", "lost", "slow"])
async def test_an_image_that_may_be_another_is_looked_up(becomes, monkeypatch):
    from orchestrator.errors import Invalid
    from specs.wire import ResolvedImage

    async with Rig() as rig:
        await shop(rig)
        told = rig.agents.resolve_image

        async def resolve(node, request):
            if becomes == "another":
                return ResolvedImage(image=request.image, digest="sha256:" + "9" * 64)
            if becomes == "lost":
                raise Invalid(detail="no such image")
            await asyncio.sleep(60.0)
            return await told(node, request)

        monkeypatch.setattr(rig.agents, "resolve_image", resolve)
        row = await again(rig)
        assert (row.number, row.unchanged) == (2, False)
