"""Who waits for a release is told that all runs and is only watched for a while."""

from __future__ import annotations

import contextlib

import pytest

from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

TOLD = "all of it runs; watched for 5 s before that counts"


async def messages(rig):
    """Return what the service's lines said, one after the other, while the release lasted."""
    said = []
    async with contextlib.aclosing(rig.control.progress("app", None)) as lines:
        async for line in lines:
            if line.kind == "service" and line.service == "web" and line.message not in said[-1:]:
                said.append(line.message)
            if line.kind == "end":
                return said, line.ok
    raise AssertionError("no end")


LONG = {"update": {"monitor": "20s"}}
CASES = {
    # first, then -> told, ends well
    "a first release": (None, replicas(2), [""], True),
    "an update": (replicas(2), replicas(2, image="web:2"), ["", TOLD, ""], True),
    "nothing changes": (replicas(2), replicas(2), [""], True),
    "more copies": (replicas(1), replicas(2), [""], True),
    "a longer time": (
        replicas(1, **LONG),
        replicas(1, image="web:2", **LONG),
        ["", TOLD.replace("5 s", "20 s"), ""],
        True,
    ),
    "no time": (
        replicas(1, update={"monitor": "0s"}),
        replicas(1, image="web:2", update={"monitor": "0s"}),
        [""],
        True,
    ),
    "a first start with a crash": (None, {"image": "crashes", "restart": "always"}, None, True),
    "an update that fails while watched": (
        {"restart": "always"},
        {"image": "late", "restart": "always"},
        ["", TOLD, ""],
        False,
    ),
    "an update with a check": ({**CHECK}, {**CHECK, "image": "web:2"}, ["", TOLD, ""], True),
}


@pytest.mark.parametrize("case", CASES)
async def test_that_only_time_is_missing_is_said(case):
    before, after, told, good = CASES[case]
    async with Rig() as rig:
        rig.how["crashes"] = Behaviour(exit_code=1, crashes=1)
        rig.how["late"] = Behaviour(exit_code=4, runs_for=3.0, again=True)
        if before is not None:
            await rig.up(project(web=before))
            await rig.deployed()
        await rig.up(project(web=after))
        said, ok = await messages(rig)
        assert ok == good
        if told is None:
            assert TOLD in said
        else:
            assert said == told
        assert said[-1] == "", "law: what is over is not watched any more"
