"""What is kept on a node for one of a pair is its own, and nobody else's."""

from __future__ import annotations

import pytest

from scheduler.place import place
from scheduler.view import Fleet, NodeUse, NodeView, Pending

GIB = 1 << 30


def fleet(used):
    """Return two nodes of 4 CPUs and 4 GiB, the first with so much reserved."""
    first = NodeView("n1", "n1", cpus=4, memory=4 * GIB, use=NodeUse(cpus=used, memory=used * GIB))
    return Fleet({"n1": first, "n2": NodeView("n2", "n2", cpus=4, memory=4 * GIB)})


def task(name, size, **keys):
    return Pending(name, f"app/{name}", name, cpus=size, memory=size * GIB, **keys)


@pytest.mark.parametrize(
    ("used", "size", "aside", "fits"),
    [
        (4, 2, 2, True),  # full, but for what is kept
        (4, 2, 0, False),
        (4, 3, 2, False),  # it has grown, and there is no room for that
        (3, 3, 2, True),  # there is
        (0, 4, 0, True),
        (4, 0, 0, True),  # who reserves nothing fits everywhere
    ],
)
def test_who_goes_with_a_partner_has_what_is_kept_there(used, size, aside, fits):
    pending = task("side", size, node="n1", aside=(aside, aside * GIB))
    placed = place(fleet(used), [pending])
    assert placed.assigned == ({"side": "n1"} if fits else {})
    assert fits or "lacks memory" in placed.refused["side"]


def test_what_is_kept_is_counted_once():
    """With what was kept a task takes nothing more; what it takes beyond is gone for others."""
    other = task("other", 1, node="n1")
    for size, refused in ((2, set()), (3, {"other"})):
        side = task("side", size, node="n1", aside=(2, 2 * GIB))
        assert set(place(fleet(3), [side, other]).refused) == refused


@pytest.mark.parametrize("order", [1, -1])
def test_pairs_of_different_size_are_not_taken_for_one(order):
    """Of one service, the first has two beside it and the second has one."""
    tasks = [
        Pending(f"web-{slot}", "app/web", "h", slot=slot, cpus=size, memory=GIB)
        for slot, size in ((1, 3), (2, 2))
    ][::order]
    placed = place(fleet(2), tasks)
    assert placed.assigned == {"web-1": "n2", "web-2": "n1"}
