"""``required: false``: what becomes of the dependent and of the release, for every fate."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import CHECK, after, project
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

STARTED, HEALTHY, COMPLETED = (
    "service_started",
    "service_healthy",
    "service_completed_successfully",
)
CONDITIONS = (STARTED, HEALTHY, COMPLETED)
NOWHERE = {"deploy": {"placement": {"constraints": ["node.labels.disk == gold"]}}}
NONE = {"deploy": {"replicas": 0}}

# fate -> (the dependency, how it turns out, what a warning or a failure says)
FATES = {
    "fails": (
        {"restart": "no"},
        Behaviour(exit_code=3, never_ready=True),
        "dep-1 exited with code 3",
    ),
    "unhealthy": ({"restart": "no", **CHECK}, Behaviour(sick=True), "dep-1 is unhealthy"),
    "loops": (
        {"restart": "always"},
        Behaviour(exit_code=4, crashes=99),
        "restarted 9 times and never up for 5 s",
    ),
    "never places": (NOWHERE, Behaviour(), "no node fits"),
    "disabled": (None, Behaviour(), "dep is not active"),
    "scaled to 0": (NONE, Behaviour(), ""),
    "blocked": (after(COMPLETED, "base"), Behaviour(), "dep is blocked by base"),
}

# condition, fate -> (starts, how the release ends, within seconds); required dependencies
REQUIRED = {
    (STARTED, "fails"): (True, "failed", 5),
    (HEALTHY, "fails"): (False, "failed", 5),
    (COMPLETED, "fails"): (False, "failed", 5),
    (STARTED, "unhealthy"): (True, "failed", 32),
    (HEALTHY, "unhealthy"): (False, "failed", 5),
    (COMPLETED, "unhealthy"): (False, "failed", 32),
    (STARTED, "loops"): (True, "failed", 40),
    (HEALTHY, "loops"): (False, "failed", 5),  # nothing checks it: see test_no_check
    (COMPLETED, "loops"): (False, "failed", 40),
    (STARTED, "never places"): (False, "failed", 102),
    (HEALTHY, "never places"): (False, "failed", 102),
    (COMPLETED, "never places"): (False, "failed", 102),
    (STARTED, "disabled"): (False, "refused", 0),
    (HEALTHY, "disabled"): (False, "refused", 0),
    (COMPLETED, "disabled"): (False, "refused", 0),
    # As in Compose: what is wanted zero times is not waited for.
    (STARTED, "scaled to 0"): (True, "deployed", 5),
    (HEALTHY, "scaled to 0"): (True, "deployed", 5),
    (COMPLETED, "scaled to 0"): (True, "deployed", 5),
    (STARTED, "blocked"): (False, "failed", 5),
    (HEALTHY, "blocked"): (False, "failed", 5),
    (COMPLETED, "blocked"): (False, "failed", 5),
}
# With required: false all start, and all releases end well, in so many seconds at most.
OPTIONAL = {"never places": 7, "loops": 40}


def model(fate, condition, *, required):
    dep, _, _ = FATES[fate]
    services = {"web": after(condition, "dep", required=required)}
    if dep is not None:
        services["dep"] = dep
    if fate == "blocked":
        services["base"] = {"restart": "no"}
    return project(**services)


async def end_of(rig, fate, condition, *, required):
    """Return the release's end, when it came, and everything it warned of."""
    rig.how["dep"] = FATES[fate][1]
    rig.how["base"] = Behaviour(exit_code=7)
    began = rig.clock.monotonic()
    row = await rig.control.deploy(
        "app", rig.request(model(fate, condition, required=required), deadline=100.0)
    )
    told = [problem.message for problem in row.warnings]
    async for line in rig.control.progress("app", row.number):
        if line.kind == "warning":
            told.append(line.message)
        if line.kind == "end":
            return line, rig.clock.monotonic() - began, "\n".join(told)
    raise AssertionError("no end")


@pytest.mark.parametrize(("condition", "fate"), REQUIRED)
async def test_a_required_dependency(condition, fate):
    starts, ends, within = REQUIRED[condition, fate]
    async with Rig() as rig:
        if ends == "refused":
            with pytest.raises(Invalid, match="there is no service dep"):
                await end_of(rig, fate, condition, required=True)
            return
        end, took, told = await end_of(rig, fate, condition, required=True)
        assert end.state == ends, end.message
        assert took <= within
        await asyncio.sleep(1)
        assert bool(rig.ready("web")) is starts
        if ends == "failed":
            assert "dep" in end.message
            unchecked = "dep has no health check" in end.message
            assert FATES[fate][2] in end.message or fate == "blocked" or unchecked
            assert starts or "web" in end.message, "who is kept from starting is named"
        assert not told


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("condition", CONDITIONS)
async def test_an_optional_dependency(condition, fate):
    async with Rig() as rig:
        end, took, told = await end_of(rig, fate, condition, required=False)
        assert end.state == "deployed", end.message
        assert took <= OPTIONAL.get(fate, 5)
        assert rig.ready("web")
        assert FATES[fate][2] in told, told
        if fate != "scaled to 0":
            assert "web goes on without" in told
        # It stays so: the dependent is not touched again.
        ids = [task.id for task in rig.live("web")]
        await asyncio.sleep(30)
        assert [task.id for task in rig.ready("web")] == ids


async def test_who_is_needed_by_another_fails_the_release_all_the_same():
    async with Rig() as rig:
        rig.how["dep"] = Behaviour(exit_code=3)
        await rig.up(
            project(
                dep={"restart": "no"},
                web=after(COMPLETED, "dep", required=False),
                api=after(COMPLETED, "dep"),
            )
        )
        end = await rig.end_of()
        assert end.state == "failed"
        assert "; api is blocked by dep" in end.message
        await rig.until(lambda: rig.ready("web"))


async def test_what_was_asked_for_by_name_is_needed():
    async with Rig() as rig:
        rig.how["dep"] = Behaviour(exit_code=3)
        spec = project(dep={"restart": "no"}, web=after(COMPLETED, "dep", required=False))
        await rig.up(spec, services=("dep", "web"))
        assert (await rig.end_of()).state == "failed"


async def test_an_update_of_an_optional_service_that_still_serves_is_not_given_up():
    async with Rig() as rig:
        web = after(STARTED, "cache", required=False)
        await rig.up(project(cache={"restart": "always"}, web=web))
        await rig.deployed()
        rig.how["cache:2"] = Behaviour(reject="no such device")
        await rig.up(project(cache={"restart": "always", "image": "cache:2"}, web=web))
        end = await rig.end_of()
        assert end.state == "failed"
        assert "update of cache failed" in end.message
        assert rig.ready("cache")


async def test_an_optional_one_off_may_fail_in_every_release():
    async with Rig() as rig:
        web = after(COMPLETED, "seed", required=False)
        for number in (1, 2, 3):
            rig.how[f"seed:{number}"] = Behaviour(exit_code=3)
            await rig.up(project(seed={"restart": "no", "image": f"seed:{number}"}, web=web))
            end = await rig.end_of()
            assert end.state == "deployed", end.message


async def test_a_dependency_that_comes_late_is_taken_all_the_same():
    async with Rig() as rig:
        await rig.up(project(dep=NOWHERE, web=after(HEALTHY, "dep", required=False)))
        await rig.deployed()
        assert not rig.ready("dep")
        node = rig.cluster.nodes["n1"]
        await rig.put_node(node.model_copy(update={"labels": {"disk": "gold"}}))
        await rig.until(lambda: rig.ready("dep"))


async def test_what_goes_on_being_unhealthy_is_warned_of_once():
    # Each failed check has another number and other words; it is one thing all the same.
    check = {"healthcheck": {"test": ["CMD", "true"], "interval": "0.2s", "retries": 2}}
    async with Rig() as rig:
        rig.how["dep"] = Behaviour(sick=True)
        rig.how["late"] = Behaviour(prepare=10.0)
        await rig.up(project(dep=check, web=after(HEALTHY, "dep", required=False), late={}))
        assert (await rig.end_of()).state == "deployed"
        (note,) = rig.release().notes
        assert note.startswith("dep: app-dep-1 is unhealthy (")
        # The next release tells it again, once; by then it was there before.
        await rig.up(project(dep=check, web=after(HEALTHY, "dep", required=False), late={}, new={}))
        await rig.deployed()
        assert len(rig.release().notes) == 1
