"""Records of tasks and releases change by the table only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from specs.api import Release, Stack
from specs.states import (
    FINAL,
    LEGAL,
    OVER,
    RELEASE_MOVES,
    Desired,
    ReleaseState,
    TaskState,
    may_move,
    may_want,
)
from specs.task import Task, TaskStatus

ALL = list(TaskState)


def task(state=TaskState.NEW, **more):
    return Task(
        **{
            "id": "t1",
            "stack": "shop",
            "service": "web",
            "slot": 1,
            "name": "shop-web-1",
            "release": 1,
            "spec_hash": "h",
            "status": TaskStatus(state=state),
            **more,
        }
    )


@pytest.mark.parametrize("by", ["controller", "agent"])
@pytest.mark.parametrize("new", ALL)
@pytest.mark.parametrize("old", ALL)
def test_a_task_moves_as_the_table_says_and_nowhere_else(old, new, by):
    if may_move(old, new, by=by):
        assert task(old).moved(new, by=by).state is new
    else:
        with pytest.raises(AssertionError, match="moves it"):
            task(old).moved(new, by=by)


def test_states_only_move_forward_and_what_ended_stays_so():
    for old, (_, exits) in LEGAL.items():
        assert all(ALL.index(new) > ALL.index(old) for new in exits)
        assert bool(exits) == (old not in FINAL)


@pytest.mark.parametrize("new", Desired)
@pytest.mark.parametrize("old", Desired)
def test_a_wish_never_takes_a_step_back(old, new):
    assert may_want(old, new) == (list(Desired).index(old) <= list(Desired).index(new))
    if may_want(old, new):
        assert task(desired=old).with_desired(new).desired is new
    else:
        with pytest.raises(AssertionError, match="wanted"):
            task(desired=old).with_desired(new)


def test_a_placed_task_keeps_what_it_waits_for():
    placed = task(pending_reason="waits for db").with_node(
        "n1", addresses={"net": "10.1.0.2"}, host_ports={"80/tcp": 30000}
    )
    assert (placed.state, placed.node) == (TaskState.ASSIGNED, "n1")
    assert placed.pending_reason == "waits for db"
    assert placed.with_reason("").pending_reason == ""


@pytest.mark.parametrize("new", ReleaseState)
@pytest.mark.parametrize("old", ReleaseState)
def test_a_release_moves_as_the_table_says_and_nowhere_else(old, new):
    release = Release(stack="shop", number=1, spec="h", state=old)
    at = 7.0 if new in OVER else None
    if new in RELEASE_MOVES[old]:
        moved = release.moved(new, reason="so", finished_at=at)
        assert (moved.state, moved.reason, moved.finished_at) == (new, "so", at)
        assert moved.over == (new in OVER)
    else:
        with pytest.raises(AssertionError, match="goes from"):
            release.moved(new, finished_at=at)


def test_a_stack_being_removed_is_not_merely_stopped():
    removed = Stack(name="shop").removed(3.0, volumes=True)
    assert removed.removed(None, volumes=False).remove_volumes
    with pytest.raises(AssertionError):
        removed.stopped(None)


def test_the_states_cost_the_command_line_nothing():
    code = "import sys, specs.states; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
