"""Who has a volume, as far as anybody can say: its data is not exchanged under them."""

from __future__ import annotations

import pytest

from agent.saving import Saving
from agent.tasks.adoption import Found
from agent.tasks.holdings import Holdings, Stray
from agent.tasks.record import Record
from specs.stack import TaskSpec
from specs.wire import Assignment


def assigned(volume):
    return Assignment(
        id="t1",
        stack="app",
        service="web",
        slot=1,
        name="app-web-1",
        desired="running",
        spec=TaskSpec(image="i"),
        volumes={"data": volume},
    )


def recorded(volume):
    return Record(id="t1", state="running", assignment=assigned(volume))


@pytest.mark.parametrize(
    ("found", "uses"),
    [
        (Found(damaged="torn"), True),  # nobody knows what it mounts, and it may run
        (Found(assignment=assigned("app_data")), True),
        (Found(assignment=assigned("app_other")), False),
        (Found(record=recorded("app_data")), True),
        (Found(record=recorded("app_data"), assignment=assigned("app_other")), True),
        (Found(record=recorded("app_other")), False),
    ],
)
def test_what_could_not_be_read_may_use_it(found, uses):
    holdings = Holdings()
    holdings.strays["t1"] = Stray(found, "torn")
    told = Saving(holdings, volumes=None).users("app_data")
    assert told == (["t1 (nobody can say what it uses)"] if uses else [])
