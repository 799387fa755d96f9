"""`up --scale X=N`: the number and the file it comes with are one release.

Compose scales and recreates in one go. While the images of the release are fetched nothing
moves; then the new number is made of the new spec, and no task of the old one is started.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

CASES = {
    # copies before, the file's number then, --scale -> copies after
    "from none": (0, 2, {"web": 3}, 3),
    "from one": (1, 2, {"web": 3}, 3),
    "fewer": (4, 2, {"web": 1}, 1),
    "to none": (2, 2, {"web": 0}, 0),
    "the file's number changed": (4, 3, {}, 3),
    "the file's number changed, from none": (0, 3, {}, 3),
    "nothing of numbers": (3, 2, {}, 3),
}


@pytest.mark.parametrize("image", ["web:1", "web:2"], ids=["same image", "another image"])
@pytest.mark.parametrize("case", CASES)
async def test_a_number_and_its_spec_come_together(case, image):
    before, number, scale, after = CASES[case]
    async with Rig() as rig:
        await rig.up(project(web=replicas(2, update={"monitor": "0s"})))
        await rig.deployed()
        await rig.control.scale("app", {"web": before})
        await rig.until(lambda: len(rig.ready("web")) == before == len(rig.live("web")))
        known = {task.id for task in rig.tasks("web")}
        rig.agents.delay = 2.0
        web = replicas(number, update={"monitor": "0s"}, image=image)
        await rig.up(project(web=web), scale=scale)
        await asyncio.sleep(1.5)
        assert {t.id for t in rig.live("web")} <= known, "law: nothing moves before its images"
        assert len(rig.live("web")) == before
        await rig.deployed()
        assert len(rig.live("web")) == len(rig.ready("web")) == after
        fresh = [t for t in rig.tasks("web") if t.id not in known]
        assert all(t.release == 2 for t in fresh), "law: no task of the old spec is started"
        assert {t.image_digest for t in (task.status for task in rig.live("web"))} <= {
            f"sha256:{image}"
        }


async def test_a_release_without_images_changes_no_number():
    async with Rig() as rig:
        await rig.up(project(web=replicas(1)))
        await rig.deployed()
        rig.agents.fail["web:2"] = RuntimeError("no such image")
        await rig.up(project(web=replicas(1, image="web:2")), scale={"web": 3})
        assert not (await rig.end_of()).ok
        await asyncio.sleep(5)
        assert len(rig.live("web")) == 1
        await rig.up(project(web=replicas(1)))
        await rig.deployed()
        assert len(rig.live("web")) == 1, "a number that never came is not kept"


@pytest.mark.parametrize(
    ("then", "count"),
    [("scale", 5), ("up", 3), ("up --scale", 4), ("start", 3)],
)
async def test_what_comes_while_images_are_fetched(then, count):
    """The later number wins; an `up` without one keeps the one that was asked for."""
    async with Rig() as rig:
        await rig.up(project(web=replicas(1)))
        await rig.deployed()
        rig.agents.delay = 2.0
        await rig.up(project(web=replicas(1)), scale={"web": 3})
        await asyncio.sleep(1)
        match then:
            case "scale":
                await rig.control.scale("app", {"web": count})
            case "up":
                await rig.up(project(web=replicas(1)))
            case "up --scale":
                await rig.up(project(web=replicas(1)), scale={"web": count})
            case _:
                await rig.start()
        await rig.deployed()
        assert len(rig.ready("web")) == len(rig.live("web")) == count


async def test_a_first_up_has_its_number_from_the_start():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(prepare=0.2)
        await rig.up(project(web=replicas(1)), scale={"web": 3})
        await rig.deployed()
        assert len(rig.live("web")) == 3
        assert rig.cluster.stacks["app"].overrides == {"web": 3}
