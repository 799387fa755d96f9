"""Values that are kept by the thousand: the same values, which note less of how they were made."""

from __future__ import annotations

import sys

from specs.stack import TaskSpec
from specs.states import Desired, TaskState
from specs.task import Run, Task, TaskStatus
from specs.wire import Assignment, TaskNetwork


def assignment() -> Assignment:
    return Assignment(
        id="t1",
        stack="app",
        service="web",
        slot=1,
        name="app-web-1",
        spec=TaskSpec(image="web", environment={"A": "1"}),
        desired=Desired.RUNNING,
        networks=(TaskNetwork(network="n", address="10.210.0.2"),),
        volumes={"data": "app_data"},
    )


def test_a_kept_value_is_the_same_value_on_the_wire_and_compared():
    made, kept = assignment(), assignment()
    assert kept.to_keep() is kept
    assert kept == made
    assert kept.encode() == made.encode()
    assert Assignment.model_validate_json(kept.encode()) == made
    assert hash(kept.networks) == hash(made.networks)


def test_what_is_kept_notes_nothing_of_how_it_and_its_parts_were_made():
    kept = assignment().to_keep()
    empty = sys.getsizeof(set())
    for one in (kept, kept.spec, *kept.networks):
        assert sys.getsizeof(one.__pydantic_fields_set__) == empty


def test_copies_do_not_change_what_others_share():
    run = Run(number=1, pid=7)
    task = Task(
        id="t1", stack="app", service="web", slot=1, name="app-web-1", release=1, spec_hash="h"
    ).to_keep()
    running = task.with_node("n1", addresses={"n": "10.210.0.2"}, host_ports={}).with_status(
        TaskStatus(state=TaskState.RUNNING, runs=(run,))
    )
    assert Task.model_validate_json(running.encode()) == running
    deep = running.to_keep().model_copy(update={"slot": 2}, deep=True)
    assert deep.slot == 2
    assert not task.__pydantic_fields_set__, "shared, and never added to"
