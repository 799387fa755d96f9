"""What is decided of a service comes in steps that are short however many replicas it has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.reconcile import WantedService, reconcile, reconcile_in_steps
from scheduler.replicas import Replica
from scheduler.rollout import advance, advance_in_steps
from scheduler.steps import STEP, whole
from specs.stack import UpdateConfig
from specs.states import TaskState

COUNT = 1000


def there(slot: int, **more) -> Replica:
    known = Replica(id=f"t{slot}", slot=slot, spec_hash="new", state=TaskState.RUNNING, ready=True)
    return replace(known, **more)


SERVICES = {
    "nothing is there": [],
    "all is there": [there(slot) for slot in range(1, COUNT + 1)],
    "all is of another file": [there(slot, spec_hash="old") for slot in range(1, COUNT + 1)],
    "all has ended": [
        there(slot, state=TaskState.FAILED, ready=False) for slot in range(1, COUNT + 1)
    ],
    "half is there": [there(slot) for slot in range(1, COUNT + 1, 2)],
}
OPTIONS = {"release": 2, "gate": True, "updating": True, "now": 1000.0}


@pytest.mark.parametrize("name", SERVICES)
def test_the_decision_is_the_same_and_made_of_many_steps(name):
    tasks = SERVICES[name]
    wanted = WantedService(slots=dict.fromkeys(range(1, COUNT + 1), "new"))
    update = UpdateConfig()
    for steps, once in (
        (
            lambda: reconcile_in_steps(wanted, tasks, 1000.0),
            reconcile(wanted, tasks, 1000.0),
        ),
        (
            lambda: advance_in_steps(wanted, tasks, update, **OPTIONS),
            advance(wanted, tasks, update, **OPTIONS),
        ),
    ):
        assert whole(steps()) == once
        assert len(list(steps())) >= COUNT // STEP
