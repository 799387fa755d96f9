"""A container_name has one owner in the cluster: Docker refuses the second container of a name."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

NAMED = {"container_name": "cache"}
CASES = {
    # the other stack's service, ours -> the path that is refused
    "the same name": (NAMED, NAMED, "services.web.container_name"),
    "another name": (NAMED, {"container_name": "cache-2"}, ""),
    "no name of its own": (NAMED, {}, ""),
    "neither": ({}, {}, ""),
    "a name the other's copies have": (
        {},
        {"container_name": "other-web-1"},
        "services.web.container_name",
    ),
    "one like it that no copy has": ({}, {"container_name": "other-web-x"}, ""),
    "the other has a name that is ours": ({"container_name": "app-web-2"}, {}, "services.web"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_name_of_another_stack_is_refused_by_its_place(case):
    theirs, ours, path = CASES[case]
    origins = {"services.web.container_name": {"file": "compose.yaml", "line": 4, "column": 5}}
    async with Rig() as rig:
        await rig.up(project(web=theirs), stack="other")
        await rig.deployed("other")
        if not path:
            await rig.up(project(web=ours))
            return
        with pytest.raises(Invalid) as caught:
            await rig.up(project(web=ours), origins=origins)
        (problem,) = caught.value.problems
        assert problem.path == path
        assert "belongs to service web of stack other" in problem.message
        assert "corral -p other down" in problem.hint
        if path in origins:
            assert problem.position is not None
            assert (problem.position.file, problem.position.line) == ("compose.yaml", 4)
        assert "app" not in rig.cluster.stacks, "nothing was changed"


@pytest.mark.parametrize(
    ("before", "free"),
    [("stopped", False), ("scaled to none", False), ("failed", False), ("removed", True)],
)
async def test_whose_name_it_is(before, free):
    async with Rig() as rig:
        if before == "failed":
            rig.agents.fail["web:1"] = RuntimeError("no such image")
        await rig.up(project(web=NAMED), stack="other")
        await rig.end_of("other")
        match before:
            case "stopped":
                await rig.control.stop("other", 0)
            case "scaled to none":
                await rig.control.scale("other", {"web": 0})
            case "removed":
                await rig.control.remove("other", volumes=False, timeout=0)
        if free:
            await rig.up(project(web=NAMED))
        else:
            with pytest.raises(Invalid):
                await rig.up(project(web=NAMED))


async def test_its_own_name_is_no_conflict():
    async with Rig() as rig:
        for image in ("web:1", "web:2"):
            await rig.up(project(web={**NAMED, "image": image}))
            await rig.deployed()
