"""When a release counts as deployed: what has to have run for how long, and what fails it."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.replicas import Replica
from scheduler.trial import Trial, has_exited, looping, steady_at
from specs.patience import TRIAL
from specs.states import Desired, TaskState
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

NOW = 100.0


def task(**more):
    usual = {"id": "t", "slot": 1, "spec_hash": "h", "release": 2, "ready": True}
    return Replica(**{**usual, "ready_since": NOW, "was_ready": True, **more})


# the law, pure


@pytest.mark.parametrize(
    ("found", "trial", "exited", "after"),
    [
        (task(), Trial(5), False, TRIAL),
        (task(checked=True), Trial(5), False, 0),
        (task(), Trial(5), True, 5),
        (task(checked=True), Trial(5), True, 5),
        (task(), Trial(5, updated=True), False, 5),
        (task(checked=True), Trial(5, updated=True), False, 5),
        (task(release=1), Trial(5, deployed=1), False, 0),
        (task(release=1), Trial(5, deployed=1, updated=True), False, 0),
        (task(release=1), Trial(5, deployed=1), True, 5),
        (task(ready_since=NOW - 60), Trial(5), True, 0),
        (task(), Trial(0, updated=True), True, TRIAL),
        (task(checked=True), Trial(0, updated=True), True, 0),
        (task(state=TaskState.COMPLETE, ready=False, ready_since=None), Trial(5), True, 0),
        (task(ready=False, ready_since=None), Trial(5), False, None),
        (task(state=TaskState.FAILED, ready=False, ready_since=None), Trial(5), True, None),
    ],
    ids=[
        "quiet: a second",
        "its check passed: at once",
        "something exited: the monitor time",
        "something exited, with a check: the same",
        "updated: the monitor time",
        "updated, with a check: the same",
        "judged by an earlier release: at once",
        "not the update's: at once",
        "judged before, but it exits: the monitor time",
        "has lived that long: at once",
        "monitor 0: a second",
        "monitor 0 and a check: at once",
        "a one-off that completed: at once",
        "not ready: not yet",
        "failed: not at all",
    ],
)
def test_how_long_a_task_is_tried(found, trial, exited, after):
    at = steady_at(found, trial, exited=exited, now=NOW)
    assert at == (None if after is None else NOW + after)


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (task(), False),
        (task(restarts=1), True),
        (task(state=TaskState.FAILED), True),
        (task(state=TaskState.COMPLETE), False),
        (task(state=TaskState.REJECTED), False),
        (task(restarts=3, desired=Desired.SHUTDOWN), False),
    ],
    ids=["runs", "restarted", "failed", "completed", "never ran", "was asked to go"],
)
def test_what_counts_as_an_exit(found, counts):
    assert has_exited([task(slot=2), found]) is counts


@pytest.mark.parametrize(
    ("found", "is_one"),
    [
        (task(ready=False, restarts=9, lived=0.3), True),
        (task(ready=False, restarts=9, was_ready=False), True),
        (task(ready=False, restarts=8, lived=0.3), False),
        (task(ready=False, restarts=9, lived=5.0), False),
        (task(ready=True, restarts=9, lived=0.3), False),
        (task(ready=False, restarts=9, state=TaskState.FAILED), False),
    ],
    ids=["short lives", "never ready", "few", "lived its time", "lives now", "ended"],
)
def test_what_is_a_crash_loop(found, is_one):
    assert looping(found, Trial(5), 9) is is_one


# releases, in virtual time

ALWAYS = {"restart": "always"}
ONCE = {"restart": "no"}
TAIL = ("no route to db",)


def monitored(seconds):
    return {**ALWAYS, "deploy": {"update_config": {"monitor": seconds}}}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("service", "how", "state", "earliest", "latest"),
    [
        (ALWAYS, Behaviour(), "deployed", 1.0, 1.1),
        ({**ALWAYS, **CHECK}, Behaviour(healthy=0.1), "deployed", 0.1, 0.3),
        (ONCE, Behaviour(exit_code=0), "deployed", 0.0, 0.2),
        (ONCE, Behaviour(exit_code=0, runs_for=0.5), "deployed", 0.5, 0.7),
        (ONCE, Behaviour(exit_code=0, runs_for=30), "deployed", 1.0, 1.1),
        (ONCE, Behaviour(exit_code=4), "failed", 0.0, 0.2),
        (ONCE, Behaviour(exit_code=4, runs_for=0.8), "failed", 0.8, 0.9),
        (ALWAYS, Behaviour(exit_code=4, runs_for=0.0, crashes=99), "failed", 20, 30),
        (ALWAYS, Behaviour(exit_code=4, runs_for=0.3, crashes=99), "failed", 20, 35),
        (ALWAYS, Behaviour(exit_code=0, runs_for=0.3, crashes=99), "failed", 20, 35),
        (ALWAYS, Behaviour(exit_code=4, runs_for=0.0, crashes=2), "deployed", 5.3, 5.5),
        (ALWAYS, Behaviour(exit_code=4, runs_for=0.9, crashes=1), "deployed", 6.0, 6.2),
        (monitored("2s"), Behaviour(exit_code=4, runs_for=0.3, crashes=1), "deployed", 2.4, 2.6),
        (monitored("10s"), Behaviour(), "deployed", 1.0, 1.1),
        (replicas(0), Behaviour(), "deployed", 0.0, 0.1),
    ],
    ids=[
        "quiet",
        "quiet with a check",
        "one-off",
        "slow one-off",
        "one-off that takes long",
        "one-off that fails",
        "fails within the second",
        "crash loop",
        "crash loop with a pause",
        "ends with 0 again and again",
        "crashes at first",
        "crashes once, late",
        "crashes, own monitor time",
        "quiet, own monitor time",
        "nothing wanted",
    ],
)
async def test_a_first_release(service, how, state, earliest, latest):
    how.log_tail = TAIL
    async with Rig() as rig:
        rig.how["web"] = how
        began = rig.clock.monotonic()
        await rig.up(project(web=service))
        end = await rig.end_of(within=100)
        assert end.state == state, end.message
        assert earliest <= rig.clock.monotonic() - began <= latest
        if state == "failed":
            assert end.exit_code == how.exit_code
            assert end.log_tail == TAIL
            assert end.service == "web"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("service", "how", "state", "earliest", "latest"),
    [
        (ALWAYS, Behaviour(), "deployed", 5.0, 5.3),
        ({**ALWAYS, **CHECK}, Behaviour(), "deployed", 5.0, 5.3),
        (monitored("2s"), Behaviour(), "deployed", 2.0, 2.3),
        (monitored("0s"), Behaviour(), "deployed", 1.0, 1.3),
        (ALWAYS, Behaviour(exit_code=4, runs_for=3.0, crashes=99), "failed", 3.0, 3.3),
        (monitored("2s"), Behaviour(exit_code=4, runs_for=3.0, crashes=99), "deployed", 2, 2.3),
        (ONCE, Behaviour(exit_code=0), "deployed", 0.0, 0.3),
        (ONCE, Behaviour(exit_code=4), "failed", 0.0, 0.3),
    ],
    ids=[
        "is watched",
        "is watched, with a check",
        "as long as the file says",
        "not longer than a start",
        "exits while it is watched",
        "exits later",
        "one-off",
        "one-off that fails",
    ],
)
async def test_an_update(service, how, state, earliest, latest):
    async with Rig() as rig:
        await rig.up(project(web=service))
        await rig.deployed()
        rig.how["web:2"] = how
        began = rig.clock.monotonic()
        await rig.up(project(web={**service, "image": "web:2"}))
        end = await rig.end_of(within=100)
        assert end.state == state, end.message
        assert earliest <= rig.clock.monotonic() - began <= latest


@pytest.mark.looptime
@pytest.mark.parametrize(
    "restarted", [False, True], ids=["same controller", "controller restarted"]
)
async def test_what_is_unchanged_is_waited_for_no_more(restarted):
    async with Rig() as rig:
        await rig.up(project(web=replicas(3), db=CHECK))
        await rig.deployed()
        await asyncio.sleep(60)
        if restarted:
            await rig.restart_controller()
            await asyncio.sleep(0.1)
        began = rig.clock.monotonic()
        await rig.up(project(web=replicas(3), db=CHECK))
        await rig.deployed()
        assert rig.clock.monotonic() - began < 0.2
        # New copies and services are first starts; the old ones are not tried again.
        began = rig.clock.monotonic()
        await rig.up(project(web=replicas(4), db=CHECK))
        await rig.deployed()
        assert 1.0 <= rig.clock.monotonic() - began < 1.2


@pytest.mark.looptime
async def test_up_again_is_no_success_while_it_crashes():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(exit_code=4, runs_for=0.3, crashes=99, log_tail=TAIL)
        await rig.up(project(web=ALWAYS))
        assert (await rig.end_of(within=100)).state == "failed"
        began = rig.clock.monotonic()
        await rig.up(project(web=ALWAYS))
        end = await rig.end_of(within=200)
        assert end.state == "failed"
        assert "times and never up for 5 s" in end.message
        assert rig.clock.monotonic() - began > 10, "older trouble may be put right by now"


@pytest.mark.looptime
async def test_up_again_is_one_when_it_recovered():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(exit_code=4, runs_for=0.3, crashes=9)
        await rig.up(project(web=ALWAYS))
        assert (await rig.end_of(within=100)).state == "failed"
        await rig.up(project(web=ALWAYS))
        assert (await rig.end_of(within=200)).state == "deployed"


@pytest.mark.looptime
async def test_dependents_do_not_wait_for_the_verdict():
    async with Rig() as rig:
        began = rig.clock.monotonic()
        await rig.up(project(db=ALWAYS, web=after("service_started", "db")))
        await rig.until(lambda: rig.ready("web"))
        assert rig.clock.monotonic() - began < 0.5
        await rig.deployed()
        assert 1.0 <= rig.clock.monotonic() - began < 1.2


@pytest.mark.looptime
async def test_a_short_deadline_does_not_cut_the_watching_short():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(exit_code=4, runs_for=0.1, crashes=1)
        await rig.up(project(web=ALWAYS), deadline=2.0)
        assert (await rig.end_of()).state == "deployed"
        rig.how["api"] = Behaviour(exit_code=4, runs_for=0.1, crashes=99, log_tail=TAIL)
        began = rig.clock.monotonic()
        await rig.up(project(web=ALWAYS, api=ALWAYS), deadline=4.0)
        end = await rig.end_of()
        assert "no progress for 4 s: api has 0 of 1 ready" in end.message
        assert (end.exit_code, end.log_tail) == (4, TAIL)
        assert rig.clock.monotonic() - began < 8


@pytest.mark.looptime
async def test_up_of_one_service_is_judged_by_it_alone():
    async with Rig() as rig:
        rig.how["bad"] = Behaviour(exit_code=4, runs_for=0.3, crashes=999)
        services = {"bad": ALWAYS, "db": {}, "web": after("service_started", "db")}
        await rig.up(project(**services))
        assert (await rig.end_of(within=100)).state == "failed"
        began = rig.clock.monotonic()
        await rig.up(project(**{**services, "new": {}}), services=("web", "new"))
        end = await rig.end_of(within=100)
        assert end.state == "deployed", end.message
        assert rig.clock.monotonic() - began < 2


# whose words are told: those of what failed the release, whatever else went wrong beside it

SICK_CHECK = {"healthcheck": {"test": ["CMD", "true"], "interval": "1s", "retries": 2}}
ENDED = Behaviour(exit_code=5, log_tail=("seed ended",))
WHOSE = {
    # services, how they turn out -> the service that is named, its exit code and last lines
    "an optional one failed before": (
        {"seed": {}, "web": after("service_started", "seed", required=False)},
        {"seed": ENDED, "web": Behaviour(exit_code=4, runs_for=0.5, log_tail=TAIL)},
        ("web", 4, TAIL),
    ),
    "an optional one failed later": (
        {"seed": {}, "web": after("service_started", "seed", required=False), "late": {}},
        {"seed": ENDED, "web": Behaviour(never_ready=True), "late": Behaviour(exit_code=4)},
        ("late", 4, ()),
    ),
    "a check fails while another service is restarted": (
        {"sick": SICK_CHECK, "web": {**SICK_CHECK, "restart": "always"}},
        {"sick": Behaviour(sick=True), "web": Behaviour(never_ready=True, crashes=5, exit_code=3)},
        ("sick", None, ()),
    ),
    "who waits for a check that fails": (
        {
            "sick": SICK_CHECK,
            "web": after("service_healthy", "sick"),
            "loop": {"restart": "always"},
        },
        {"sick": Behaviour(sick=True), "loop": Behaviour(exit_code=3, crashes=99, again=True)},
        ("sick", None, ()),
    ),
    "the first of two in the order of their dependencies": (
        {"zero": {}, "web": after("service_started", "zero")},
        {"zero": ENDED, "web": Behaviour(exit_code=4, log_tail=TAIL)},
        ("zero", 5, ("seed ended",)),
    ),
    "nothing that runs": (
        {
            "seed": {},
            "web": after("service_started", "seed", required=False),
            "none": {"deploy": {"placement": {"constraints": ["node.labels.x == y"]}}},
        },
        {"seed": ENDED},
        ("", None, ()),
    ),
}


@pytest.mark.looptime
@pytest.mark.parametrize("case", WHOSE)
async def test_whose_last_lines_and_code_are_told(case):
    services, how, (service, code, tail) = WHOSE[case]
    async with Rig() as rig:
        rig.how.update(how)
        await rig.up(project(**services), deadline=20.0)
        end = await rig.end_of(within=100)
        assert end.state == "failed", end
        assert (end.service, end.exit_code, end.log_tail) == (service, code, tail), end.message
        assert end.message.startswith(f"{service}: " if service else "no progress")
