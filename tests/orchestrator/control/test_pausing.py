"""`corral pause`: what is frozen, what goes on, and what ends it: real loops, fake nodes."""

from __future__ import annotations

import pytest

from orchestrator.control.telling.words import words_of
from orchestrator.errors import NotFound
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
