"""How connections are shared out: laws and a table of ``agent.network.sharing``."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.sharing import MOST, places
from specs.wire import Endpoint


def ready(old, canaries, share):
    return [
        Endpoint(
            task=f"t{n}",
            name=f"app-web-{n}",
            node="n1",
            address=f"10.0.{n // 250}.{n % 250 + 1}",
            ready=True,
            share=share if n >= old else 0,
        )
        for n in range(old + canaries)
    ]


def counted(found, endpoints):
    each = Counter(found)
    mine = sum(each[e.address] for e in endpoints if e.share)
    return mine, len(found), each


# old tasks, canaries, percent -> places of a canary, of another, all
TABLE = {
    (6, 1, 10): (2, 3, 20),
    (3, 1, 50): (3, 1, 6),
    (3, 1, 25): (1, 1, 4),
    (1, 1, 1): (1, 99, 100),
    (4, 2, 20): (1, 2, 10),
    (9, 1, 10): (1, 1, 10),
    (1, 1, 99): (99, 1, 100),
}


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_the_smallest_exact_way(case):
    endpoints = ready(*case)
    mine, total, each = counted(places(endpoints), endpoints)
    canary, other, everything = TABLE[case]
    assert {each[e.address] for e in endpoints if e.share} == {canary}
    assert {each[e.address] for e in endpoints if not e.share} == {other}
    assert total == everything
    assert mine * 100 == case[2] * total


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 99))
def test_a_share_is_exact_where_the_places_suffice(old, canaries, share):
    endpoints = ready(old, canaries, share)
    found = places(endpoints)
    mine, total, each = counted(found, endpoints)
    assert set(each) == {e.address for e in endpoints}, "law: nobody is left out"
    assert total <= MOST + len(endpoints)
    assert abs(mine / total - share / 100) <= (0 if total < MOST / 2 else 0.06)
    for kind in (True, False):
        counts = {each[e.address] for e in endpoints if bool(e.share) is kind}
        assert len(counts) == 1, "law: those of a kind get as many as each other"
    assert found == places(endpoints), "law: the same again"


@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 99), st.integers(1, 40))
def test_both_kinds_are_met_soon(old, canaries, share, window):
    endpoints = ready(old, canaries, share)
    found = places(endpoints)
    if len(found) >= MOST / 2:
        return
    shared = {e.address for e in endpoints if e.share}
    window = min(window, len(found))
    round_ = found + found
    for at in range(len(found)):
        mine = sum(a in shared for a in round_[at : at + window])
        assert abs(mine - window * share / 100) <= canaries + old + 1


@pytest.mark.parametrize(
    ("old", "canaries", "share"), [(3, 0, 0), (0, 2, 10), (0, 0, 0), (3, 1, 0)]
)
def test_where_one_kind_alone_is_ready_it_gets_all(old, canaries, share):
    endpoints = ready(old, canaries, share)
    assert places(endpoints) == tuple(e.address for e in endpoints)
