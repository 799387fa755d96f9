"""post_start and pre_stop: when they run, what a failing one means, what outlives the agent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.tasks import hooks, lifecycle
from specs.stack import Healthcheck, Hook, RestartPolicy
from tests.agent.test_worker import Node, named

pytestmark = pytest.mark.looptime
NEVER = RestartPolicy(condition="none")


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path)
    made.hooks.frozen = lambda task: task in made.containers.frozen
    yield made
    if made.running is not None:
        await made.kill()


def spec(starts=("a1", "a2"), stops=("z1", "z2"), **keys):
    return {
        "post_start": tuple(Hook(command=(name,)) for name in starts),
        "pre_stop": tuple(Hook(command=(name,)) for name in stops),
        **keys,
    }


def now():
    return asyncio.get_running_loop().time()


def signals(node):
    return [number for _, number in node.containers.sent]


async def test_a_start_is_over_when_its_hooks_are(node):
    node.hooks.takes = {"a1": 5.0, "a2": 5.0}
    await node.put(named("a", **spec()))
    await node.until(lambda: node.status("a").reason == "post_start hook: a2")
    status = node.status("a")
    assert (status.state, status.ready) == ("starting", False)
    assert status.ready_reason == "post_start hook: a2"
    await node.until(lambda: node.status("a").ready)
    assert node.status("a").state == "running"
    assert node.status("a").reason == ""
    assert node.hooks.seen == ["a1", "a2"], "one after the other, in the file's order"


@pytest.mark.parametrize("first", ["hook", "health"])
async def test_a_checked_task_runs_when_both_have_said_so(node, first):
    node.hooks.takes = {"a1": 9.0 if first == "health" else 0.1}
    node.probes["a"] = [1] * (12 if first == "hook" else 1) + [0]
    check = Healthcheck(test=("CMD", "x"), interval=1.0, retries=100)
    await node.put(named("a", **spec(["a1"], healthcheck=check)))
    await node.until(lambda: node.status("a").run and node.status("a").run.started_at)
    while not node.status("a").ready:
        assert node.status("a").state == "starting"
        await asyncio.sleep(0.1)
    assert node.status("a").state == "running"
    assert node.status("a").health == "healthy"
    assert node.hooks.seen == ["a1"]


@pytest.mark.parametrize(
    ("policy", "state", "runs"),
    [
        # Compose: `up` fails. What failed to start has failed, as if its command had crashed.
        (NEVER, "failed", 1),
        (RestartPolicy(condition="on-failure", max_attempts=2), "failed", 3),
        (RestartPolicy(condition="any", max_attempts=1), "failed", 2),
    ],
)
async def test_a_failing_post_start_is_the_failure_of_its_run(node, policy, state, runs):
    node.hooks.fails = {"a1": "exited with 3: no such table"}
    await node.put(named("a", **spec(policy=policy)))
    await node.until(lambda: node.status("a").state == state)
    status = node.status("a")
    assert status.reason.startswith("post_start hook: exited with 3: no such table")
    assert len(status.runs) == runs
    assert status.run.exit_code == 143, "it was told to end"
    assert node.hooks.seen == ["a1", "z1", "z2"] * runs, "what it may have begun is left in order"
    await node.until(lambda: node.containers.alive == {})


async def test_a_hook_that_never_ends_has_a_deadline(node):
    node.hooks.takes = {"a1": 10_000.0}
    began = now()
    await node.put(named("a", **spec(["a1"], [], policy=NEVER)))
    await asyncio.sleep(hooks.LONGEST)
    assert node.status("a").state == "starting"
    await node.until(lambda: node.status("a").state == "failed")
    assert node.status("a").reason == "post_start hook: did not end within 300 s"
    assert hooks.LONGEST <= now() - began < hooks.LONGEST + 2


@pytest.mark.parametrize(
    ("code", "policy", "state"),
    [(0, NEVER, "failed"), (0, RestartPolicy(condition="on-failure", max_attempts=0), "failed"),
     (5, NEVER, "failed")],
)  # fmt: skip
async def test_a_command_that_ends_before_its_hooks_are_over_has_failed(node, code, policy, state):
    """As Compose's `up`, which cannot run them any more and says so."""
    node.containers.behaviour["a"] = (1.0, code)
    node.hooks.takes = {"a1": 50.0}
    await node.put(named("a", **spec(["a1"], policy=policy)))
    await node.until(lambda: node.status("a").state == state)
    assert f"exited with {code} before its post_start hooks were over" in node.status("a").reason
    assert node.hooks.seen == ["a1", "-a1"], "no pre_stop: nobody stopped it"


async def test_what_ends_by_itself_has_no_pre_stop(node):
    node.containers.behaviour["a"] = (5.0, 0)
    await node.put(named("a", **spec(policy=NEVER)))
    await node.until(lambda: node.status("a").state == "complete")
    assert node.hooks.seen == ["a1", "a2"]


WAYS_OUT = {
    # who asks -> (changes of the assignment, hooks, signals)
    "down, stop, scale, a replaced task": ({"desired": "shutdown"}, ["z1", "z2"], [15]),
    "removed at once": ({"desired": "removed"}, ["z1", "z2"], [15]),
    "restart": ({"restart": 1}, ["z1", "z2", "a1", "a2"], [15]),
    "no patience": ({"desired": "shutdown", "grace": 0.0}, [], [9]),
    "paused": ({"desired": "shutdown", "paused": True}, ["z1", "z2"], [15]),
}


@pytest.mark.parametrize("way", WAYS_OUT)
async def test_which_stop_runs_its_hooks_before_its_signal(node, way):
    changes, then, sent = WAYS_OUT[way]
    await node.put(named("a", **spec()))
    await node.until(lambda: node.status("a").ready)
    if "paused" in changes:
        await node.put(named("a", paused=True, **spec()))
        await node.until(lambda: node.status("a").paused)
    node.hooks.seen.clear()
    pid = node.containers.alive["a"].pid
    frozen = []
    node.hooks.takes = {"z1": 0.5}
    outer = {k: v for k, v in changes.items() if k != "desired"}
    await node.put(named("a", changes.get("desired", "running"), **outer, **spec()))
    while node.holdings.record("a").phase == "running" and not node.containers.sent:
        if "z1" in node.hooks.seen:
            frozen.append("a" in node.containers.frozen)
            assert not node.status("a").ready
        await asyncio.sleep(0.1)
    assert not any(frozen), "what is frozen could not run a hook"
    assert node.containers.sent == [(pid, number) for number in sent]
    if way == "restart":
        await node.until(lambda: node.status("a").ready and node.status("a").run.number == 2)
    assert node.hooks.seen == then


@pytest.mark.parametrize(
    ("why", "seconds", "signal_after", "seen"),
    [
        ("ends in time", 3.0, 3.1, ["z1", "z2"]),
        ("fails", 3.0, 3.1, ["z1", "z2"]),  # said, and the stop goes on
        ("takes all the patience", 100.0, 8.0, ["z1", "-z1"]),
    ],
)
async def test_pre_stop_is_within_the_patience(node, why, seconds, signal_after, seen):
    node.hooks.takes = {"z1": seconds}
    node.hooks.fails = {"z1": "exited with 1"} if why == "fails" else {}
    node.containers.deaf.add("a")
    await node.put(named("a", **spec([])))
    await node.until(lambda: node.status("a").ready)
    began = now()
    await node.put(named("a", "shutdown", **spec([])))
    await node.until(lambda: signals(node) == [15])
    assert signal_after - 0.01 < now() - began < signal_after + 0.5
    await node.until(lambda: node.status("a").state == "shutdown")
    assert 10.0 <= now() - began < 10.5, "the patience is that of the whole stop"
    assert signals(node) == [15, 9]
    assert node.hooks.seen == seen


@pytest.mark.parametrize("grace", [0.2, 1.0, 4.0, 10.0, 600.0])
def test_something_of_the_patience_stays_for_the_signal(grace):
    assert grace / 2 <= hooks.patience(grace) < grace
    assert grace - hooks.patience(grace) == min(hooks.LAST, grace / 2)


async def test_who_changes_his_mind_kills_what_runs_a_hook(node):
    node.hooks.takes = {"z1": 100.0}
    await node.put(named("a", **spec([])))
    await node.until(lambda: node.status("a").ready)
    await node.put(named("a", "shutdown", **spec([])))
    await node.until(lambda: node.hooks.seen == ["z1"])
    assert node.status("a").ready_reason == "is being stopped (shutdown)"
    await node.put(named("a", "shutdown", grace=0.0, **spec([])))
    await node.until(lambda: node.status("a").state == "shutdown")
    assert signals(node) == [9]
    assert node.hooks.seen == ["z1", "-z1"]


async def test_a_stop_ends_a_start_that_is_under_way(node):
    node.hooks.takes = {"a1": 100.0}
    await node.put(named("a", **spec()))
    await node.until(lambda: node.hooks.seen == ["a1"])
    await node.put(named("a", "shutdown", **spec()))
    await node.until(lambda: node.status("a").state == "shutdown")
    assert node.hooks.seen == ["a1", "-a1", "z1", "z2"]
    assert "hook" not in node.status("a").reason


KILLED = {
    # what is under way when the agent is killed -> what its successor does
    "the first hook": (["a1"], "running", ["a1", "a2"]),
    "the second hook": (["a1", "a2"], "running", ["a2"]),
    "no hook any more": (["a1", "a2", "."], "running", []),
    "a pre_stop hook": (["z1"], "shutdown", ["z1", "z2"]),
    "the signal was sent": (["z1", "z2", "sent"], "shutdown", []),
}


@pytest.mark.parametrize("moment", KILLED)
async def test_a_hook_under_way_is_begun_anew_and_one_that_was_over_is_not(node, moment):
    before, desired, after = KILLED[moment]
    node.containers.deaf.add("a")
    starts = ("a1", "a2") if desired == "running" else ()
    node.hooks.takes = dict.fromkeys(("a1", "a2", "z1"), 3.0)
    await node.put(named("a", **spec(starts)))
    if desired != "running":
        await node.until(lambda: node.status("a").ready)
        await node.put(named("a", desired, **spec(starts)))
    await node.until(lambda: node.hooks.seen == [one for one in before if one[0] in "az"])
    if before[-1] == ".":
        await node.until(lambda: node.status("a").ready)
    if before[-1] == "sent":
        await node.until(lambda: signals(node) == [15])
    pid = node.containers.alive["a"].pid
    await node.kill()
    node.hooks.seen.clear()
    await node.start()
    if desired == "running":
        await node.until(lambda: node.status("a").ready)
        assert node.containers.alive["a"].pid == pid, "law: containers outlive us"
        assert node.status("a").run.number == 1
    else:
        await node.until(lambda: node.status("a").state == "shutdown")
    assert node.hooks.seen == after


async def test_a_run_whose_record_is_lost_is_not_put_at_risk_by_its_hooks(node):
    await node.put(named("a", **spec()))
    await node.until(lambda: node.status("a").ready)
    await node.kill()
    (node.base / "run/records/a").unlink()
    (node.base / "tasks/a/record.json").unlink()
    node.hooks.seen.clear()
    await node.start()
    await node.until(lambda: node.status("a").ready)
    assert node.hooks.seen == []


async def test_what_ps_says_of_a_hook_has_no_password(node):
    hook = Hook(command=("login", "--password", "hunter2", "DB_PASSWORD=hunter2"))
    assert (
        hooks.named("post_start", hook) == "post_start hook: login --password *** DB_PASSWORD=***"
    )
    node.hooks.fails = {"a1": "exited with 1: DB_PASSWORD=hunter2 is wrong"}
    await node.put(named("a", **spec(policy=NEVER)))
    await node.until(lambda: node.status("a").state == "failed")
    assert "hunter2" not in str(node.status("a"))
    assert "is wrong" in node.status("a").reason


PAUSED = {
    # what happens while it is paused, longer than a hook may take -> hooks, until it has gone on
    "before its hooks": ["a1", "a2"],
    "during a hook": ["a1", "a2"],
    "the agent is killed": ["a1", "-a1", "a1", "a2"],
    "it is restarted": ["a1", "a2", "z1", "z2", "a1", "a2"],
    "the freeze comes between": ["?a1", "a1", "a2"],
    "a pause longer than the rest of the deadline": ["a1", "a2"],
}


@pytest.mark.parametrize("case", PAUSED)
async def test_a_pause_does_not_end_a_start(node, case, monkeypatch):
    """Nothing can be begun in a frozen container, and what is frozen is not late."""
    monkeypatch.setattr(hooks, "LONGEST", 30.0)
    takes = 25.0 if "deadline" in case else 3.0
    node.hooks.takes = {"a1": takes}
    if "restarted" in case:
        await node.put(named("a", **spec(policy=NEVER)))
        await node.until(lambda: node.status("a").ready)
    elif case != "before its hooks":
        if "between" in case:
            node.hooks.begins = 5.0
        await node.put(named("a", **spec(policy=NEVER)))
        await node.until(lambda: node.status("a").reason == "post_start hook: a1")
        await node.until(lambda: node.hooks.seen or "between" in case)
        await asyncio.sleep(takes - 1 if "deadline" in case else 0.0)
    await node.put(named("a", paused=True, restart=int("restarted" in case), **spec(policy=NEVER)))
    await node.until(lambda: node.status("a").paused)
    if "agent" in case:
        await node.kill()
        await node.start()
    if "restarted" in case:
        await node.until(lambda: node.status("a").run.number == 2 and node.status("a").paused)
    await asyncio.sleep(50)
    status = node.status("a")
    assert (status.state in ("starting", "running"), status.paused) == (True, True)
    if case in ("before its hooks", "the agent is killed", "it is restarted"):
        assert status.reason == hooks.PAUSED
    restart = int("restarted" in case)
    await node.put(named("a", paused=False, restart=restart, **spec(policy=NEVER)))
    await node.until(lambda: node.status("a").ready)
    assert node.hooks.seen == PAUSED[case]
    assert node.status("a").state == "running"
    assert node.status("a").reason == ""


async def test_a_hook_frozen_for_long_has_the_rest_of_its_deadline(node, monkeypatch):
    monkeypatch.setattr(hooks, "LONGEST", 30.0)
    node.hooks.takes = {"a1": 10_000.0}
    began = now()
    await node.put(named("a", **spec(["a1"], [], policy=NEVER)))
    await asyncio.sleep(10)
    await node.put(named("a", paused=True, **spec(["a1"], [], policy=NEVER)))
    await node.until(lambda: node.status("a").paused)
    await asyncio.sleep(100)
    assert node.status("a").state == "starting"
    assert signals(node) == []
    await node.put(named("a", paused=False, **spec(["a1"], [], policy=NEVER)))
    await node.until(lambda: node.status("a").state == "failed")
    assert hooks.LONGEST + 100 <= now() - began < hooks.LONGEST + 105


@pytest.mark.parametrize(
    ("fails", "hooked"),
    [("", 1), ("ended by signal 15", 0)],  # what failed then was told to end with the machine
)
async def test_an_agent_that_ends_begins_no_further_hook(node, fails, hooked):
    node.hooks.fails = {"a1": fails}
    await node.put(named("a", **spec(policy=NEVER)))
    await node.until(lambda: node.hooks.seen == ["a1"])
    runner = node.holdings.runners["a"]
    ending = replace(runner._parts, ending=lambda: True)
    runner._parts = ending
    runner._hooks._ending = ending.ending
    await asyncio.sleep(5)
    assert node.hooks.seen == ["a1"]
    record = node.holdings.record("a")
    assert (record.hooked, record.hook_failed) == (hooked, "")


@pytest.mark.parametrize("takes", [100.0, 290.0, 310.0])
async def test_a_pre_stop_has_what_the_service_gives_it(node, takes):
    node.hooks.takes = {"z1": takes}
    await node.put(named("a", **spec([], ["z1"], stop_grace=400.0)))
    await node.until(lambda: node.status("a").ready)
    began = now()
    await node.put(named("a", "shutdown", **spec([], ["z1"], stop_grace=400.0)))
    await asyncio.sleep(takes - 1)
    await node.until(lambda: signals(node) == [15])
    assert takes <= now() - began < takes + 1
    assert node.hooks.seen == ["z1"]


@pytest.mark.parametrize("takes", [0.1, 5.0, 15.0])
async def test_a_start_that_fails_late_is_a_crash_as_any_other(node, takes):
    node.hooks.takes = {"a1": takes}
    node.hooks.fails = {"a1": "exited with 1"}
    policy = RestartPolicy(condition="any", delay=1.0)
    assignment = named("a", **spec(["a1"], [], policy=policy))
    await node.put(assignment.model_copy(update={"local_restarts": 2}))
    await asyncio.sleep(4 * takes + 30)
    assert node.status("a").state == "failed"
    assert "3 crashes in a row" in node.status("a").reason


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("takes", [0.1, 15.0])
async def test_the_time_of_its_hooks_is_no_healthy_spell(node, takes, checked):
    """Ready at last and dead at once is a crash in a row, however long the start took."""
    node.hooks.takes = {"a1": takes}
    more = {"healthcheck": Healthcheck(test=("CMD", "x"), interval=0.5)} if checked else {}
    policy = RestartPolicy(condition="any", delay=1.0)
    assignment = named("a", **spec(["a1"], [], policy=policy, **more))
    await node.put(assignment.model_copy(update={"local_restarts": 2}))
    for number in (1, 2, 3):
        await node.until(
            lambda n=number: node.status("a").ready and len(node.status("a").runs) == n
        )
        await asyncio.sleep(1)
        node.containers.end(node.containers.alive["a"].pid, 1)
        await node.until(lambda n=number: node.status("a").runs[n - 1].finished_at is not None)
    await node.until(lambda: node.status("a").state == "failed")
    assert "3 crashes in a row" in node.status("a").reason


async def test_a_healthy_spell_begins_when_the_hooks_are_over(node):
    node.hooks.takes = {"a1": 15.0}
    assignment = named("a", **spec(["a1"], [], policy=RestartPolicy(condition="any", delay=1.0)))
    await node.put(assignment.model_copy(update={"local_restarts": 1}))
    for number in (1, 2, 3):
        await node.until(
            lambda n=number: node.status("a").ready and len(node.status("a").runs) == n
        )
        await asyncio.sleep(lifecycle.ALIVE_ENOUGH + 1)
        node.containers.end(node.containers.alive["a"].pid, 1)
        await node.until(lambda n=number: node.status("a").runs[n - 1].finished_at is not None)
    assert node.holdings.record("a").crashes == 1
