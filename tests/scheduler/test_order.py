"""Who is placed first: a task with less choice gets its place before one with more."""

from __future__ import annotations

import pytest

from scheduler.place import place
from scheduler.view import Fleet, Home, HostPort, NodeUse, NodeView, Pending

GIB = 1 << 30
ROOM = {"status": "ready", "cpus": 4.0, "memory": 4 * GIB}
# Names and numbers are against the narrow one: only its lack of choice can put it first.
FREE = {"task": "a", "service": "s/a", "spec_hash": "a", "slot": 1}
NARROW = {"task": "z", "service": "s/z", "spec_hash": "z", "slot": 9}
MOST = 3 * GIB  # of one node: two such tasks never share it


@pytest.mark.parametrize(
    "why",
    [
        {"node": "n1"},
        {"homes": (Home("volume v", "volume v", "n1"),)},
        {"constraints": ("node.id == n1",)},
    ],
    ids=["pinned", "home", "constraint"],
)
def test_a_task_that_can_be_in_one_place_is_placed_before_one_that_can_be_in_two(why):
    fleet = Fleet({n: NodeView(id=n, name=n, **ROOM) for n in ("n1", "n2")})
    free = Pending(**FREE, memory=MOST + 1)
    narrow = Pending(**NARROW, memory=MOST, **why)
    for tasks in ((free, narrow), (narrow, free)):
        assert place(fleet, tasks).assigned == {"z": "n1", "a": "n2"}


def test_a_decided_home_comes_before_one_that_is_still_open():
    fleet = Fleet({n: NodeView(id=n, name=n, **ROOM) for n in ("n1", "n2")})
    opened = Pending(**FREE, memory=MOST + 1, homes=(Home("volume o", "volume o", None),))
    decided = Pending(**NARROW, memory=MOST, homes=(Home("volume d", "volume d", "n1"),))
    assert place(fleet, (opened, decided)).assigned == {"z": "n1", "a": "n2"}


def test_a_task_with_a_host_port_comes_before_one_without():
    busy = NodeView(id="n2", name="n2", listening=frozenset({"80/tcp"}), **ROOM)
    fleet = Fleet({"n1": NodeView(id="n1", name="n1", **ROOM), "n2": busy})
    free = Pending(**FREE, memory=MOST + 1)
    port = Pending(**NARROW, memory=MOST, ports=(HostPort(80, "tcp"),))
    assert place(fleet, (free, port)).assigned == {"z": "n1", "a": "n2"}


def test_the_big_one_is_placed_before_the_small_ones():
    fleet = Fleet({"n1": NodeView(id="n1", name="n1", **ROOM)})
    small = [Pending(**{**FREE, "task": f"a{i}", "slot": i}, memory=GIB) for i in (1, 2)]
    big = Pending(**NARROW, memory=MOST)
    placed = place(fleet, (*small, big))
    assert "z" in placed.assigned
    assert len(placed.refused) == 1


def test_a_zone_whose_node_is_full_keeps_what_it_has_in_the_count():
    full = NodeUse(memory=4 * GIB, tasks=2, services={"s/a": 2}, specs={"a": 2})
    one = NodeUse(tasks=1, services={"s/a": 1}, specs={"a": 1})
    nodes = {
        "n1": NodeView(id="n1", name="n1", labels={"zone": "a"}, use=full, **ROOM),
        "n2": NodeView(id="n2", name="n2", labels={"zone": "a"}, **ROOM),
        "n3": NodeView(id="n3", name="n3", labels={"zone": "b"}, use=one, **ROOM),
    }
    task = Pending(**FREE, memory=GIB, preferences=("node.labels.zone",))
    assert place(Fleet(nodes), [task]).assigned == {"a": "n3"}


def test_what_asks_different_things_is_not_placed_as_if_it_asked_the_same():
    """The spec of a task is the same when only the constraints of its service changed."""
    fleet = Fleet({n: NodeView(id=n, name=n, **ROOM) for n in ("n1", "n2")})
    here = Pending(task="b", service="s/a", spec_hash="a", constraints=("node.id == n2",))
    there = Pending(task="a", service="s/a", spec_hash="a", constraints=("node.id == n1",))
    assert place(fleet, (here, there)).assigned == {"a": "n1", "b": "n2"}
