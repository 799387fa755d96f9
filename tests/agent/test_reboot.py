"""What a reboot means for a task: what ran runs again, in order, and never waits for ever."""

from __future__ import annotations

import pytest

from agent.tasks import lifecycle as life
from agent.tasks.reboot import HOLD, rebooted
from agent.tasks.steps import Clear, Erase, Launch, Prepare, Settle, Tidy, Wait
from agent.vocabulary import Exit, ImageConfig, Process
from specs.stack import RestartPolicy, TaskSpec
from specs.states import Desired, TaskState
from specs.task import MACHINE_RESTARTED
from specs.wire import Assignment, TaskNetwork

WALL = 1_700_000_000.0
IMAGE = ImageConfig(digest="sha256:" + "0" * 64)
NETWORKS = (TaskNetwork(network="n", address="10.210.16.66"),)


def task(policy="any", *, after=(), **keys):
    spec = TaskSpec(image="i", restart=RestartPolicy(condition=policy), **keys)
    return Assignment(
        id="t1",
        stack="s",
        service="web",
        slot=1,
        name="s-web-1",
        spec=spec,
        desired=Desired.RUNNING,
        networks=NETWORKS,
        after=after,
    )


def running(assignment):
    record = life.prepared(life.preparing(life.fresh(assignment, "first")), IMAGE)
    one = Process(pid=9, start=1)
    return life.started(life.created(life.creating(record, 1), one, one), 5e6, WALL)


def wanting(record, **changes):
    return life.assigned(record, record.assignment.model_copy(update=changes))


@pytest.mark.parametrize(
    ("policy", "on_reboot", "desired", "state", "step"),
    [
        # Docker leaves `no` down; the user did not stop it, so here it runs again.
        ("none", "run", "running", "running", Prepare()),
        ("on-failure", "run", "running", "running", Prepare()),
        ("any", "run", "running", "running", Prepare()),
        ("none", "keep", "running", "failed", Tidy()),
        ("on-failure", "keep", "running", "failed", Tidy()),
        ("any", "keep", "running", "failed", Tidy()),
        # What was stopped stays stopped, whatever the policy.
        ("none", "run", "shutdown", "shutdown", Tidy()),
        ("any", "run", "shutdown", "shutdown", Tidy()),
        ("any", "keep", "shutdown", "shutdown", Tidy()),
        ("any", "run", "removed", "shutdown", Erase()),
    ],
)
def test_what_ran_when_the_machine_was_restarted(policy, on_reboot, desired, state, step):
    record = running(task(policy, on_reboot=on_reboot))
    record = wanting(record, desired=Desired(desired)) if desired != "running" else record
    before = record
    record = rebooted(record, "next", 3.0, WALL)
    assert (record.run.exit_code, record.run.finished_at) == (None, WALL)
    assert record.run.cut_off
    assert life.next_step(record, 3.0) == Clear()
    record = life.cleared(record)
    assert record.state == state
    assert life.next_step(record, 3.0) == step
    assert rebooted(record, "next", 4.0, WALL) == record
    assert (record.id, record.assignment) == (before.id, before.assignment), "the same task"
    if step == Prepare():
        assert life.next_step(life.prepared(record, IMAGE), 3.0) == Launch(2), "a new run of it"


@pytest.mark.parametrize("ended", [TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED])
@pytest.mark.parametrize("policy", ["none", "any"])
def test_what_had_ended_by_itself_or_was_stopped_is_not_run_again(ended, policy):
    record = life.preparing(life.fresh(task(policy, after=("db to be healthy",)), "first"))
    record = rebooted(life.settled(record, Settle(ended, "")), "next", 3.0, WALL)
    assert record.state == ended
    assert not record.held
    assert life.next_step(record, 3.0) == Tidy()


def test_no_attempt_of_the_restart_policy_is_used_up():
    policy = RestartPolicy(condition="on-failure", max_attempts=1)
    given = task().model_copy(update={"spec": TaskSpec(image="i", restart=policy)})
    record = running(given)
    for boot in "abc":
        record = life.cleared(rebooted(record, boot, 3.0, WALL))
        assert record.state == "running"
        assert record.restarts == 0
        record = life.creating(life.prepared(record, IMAGE), record.number + 1)
        one = Process(pid=9, start=1)
        record = life.started(life.created(record, one, one), 4.0, WALL)
    record = life.ended(record, Exit(1), 5.0, WALL)
    assert (record.state, record.restarts) == ("running", 1), "its one attempt is still there"


def held():
    record = running(task(after=("db to be healthy", "migrate to complete")))
    return life.prepared(life.cleared(rebooted(record, "next", 3.0, WALL)), IMAGE)


def test_a_dependent_is_prepared_and_waits_for_the_word():
    record = held()
    assert life.next_step(record, 3.0) == Wait(3.0 + HOLD)
    status = record.status()
    assert status.held == "next"
    assert status.reason == (
        "the machine was restarted; waits for db to be healthy, migrate to complete"
    )
    assert life.next_step(wanting(record, admitted="first"), 3.0) == Wait(3.0 + HOLD)
    record = wanting(record, admitted="next")
    assert record.status().held == ""
    assert life.next_step(record, 3.0) == Launch(2)
    record = start(record, 3.0)
    assert (record.reason, record.run.reason) == ("", "")


def start(record, now):
    one = Process(pid=9, start=1)
    record = life.creating(record, record.number + 1)
    return life.started(life.created(record, one, one), now, WALL)


def test_without_a_word_it_starts_after_a_minute_and_says_why():
    record = held()
    assert life.next_step(record, 3.0 + HOLD - 0.1) == Wait(3.0 + HOLD)
    assert life.next_step(record, 3.0 + HOLD) == Launch(2)
    record = start(record, 3.0 + HOLD)
    assert record.ready
    assert record.status().held == ""
    assert record.run.reason == (
        "started without waiting any longer for db to be healthy, migrate to complete"
    )
    record = life.cleared(life.ended(record, Exit(1), 70.0, WALL))
    assert record.run.reason == "exited with 1"
    assert life.next_step(record, 71.0) == Launch(3), "a crash later is no start of a boot"


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"desired": Desired.SHUTDOWN}, Settle(TaskState.SHUTDOWN, "stopped as asked")),
        ({"desired": Desired.REMOVED}, Erase()),
        ({"restart": 1}, Launch(2)),  # somebody asked for it now
    ],
)
def test_what_a_held_task_is_told(changes, step):
    assert life.next_step(wanting(held(), **changes), 3.0) == step


def test_who_waits_for_nobody_starts_at_once():
    record = running(task())
    record = life.prepared(life.cleared(rebooted(record, "next", 3.0, WALL)), IMAGE)
    assert life.next_step(record, 3.0) == Launch(2)
    assert MACHINE_RESTARTED in record.runs[0].reason


def test_a_new_task_is_never_held():
    record = life.prepared(life.preparing(life.fresh(task(after=("db to start",)), "b")), IMAGE)
    assert life.next_step(record, 0.0) == Launch(1)
    assert life.adopted(rebooted(record, "b", 1.0, WALL)) == record, "the same boot"
