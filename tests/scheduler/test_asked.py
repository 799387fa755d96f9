"""What follows a task that ended, once somebody asked for its service to run: the table."""

from __future__ import annotations

import pytest

from scheduler.reconcile import WantedService, reconcile
from scheduler.replicas import Replica
from specs.stack import RestartPolicy
from specs.states import Desired, TaskState

RUNNING, SHUTDOWN = Desired.RUNNING, Desired.SHUTDOWN
# how it ended, wanted, policy -> after nobody asked, `up` or `start` asked, `restart` asked
TABLE = [
    (TaskState.FAILED, RUNNING, "none", ("gave up", "new", "new")),
    (TaskState.FAILED, RUNNING, "any", ("new", "new", "new")),
    (TaskState.REJECTED, RUNNING, "none", ("later", "new", "new")),
    (TaskState.COMPLETE, RUNNING, "none", ("done", "done", "new")),
    (TaskState.COMPLETE, RUNNING, "on-failure", ("done", "done", "new")),
    (TaskState.COMPLETE, SHUTDOWN, "none", ("done", "done", "new")),
    (TaskState.SHUTDOWN, SHUTDOWN, "none", ("new", "new", "new")),
    (TaskState.SHUTDOWN, SHUTDOWN, "any", ("new", "new", "new")),
    (TaskState.RUNNING, SHUTDOWN, "any", ("new", "new", "new")),  # still stopping
    (TaskState.RUNNING, RUNNING, "none", ("kept", "kept", "kept")),
]


@pytest.mark.parametrize(("state", "desired", "policy", "answers"), TABLE)
def test_what_follows_a_task(state, desired, policy, answers):
    task = Replica("t", 1, "h", state=state, desired=desired, leaving=desired is SHUTDOWN, asked=1)
    for (asked, again), expected in zip([(1, 0), (2, 0), (2, 2)], answers, strict=True):
        wanted = WantedService({1: "h"}, RestartPolicy(condition=policy), {}, False, asked, again)
        plan = reconcile(wanted, [task], 1000.0)
        seen = (
            "new" if plan.create
            else "gave up" if plan.gave_up
            else "kept" if plan.keep
            else "later" if plan.wake is not None
            else "done"
        )  # fmt: skip
        assert seen == expected, (asked, again)
        assert not plan.create or plan.create[0].attempt in (0, 1)


def test_a_request_forgets_how_often_it_failed():
    failed = Replica("t", 1, "h", state=TaskState.FAILED, attempt=7, asked=1)
    wanted = WantedService({1: "h"}, RestartPolicy(max_attempts=3), asked=2)
    assert [c.attempt for c in reconcile(wanted, [failed], 1000.0).create] == [0]


def test_a_changed_one_off_runs_though_it_completed():
    done = Replica("t", 1, "old", state=TaskState.COMPLETE, asked=1)
    assert reconcile(WantedService({1: "new"}, asked=2), [done], 1000.0).create
