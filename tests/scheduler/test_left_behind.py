"""A task goes where its slot left anonymous volumes, if that node takes it: never waited for."""

from __future__ import annotations

import pytest

from scheduler.place import place
from scheduler.view import Fleet, NodeUse, NodeView, Pending

EMPTY = NodeUse()
BUSY = NodeUse(cpus=1.0, tasks=9, services={"s/web": 5}, specs={"h": 5})
FULL = NodeUse(cpus=4.0, tasks=1)


def node(name, use=EMPTY, **more):
    return NodeView(id=name, name=name, cpus=4.0, memory=8 << 30, use=use, **more)


def fleet(*nodes):
    return Fleet({one.id: one for one in nodes})


def task(slot=1, **more):
    more = {"prefers": "a", "cpus": 1.0, **more}
    return Pending(task=f"t{slot}", service="s/web", spec_hash="h", slot=slot, **more)


ZONES = ({"zone": "1"}, {"zone": "2"})
CASES = {
    "though others are empty": (fleet(node("a", BUSY), node("b")), task(), "a"),
    "though the image is elsewhere": (
        fleet(node("a"), node("b", images=frozenset({"i"}))),
        task(image="i"),
        "a",
    ),
    "before a spread": (
        fleet(node("a", BUSY, labels=ZONES[0]), node("b", labels=ZONES[1])),
        task(preferences=("node.labels.zone",)),
        "a",
    ),
    "not where it does not fit": (fleet(node("a", FULL), node("b")), task(), "b"),
    "not on a node that is down": (fleet(node("a", status="down"), node("b")), task(), "b"),
    "not on one that is drained": (fleet(node("a", availability="drain"), node("b")), task(), "b"),
    "not against its constraints": (
        fleet(node("a"), node("b", labels={"disk": "gold"})),
        task(constraints=("node.labels.disk == gold",)),
        "b",
    ),
    "not where it keeps failing": (fleet(node("a", failures={"h": 1}), node("b")), task(), "b"),
    "not on one that is gone": (fleet(node("b")), task(), "b"),
    "without one as ever": (fleet(node("a", BUSY), node("b")), task(prefers=None), "b"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_slot_left_is_preferred_and_not_waited_for(case):
    nodes, pending, where = CASES[case]
    assert place(nodes, [pending]).assigned == {"t1": where}


def test_what_finds_no_room_beside_the_others_goes_elsewhere():
    placed = place(fleet(node("a"), node("b"), node("c")), [task(n) for n in range(1, 9)])
    assert sorted(placed.assigned.values()) == ["a"] * 4 + ["b"] * 2 + ["c"] * 2
    assert not placed.refused


def test_each_slot_goes_to_its_own():
    back = place(fleet(node("a"), node("b")), [task(1, prefers="b"), task(2), task(3, prefers="b")])
    assert back.assigned == {"t1": "b", "t2": "a", "t3": "b"}
