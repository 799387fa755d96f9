"""When the next batch of an update begins: what starts and dies a moment later spoils only one."""

from __future__ import annotations

import pytest

from scheduler.reconcile import WantedService
from scheduler.replicas import Replica
from scheduler.rollout import advance
from specs.stack import UpdateConfig
from specs.states import TaskState

RELEASE = 2
NOW = 100.0


def new(slot, *, since=None, **more):
    """Return a task of the update, ready since then."""
    ready = {"ready": True, "was_ready": True, "ready_since": since} if since is not None else {}
    return Replica(f"new-{slot}", slot, "new", **{"release": RELEASE, **ready, **more})


def old(slot, *, ready=True):
    return Replica(f"old-{slot}", slot, "old", release=1, ready=ready)


def moves(*tasks, updating=True, **update):
    wanted = WantedService(dict.fromkeys({t.slot for t in tasks}, "new"))
    return advance(
        wanted,
        tasks,
        UpdateConfig(**update),
        release=RELEASE,
        gate=True,
        updating=updating,
        now=NOW,
    )


CASES = {
    # what is there, the update's settings -> the slots that begin, when it may go on
    "the first batch begins": ([old(1), old(2), old(3)], {}, {1}, None),
    "as many as it says": ([old(1), old(2), old(3)], {"parallelism": 2}, {1, 2}, None),
    "the first has not run long enough": ([new(1, since=98.0), old(2)], {}, set(), 103.0),
    "it has": ([new(1, since=95.0), old(2)], {}, {2}, None),
    "its check passed": ([new(1, since=98.0, checked=True), old(2)], {}, {2}, None),
    "a shorter monitor time": ([new(1, since=98.0), old(2)], {"monitor": 2.0}, {2}, None),
    "none": ([new(1, since=100.0), old(2)], {"monitor": 0.0}, {2}, None),
    "a longer one": ([new(1, since=80.0), old(2)], {"monitor": 30.0}, set(), 110.0),
    "delay within the monitor time": ([new(1, since=98.0), old(2)], {"delay": 1.0}, set(), 103.0),
    "delay beyond it": ([new(1, since=92.0), old(2)], {"delay": 10.0}, set(), 102.0),
    "delay holds for what has a check, too": (
        [new(1, since=98.0, checked=True), old(2)],
        {"delay": 3.0},
        set(),
        101.0,
    ),
    "what is left serves nobody": ([new(1, since=98.0), old(2, ready=False)], {}, {2}, None),
    "but one of them does": (
        [new(1, since=98.0), old(2), old(3, ready=False)],
        {"parallelism": 2},
        {3},
        103.0,
    ),
    "one place is free": ([new(1, since=98.0), old(2), old(3)], {"parallelism": 2}, {2}, 103.0),
    "all at once": ([old(1), old(2)], {"parallelism": 0}, {1, 2}, None),
    "a one-off that ended well": ([new(1, state=TaskState.COMPLETE), old(2)], {}, {2}, None),
    "not replaced by this update": ([new(1, since=98.0, release=1), old(2)], {}, {2}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_next_batch(case):
    tasks, update, begin, wake = CASES[case]
    found = moves(*tasks, **update)
    assert {create.slot for create in found.create} == begin
    assert found.state == "going"
    if wake is not None:
        assert found.wake == found.paused == pytest.approx(wake)
    else:
        assert found.paused is None or begin, "law: whoever waits says until when"


def test_nothing_is_watched_where_nothing_is_updated():
    assert {c.slot for c in moves(new(1, since=99.9), old(2), updating=False).create} == {2}


def test_all_replaced_is_done_though_the_last_is_still_watched():
    """That it came to stay is the release's to judge."""
    found = moves(new(1, since=50.0), new(2, since=99.0))
    assert (found.state, found.wake, found.paused) == ("done", None, None)


def failed(slot, *, at, attempt=0):
    return Replica(
        f"failed-{slot}",
        slot,
        "new",
        release=RELEASE,
        state=TaskState.FAILED,
        ended_at=at,
        attempt=attempt,
    )


GOES_ON = {"failure_action": "continue", "order": "start-first", "monitor": 0.0}
TRIES = {
    # what is there -> what begins, as which attempt, when the next may
    "the first failure waits a second": ([old(1), failed(1, at=99.5)], {}, 100.5),
    "and is tried again": ([old(1), failed(1, at=98.9)], {1: 1}, None),
    "the second waits two": ([old(1), failed(1, at=98.5, attempt=1)], {}, 100.5),
    "the third four": ([old(1), failed(1, at=95.9, attempt=2)], {1: 3}, None),
    "a minute at most": ([old(1), failed(1, at=41.0, attempt=20)], {}, 101.0),
    "others go on meanwhile": ([old(1), failed(1, at=99.5), old(2)], {2: 0}, 100.5),
    "and beside its next try": ([old(1), failed(1, at=90.0), new(1), old(2)], {2: 0}, None),
    "what crashes in place holds nobody up": ([new(1, restarts=9), old(2)], {2: 0}, None),
    "nor what reconcile makes again": ([failed(1, at=99.5), old(2)], {2: 0}, None),
    "nothing else is left": ([new(2, since=50.0), old(1), failed(1, at=99.5)], {}, 100.5),
}


@pytest.mark.parametrize("case", TRIES)
def test_what_fails_and_may_is_tried_again_with_back_off(case):
    tasks, begin, wake = TRIES[case]
    found = moves(*tasks, **GOES_ON)
    assert {create.slot: create.attempt for create in found.create} == begin
    assert found.wake == (pytest.approx(wake) if wake is not None else None)
    assert found.state == "going"
    assert found.others == len({t.slot for t in tasks if t.id == "old-2"})


FIRST = {"order": "start-first"}
BESIDE = {
    # the new task beside an old one that serves, the settings -> the old one stops, or when it may
    "it has not run long enough": (new(1, since=98.0), FIRST, 103.0),
    "it has": (new(1, since=95.0), FIRST, None),
    "its check passed": (new(1, since=99.9, checked=True), FIRST, None),
    "a longer monitor time": (new(1, since=80.0), {**FIRST, "monitor": 30.0}, 110.0),
    "none": (new(1, since=100.0), {**FIRST, "monitor": 0.0}, None),
    "it is not ready": (new(1), FIRST, 0.0),
    "it fell, and starts again": (new(1, was_ready=True, restarts=1, lived=9.0), FIRST, 0.0),
    "stop-first": (new(1, since=98.0), {}, None),
    "a one-off that ended well": (new(1, state=TaskState.COMPLETE), FIRST, None),
    "not of this update": (new(1, since=98.0, release=1), FIRST, None),
}


@pytest.mark.parametrize("case", BESIDE)
def test_when_the_old_one_goes_for_one_that_was_started_first(case):
    one, update, wake = BESIDE[case]
    found = moves(one, old(1), **update)
    assert [stop.task for stop in found.stop] == ([] if wake is not None else ["old-1"])
    assert (found.wake, found.paused) == ((wake, wake) if wake else (None, None))
    nobody = moves(one, old(1, ready=False), **update)
    assert nobody.wake is None, "what serves nobody is not kept for that"
