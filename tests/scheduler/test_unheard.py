"""What becomes of a task and of its replacement when its node is not heard, and when it is again.

The table is complete: every fate of the node, with the brake and without, for every stage its
replacement may have reached. The law above it: what cannot be seen is not stopped.
"""

from __future__ import annotations

import itertools

import pytest

from scheduler.reconcile import WantedService, reconcile
from scheduler.replicas import Replica
from specs.states import TaskState

NOW = 1000.0
# What the node of the original is like, as orchestrator.control.planning.services says it.
FATES = {
    "ready": {"ready": True},
    "back": {"ready": True, "returned_at": NOW - 1},
    "back, task not ready": {"ready": False, "returned_at": NOW - 1},
    "silent": {"ready": True, "unheard": True},
    "down": {"unheard": True, "lost": True},
    "returning": {"unheard": True, "lost": True, "awaited": True},
    "removed": {"state": TaskState.ORPHANED},
    "drained": {"ready": True, "evicted": True},
    "drained and down": {"unheard": True, "lost": True, "evicted": True},
    "down, tied to it": {"unheard": True},  # a global task, or one with its data there
}
STAGES = {
    "none": None,
    "pending": {"node": None, "state": TaskState.PENDING},
    "starting": {"state": TaskState.STARTING},
    "ready": {"ready": True},
    "ready, silent": {"ready": True, "unheard": True},
}
# (fate, stages) -> (the original, the replacement, whether one is created)
KEEP, STOP, GONE = "keep", "stop", "gone"
TABLE = [
    ("ready", ["none"], KEEP, "", False),
    ("ready", ["pending", "starting"], KEEP, STOP, False),
    ("ready", ["ready, silent"], KEEP, KEEP, False),
    ("back", ["none"], KEEP, "", False),
    ("back", ["pending", "starting"], KEEP, STOP, False),
    ("back", ["ready"], STOP, KEEP, False),  # it stayed in reach
    ("back", ["ready, silent"], KEEP, KEEP, False),
    ("back, task not ready", ["none"], KEEP, "", False),
    ("back, task not ready", ["pending", "starting"], KEEP, STOP, False),
    ("back, task not ready", ["ready"], STOP, KEEP, False),
    ("back, task not ready", ["ready, silent"], KEEP, KEEP, False),
    ("silent", ["none"], KEEP, "", False),
    ("silent", ["pending", "starting", "ready", "ready, silent"], KEEP, KEEP, False),
    ("down", ["none"], KEEP, "", True),
    ("down", ["pending", "starting", "ready", "ready, silent"], KEEP, KEEP, False),
    ("down, brake", ["none"], KEEP, "", False),
    ("down, brake", ["pending"], KEEP, STOP, False),  # nobody has it yet
    ("down, brake", ["starting", "ready", "ready, silent"], KEEP, KEEP, False),
    ("returning", ["none"], KEEP, "", False),
    ("returning", ["pending"], KEEP, STOP, False),
    ("returning", ["starting", "ready", "ready, silent"], KEEP, KEEP, False),
    ("removed", ["none"], GONE, "", True),
    ("removed", ["pending", "starting", "ready", "ready, silent"], GONE, KEEP, False),
    ("drained", ["none"], KEEP, "", True),
    ("drained", ["pending", "starting", "ready, silent"], KEEP, KEEP, False),
    ("drained", ["ready"], STOP, KEEP, False),
    ("drained and down", ["none"], KEEP, "", True),  # asked for by a person
    ("drained and down", ["pending", "starting", "ready", "ready, silent"], KEEP, KEEP, False),
    ("drained and down, brake", ["none"], KEEP, "", True),
    ("drained and down, brake", ["pending", "starting", "ready"], KEEP, KEEP, False),
    ("down, tied to it", ["none"], KEEP, "", False),
    ("down, tied to it", ["ready, silent"], KEEP, KEEP, False),
]
CASES = [
    (fate, stage, original, replacement, created)
    for fate, stages, original, replacement, created in TABLE
    for stage in stages
]


def copies(fate: str, stage: str) -> list[Replica]:
    braked = fate.endswith(", brake")
    how = {**FATES[fate.removesuffix(", brake")], **({"awaited": True} if braked else {})}
    found = [Replica("original", 1, "spec", "n1", created_at=1.0, **how)]
    of = STAGES[stage]
    if of is not None:
        of = {"node": "n2", **of}
        found.append(Replica("replacement", 1, "spec", created_at=2.0, **of))
    return found


@pytest.mark.parametrize(("fate", "stage", "original", "replacement", "created"), CASES)
def test_table(fate, stage, original, replacement, created):
    tasks = copies(fate, stage)
    for order in itertools.permutations(tasks):
        plan = reconcile(WantedService({1: "spec"}), order, NOW)
        stopped = {stop.task for stop in plan.stop}
        assert ("original" in stopped) == (original == STOP), f"{plan}"
        assert ("replacement" in stopped) == (replacement == STOP), f"{plan}"
        assert bool(plan.create) == created, f"{plan}"
        kept = {"original"} if original == KEEP else set()
        kept |= {"replacement"} if replacement == KEEP else set()
        assert set(plan.keep) == kept, f"{plan}"


def test_of_two_that_serve_the_one_whose_node_stayed_in_reach_stays_whichever_is_newer():
    for away in (1.0, 2.0):
        tasks = [
            Replica(f"t{at:g}", 1, "spec", f"n{at:g}", ready=True, created_at=at,
                    returned_at=NOW - 1 if at == away else 0.0)
            for at in (1.0, 2.0)
        ]  # fmt: skip
        plan = reconcile(WantedService({1: "spec"}), tasks, NOW)
        assert [stop.task for stop in plan.stop] == [f"t{away:g}"]


@pytest.mark.parametrize("fate", ["silent", "down", "down, brake", "returning"])
def test_what_nobody_wants_any_more_goes_wherever_it_is(fate):
    """Fewer replicas, or another spec that serves by now: told to go, seen or not."""
    tasks = copies(fate, "none")
    plan = reconcile(WantedService({}), tasks, NOW)
    assert [stop.task for stop in plan.stop] == ["original"]
    newer = Replica("newer", 1, "other", "n2", ready=True, created_at=2.0)
    plan = reconcile(WantedService({1: "other"}), [*tasks, newer], NOW)
    assert not [stop for stop in plan.stop if stop.task == "newer"]
    assert not plan.create
