"""`down` says what went: volumes and networks by name, as Compose does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from orchestrator.errors import NotFound
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

USES = {
    "volumes": [
        {"type": "volume", "source": "data", "target": "/data"},
        {"type": "volume", "source": "logs", "target": "/logs"},
    ],
    "networks": {"default": None, "back": None},
}
TOP = {
    "volumes": {"data": {"name": "app_data"}, "logs": {"name": "our-logs"}},
    "networks": {"default": {"name": "app_default"}, "back": {"name": "app_back"}},
}
NETWORKS = {"network app_default", "network app_back"}
VOLUMES = {"volume app_data", "volume our-logs"}


async def removed(rig):
    """Return what a reader of the removal is told went, and how the stream ends."""
    told = []
    async with contextlib.aclosing(rig.control.progress("app", None)) as lines:
        async for line in lines:
            if line.kind == "object":
                assert line.state == "removed"
                told.append(f"{line.doing} {line.name}")
            if line.kind == "end":
                return told, line.ok
    raise AssertionError("no end")


@pytest.mark.parametrize("late", [False, True], ids=["watched", "asked when it is over"])
@pytest.mark.parametrize(
    ("service", "volumes", "expected"),
    [
        (USES, True, NETWORKS | VOLUMES),
        (USES, False, NETWORKS),
        ({}, True, {"network app_default"}),
        ({"network_mode": "none", "networks": {}}, True, set()),
    ],
    ids=["all of it", "volumes stay", "no volumes", "nothing"],
)
async def test_what_went_is_named_once(service, volumes, expected, late):
    async with Rig() as rig:
        rig.how["web"] = Behaviour(stop=0.5)
        await rig.up(project(web=service, top=TOP if service is USES else {}))
        await rig.deployed()
        await rig.control.remove("app", volumes=volumes, timeout=0)
        if late:
            await rig.until(lambda: "app" not in rig.cluster.stacks)
        told, ok = await removed(rig)
        assert ok
        assert len(told) == len(set(told))
        assert set(told) == expected


async def test_what_an_earlier_removal_took_is_not_told_again():
    async with Rig() as rig:
        for _ in range(2):
            await rig.up(project(web=USES, top=TOP))
            await rig.deployed()
            await rig.control.remove("app", volumes=True, timeout=0)
            told, _ = await removed(rig)
            assert sorted(told) == sorted(NETWORKS | VOLUMES)
            await asyncio.sleep(1)
        await rig.up(project(web={}, top=TOP))
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=0)
        told, _ = await removed(rig)
        assert "volume app_data" not in told


@pytest.mark.parametrize("volumes", [True, False])
async def test_a_second_removal_takes_the_volumes_that_the_first_one_left(volumes):
    """Compose takes them from the file; here the store knows whose they are."""
    async with Rig() as rig:
        await rig.up(project(web=USES, top=TOP))
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=0)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert set(rig.cluster.volumes) == {"app_data", "our-logs"}
        if not volumes:
            with pytest.raises(NotFound):
                await rig.control.remove("app", volumes=False, timeout=0)
            return
        await rig.control.remove("app", volumes=True, timeout=0)
        told, ok = await removed(rig)
        assert ok
        assert set(told) == VOLUMES
        assert rig.cluster.volumes == {}
        assert "app" not in rig.cluster.stacks
        with pytest.raises(NotFound):
            await rig.control.remove("app", volumes=True, timeout=0)
        await rig.up(project(web=USES, top=TOP))
        await rig.deployed()
