"""When an update counts as failed: by what its new tasks did, and by nothing else."""

from __future__ import annotations

import pytest

from scheduler.reconcile import WantedService
from scheduler.replicas import Replica
from scheduler.rollout import CRASHES, advance
from specs.stack import UpdateConfig
from specs.states import TaskState

RELEASE = 2
UPDATE = UpdateConfig(monitor=10.0)


def new(**more):
    return Replica(**{"id": "t1", "slot": 1, "spec_hash": "new", "release": RELEASE, **more})


def state_of(*tasks, updating=True, update=UPDATE):
    wanted = WantedService({1: "new"})
    moves = advance(wanted, tasks, update, release=RELEASE, gate=True, updating=updating, now=100.0)
    return moves.state


@pytest.mark.parametrize(
    ("task", "state"),
    [
        (new(restarts=CRASHES - 1), "going"),
        (new(restarts=CRASHES), "failed"),
        (new(was_ready=True, lived=9.0, restarts=0), "going"),
        (new(was_ready=True, lived=9.0, restarts=1), "failed"),
        (new(was_ready=True, lived=10.0, restarts=1), "going"),
        (new(was_ready=True, lived=10.0, restarts=CRASHES), "going"),
        (new(state=TaskState.FAILED), "failed"),
        (new(state=TaskState.REJECTED), "failed"),
        (new(state=TaskState.COMPLETE), "done"),
        (new(ready=True, was_ready=True, restarts=CRASHES), "done"),
    ],
    ids=[
        "starts with trouble",
        "never ready",
        "ready, then not",
        "crashes while it is watched",
        "crashes after it was watched",
        "crashes long after",
        "ended",
        "cannot be prepared",
        "a one-off ended well",
        "serves now",
    ],
)
def test_a_new_task_fails_its_update(task, state):
    assert state_of(task) == state


DIED = {"was_ready": True, "restarts": 1}
TRIALS = {
    # lived, update_config -> the update's state
    "between monitor and delay": (2.0, {"monitor": 1.0, "delay": 6.0}, "failed"),
    "after both": (6.0, {"monitor": 1.0, "delay": 6.0}, "going"),
    "between delay and monitor": (2.0, {"monitor": 6.0, "delay": 1.0}, "failed"),
    "not watched": (2.0, {"monitor": 0.0, "delay": 6.0}, "going"),
    "no delay": (2.0, {"monitor": 1.0}, "going"),
}


@pytest.mark.parametrize("case", TRIALS)
def test_a_task_is_on_trial_until_the_next_one_may_follow(case):
    lived, update, state = TRIALS[case]
    assert state_of(new(**DIED, lived=lived), update=UpdateConfig(**update)) == state


@pytest.mark.parametrize("task", [new(restarts=CRASHES), new(state=TaskState.FAILED)])
def test_trouble_of_another_release_is_not_this_ones(task):
    older = Replica(**{**{f: getattr(task, f) for f in task.__slots__}, "release": RELEASE - 1})
    assert state_of(older) == "going"


def test_a_first_start_is_no_update():
    assert state_of(new(restarts=CRASHES), updating=False) == "going"


def test_some_may_fail_where_the_file_says_so():
    tasks = [new(), new(id="t2", slot=2, state=TaskState.FAILED)]
    wanted = WantedService({1: "new", 2: "new"})
    for ratio, state in ((0.5, "going"), (0.49, "failed")):
        update = UpdateConfig(max_failure_ratio=ratio)
        moves = advance(wanted, tasks, update, release=RELEASE, gate=True, updating=True, now=0.0)
        assert moves.state == state, ratio


def test_a_rollout_that_pauses_between_two_slots_says_until_when():
    first = new(ready=True, was_ready=True, ready_since=95.0)
    old = Replica(id="t2", slot=2, spec_hash="old", release=1, ready=True)
    wanted = WantedService({1: "new", 2: "new"})
    for now, moved in ((100.0, 0), (102.0, 1)):
        moves = advance(
            wanted,
            [first, old],
            UpdateConfig(parallelism=1, delay=7.0),
            release=RELEASE,
            gate=True,
            updating=True,
            now=now,
        )
        assert len(moves.create) == moved
        assert moves.wake == (None if moved else 102.0)
