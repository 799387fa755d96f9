"""Where tasks that bind a node's paths may run: the table of docs/differences.md, and its holes."""

from __future__ import annotations

import pytest

from scheduler.paths import SHARED, Bound, Ruling, rule

A, B, C = "abc"
THREE = (A, B, C)
THERE, MADE, ABSENT, UNKNOWN = "there", "made", "absent", "unknown"


def said(*states):
    return {node: state for node, state in zip(THREE, states, strict=True) if state}


def ruled(bound, states, candidates=THREE, answering=THREE):
    return rule(bound, candidates, answering, said(*states))


def written(home=None):
    return Bound("/srv/db", written=True, home=home)


READ = Bound("/srv/html", written=False)
FREE = Ruling()
EVERYWHERE = Ruling(SHARED, only=frozenset(THREE))
FIRST = Ruling(None, pinned=True)  # the first task decides


def on(*nodes):
    return Ruling(only=frozenset(nodes))


def pinned(home):
    return Ruling(home, pinned=True)


CASES = {
    # what is bound, what a, b and c say -> ruling
    "nobody has it yet: the first task decides": (written(), (ABSENT,) * 3, FIRST),
    "one has it: there, and nowhere else": (
        written(),
        (ABSENT, THERE, ABSENT),
        Ruling(None, pinned=True, only=frozenset(B)),
    ),
    "two of three have it: one of them, for good": (
        written(),
        (THERE, THERE, ABSENT),
        Ruling(None, pinned=True, only=frozenset((A, B))),
    ),
    "all have it: never pinned": (written(), (THERE,) * 3, EVERYWHERE),
    "corral made it on one: that is no share": (
        written(),
        (THERE, MADE, THERE),
        Ruling(None, pinned=True, only=frozenset((A, C))),
    ),
    "it ran on a, and no other has it": (written(A), (MADE, ABSENT, ABSENT), pinned(A)),
    "it ran on a, and others have something there": (written(A), (MADE, THERE, THERE), pinned(A)),
    "it ran on a, and the path appears on all later": (written(A), (THERE,) * 3, EVERYWHERE),
    "it ran on a, and appears on one later": (written(A), (THERE, THERE, ABSENT), pinned(A)),
    "it ran on a, whose path is gone": (written(A), (ABSENT, THERE, THERE), pinned(A)),
    "it ran on a node that left": (written("d"), (THERE, THERE, ABSENT), pinned("d")),
    "all had it, one lost it since": (
        written(SHARED),
        (THERE, ABSENT, THERE),
        Ruling(SHARED, only=frozenset((A, C))),
    ),
    "all had it, none has it now: nothing is made": (
        written(SHARED),
        (ABSENT,) * 3,
        Ruling(SHARED, only=frozenset()),
    ),
    "one does not say: it counts as one that lacks it": (
        written(),
        (THERE, THERE, UNKNOWN),
        Ruling(None, pinned=True, only=frozenset((A, B))),
    ),
    "one was not asked yet": (written(A), (THERE, THERE, None), Ruling(A, unanswered=(C,))),
    "read only, and some have it": (READ, (ABSENT, THERE, THERE), on(B, C)),
    "read only, and nobody has it: as Compose": (READ, (ABSENT,) * 3, FREE),
    "read only, and only made ones": (READ, (MADE, ABSENT, MADE), FREE),
}


@pytest.mark.parametrize("case", CASES)
def test_where_it_may_run(case):
    bound, states, expected = CASES[case]
    assert ruled(bound, states) == expected


@pytest.mark.parametrize(
    ("home", "states", "expected"),
    [
        (None, (THERE, THERE, None), Ruling(None, pinned=True, only=frozenset((A, B)))),
        (A, (THERE, THERE, None), pinned(A)),
        (SHARED, (THERE, THERE, None), Ruling(SHARED, only=frozenset((A, B)))),
        (None, (THERE, THERE, THERE), Ruling(None, pinned=True, only=frozenset((A, B)))),
    ],
)
def test_of_a_node_that_is_down_nothing_is_taken_for_granted(home, states, expected):
    assert ruled(written(home), states, answering=(A, B)) == expected


def test_a_node_that_is_down_is_not_waited_for():
    assert not ruled(written(), (ABSENT, ABSENT, None), answering=(A, B)).unanswered


@pytest.mark.parametrize("home", [None, A])
def test_where_there_is_one_node_nobody_is_asked(home):
    assert rule(written(home), (A,), (A,), {}) == Ruling(home, pinned=True)
    assert rule(READ, (A,), (A,), {}) == FREE


@pytest.mark.parametrize("candidates", [(B,), (B, C)])
def test_other_nodes_with_the_path_do_not_stand_in_for_the_one_with_the_data(candidates):
    assert rule(written(A), candidates, candidates, said(*(THERE,) * 3)) == pinned(A)
