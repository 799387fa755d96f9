"""`corral pause`: what is frozen, what goes on, and what ends it: real loops, fake nodes."""

from __future__ import annotations

import pytest

from orchestrator.control.telling.words import words_of
from orchestrator.errors import NotFound
from specs.api import Restart
from specs.oneoff import StartOneOff
from specs.states import TaskState
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


def frozen(rig):
    return {t.name for t in rig.live() if t.status.paused}


async def test_services_are_paused_and_go_on_and_all_else_is_as_it_was():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(3), db={}))
        await rig.deployed()
        before = {t.id: t.status.run.pid for t in rig.live()}
        found = await rig.control.pause("app", ("web",), paused=True)
        assert set(found.tasks) == {t.id for t in rig.live("web")}
        await rig.until(lambda: frozen(rig) == {"app-web-1", "app-web-2", "app-web-3"})
        (web, *_) = rig.live("web")
        assert "paused" in words_of(rig.cluster, web, None).text
        assert len(rig.ready("web")) == 3
        await rig.control.pause("app", ("web",), paused=True)  # again: nothing happens
        await rig.control.pause("app", (), paused=False)
        await rig.until(lambda: not frozen(rig))
        assert {t.id: t.status.run.pid for t in rig.live()} == before


@pytest.mark.parametrize("way", ["restart", "stop and start", "scale", "new image", "controller"])
async def test_what_becomes_of_a_paused_service(way):
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.pause("app", (), paused=True)
        await rig.until(lambda: len(frozen(rig)) == 2)
        expected = set()
        match way:
            case "restart":
                await rig.restart("web")
                await rig.until(lambda: all(len(t.status.runs) == 2 for t in rig.live("web")))
            case "stop and start":
                await rig.control.stop("app", None)
                await rig.until(lambda: not rig.live())
                await rig.start()
                await rig.deployed()
            case "scale":
                await rig.control.scale("app", {"web": 3})
                await rig.until(lambda: len(rig.ready("web")) == 3)
                expected = {"app-web-1", "app-web-2"}
            case "new image":
                await rig.up(project(web=replicas(2, image="other")))
                await rig.deployed()
            case "controller":
                await rig.restart_controller()
                expected = {"app-web-1", "app-web-2"}
        await rig.until(lambda: frozen(rig) == expected)


async def test_nothing_there():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        with pytest.raises(NotFound, match="wbe"):
            await rig.control.pause("app", ("wbe",), paused=True)
        with pytest.raises(NotFound, match="nope"):
            await rig.control.pause("nope", (), paused=True)
        await rig.control.stop("app", 0)
        await rig.until(lambda: not rig.live())
        assert (await rig.control.pause("app", (), paused=True)).tasks == ()


async def test_what_run_made_is_paused_by_its_name_alone():
    """Without words, and by its service's name, what runs beside the service is left alone."""
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        deploy = rig.request(project(web={}), services=("web",))
        asked = StartOneOff(deploy=deploy, service="web", name="once")
        end = [line async for line in rig.control.start_oneoff("app", asked)][-1]
        one = lambda: rig.cluster.oneoffs[end.task].task  # noqa: E731 - short
        await rig.until(lambda: one().state is TaskState.RUNNING)
        pid = one().status.run.pid

        await rig.control.pause("app", (), paused=True)
        await rig.until(lambda: frozen(rig) == {"app-web-1"})
        assert not one().paused
        await rig.control.pause("app", ("web",), paused=False)
        found = await rig.control.pause("app", ("once",), paused=True)
        assert found.tasks == (end.task,)
        await rig.until(lambda: one().status.paused)
        assert not frozen(rig)
        with pytest.raises(NotFound, match="there is no service nope"):
            await rig.control.pause("app", ("once", "nope"), paused=False)
        await rig.control.pause("app", ("once", "web"), paused=False)
        await rig.until(lambda: not one().status.paused)
        assert one().status.run.pid == pid
        for again in (rig.restart, rig.start):
            with pytest.raises(NotFound, match="`run` made of web: it runs once"):
                await again("once")


async def test_one_container_of_several_is_paused_and_restarted_alone():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        first, second = sorted(rig.live(), key=lambda task: task.slot)
        done = await rig.control.pause("app", (), paused=True, tasks=[second.id])
        assert done.tasks == (second.id,)
        await rig.until(
            lambda: [t.paused for t in sorted(rig.live(), key=lambda t: t.slot)] == [False, True]
        )
        asked = Restart(tasks=(first.id,))
        assert (await rig.control.restart("app", asked)).tasks == (first.id,)
