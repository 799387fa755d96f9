"""The chaos loop's own laws: what they let pass, and that they can be broken."""

from __future__ import annotations

import pytest

from tests.chaos import laws, schedule
from tests.chaos.laws import NOTICE, RECOVERY, Asked, Life, Promise
from tests.chaos.schedule import NODES, Event


def asked(begun: float, *, where: str = "n2", kind: str = "new", at: str = "") -> Asked:
    return Asked(where, begun, 1.0, kind, at, "-timeout")


def event(what: str, node: str = "n3", *details: object) -> Event:
    until = 100.0 if "kill" in what else 110.0
    return Event(100.0, until, what, node, details)


CUT = event("cut")
CASES = {
    "nothing was done": (asked(105), [], False),
    "a peer was cut, just now": (asked(105), [CUT], True),
    "before it was cut": (asked(98), [CUT], False),
    "under way as it was cut": (asked(99.5), [CUT], True),
    "a peer was cut, long ago": (asked(100 + NOTICE + 1), [CUT], False),
    "the own host was cut, and is back": (asked(111, where="n3"), [CUT], True),
    "the own host was cut, and is back for long": (
        asked(110 + RECOVERY + 1, where="n3"),
        [CUT],
        False,
    ),
    "the port of a host that was cut": (
        asked(100 + NOTICE + 5, where="outside", at="n3"),
        [CUT],
        True,
    ),
    "the port of another": (
        asked(100 + NOTICE + 5, where="outside", at="n1"),
        [CUT],
        False,
    ),
    "an agent was killed": (asked(100, where="n3"), [event("kill-agent")], False),
    "the controller was killed": (
        asked(100, where="n1"),
        [event("kill-controller", "n1")],
        False,
    ),
    "a disk was full": (asked(105, where="n3"), [event("disk-full")], False),
    "a path became smaller, and said so": (
        asked(105, where="n3"),
        [event("mtu", "n3", 1280, False)],
        False,
    ),
    "a path became smaller without a word": (
        asked(105),
        [event("black-hole", "n3", 1280, True)],
        True,
    ),
    "a container was killed": (asked(100), [event("kill-task")], True),
    "a container was killed a while ago": (
        asked(100 + NOTICE + 1),
        [event("kill-task")],
        False,
    ),
    "a name while a peer was cut": (asked(105, kind="name"), [CUT], False),
    "a name while the own host was cut": (asked(105, where="n3", kind="name"), [CUT], False),
    "a name while the own host was frozen": (
        asked(105, where="n3", kind="name"),
        [event("freeze")],
        True,
    ),
    "a name with its resolver killed": (
        asked(100, where="n3", kind="name"),
        [event("kill-dns")],
        True,
    ),
    "a request with a resolver killed": (asked(100, where="n3"), [event("kill-dns")], False),
    "a peer has its power back for long": (asked(110 + NOTICE + 1), [event("power")], False),
    "a peer has its power back, and nobody was told": (
        asked(110 + NOTICE + 1),
        [event("power"), event("kill-controller", "n1")],
        False,
    ),
    "between two that were cut from each other": (
        asked(100 + NOTICE + 5, where="n4"),
        [event("cut-pair", "n3", "n4")],
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_which_requests_may_fail(case):
    one, events, allowed = CASES[case]
    assert (laws.failures([one], events) == []) is allowed
    answered = Asked(one.where, one.begun, one.took, one.kind, one.at, "ok")
    assert laws.failures([answered], events) == []


def test_how_late_a_peers_fault_was_felt():
    failed = [asked(105), asked(112), asked(150, where="n3")]
    assert laws.latest(failed, [CUT]) == 12.0, "what its own host has is not counted"
    assert laws.latest([asked(50)], [CUT]) == 0.0


@pytest.mark.parametrize(
    ("events", "drained", "allowed"),
    [
        ([], [], False),
        ([event("cut")], [], True),
        ([event("cut", "n4")], [], False),  # another host's fault
        ([event("kill-agent")], [], False),
        ([event("kill-task")], [], True),
        ([event("disk-full")], [], False),
        ([event("slow", "n3", 500)], [], False),
        ([event("loss", "n3", 15)], [], False),
        ([event("loss", "n3", 30)], [], True),
        ([event("mtu", "n3", 1280, False)], [], False),
        ([], [(90.0, "n3")], True),
        ([], [(90.0, "n4")], False),
        ([], [(140.0, "n3")], False),  # drained afterwards
    ],
)
def test_which_containers_may_end(events, drained, allowed):
    ended = Life("n3", "t1", "5@7", 0.0, 130.0)
    lives = Life("n3", "t2", "6@7", 0.0, None)
    found = laws.taken([ended, lives], {"t1", "t2"}, events, drained)
    assert found == ([] if allowed else [ended])
    assert laws.taken([ended], {"t2"}, [], []) == [], "a task that a command may be about"


def test_what_was_acknowledged_last_is_what_there_must_be():
    promise = Promise(3, [])
    promise.asked(5, acknowledged=True)
    assert [n for n in range(9) if promise.allows(n)] == [5]
    promise.asked(7, acknowledged=False)
    promise.asked(8, acknowledged=False)
    assert [n for n in range(9) if promise.allows(n)] == [5, 7, 8]
    promise.asked(2, acknowledged=True)
    assert [n for n in range(9) if promise.allows(n)] == [2]


@pytest.mark.parametrize("seed", range(40))
def test_a_schedule_is_the_seeds_and_never_breaks_most_hosts_at_once(seed):
    found = schedule.faults(seed, 60.0)
    assert found == schedule.faults(seed, 60.0)
    assert len(found) >= 8
    for one in found:
        assert one.what in schedule.FAULTS
        assert one.node in NODES
        assert 0 < one.at <= one.until <= 60.0
        there = {e.node for e in found if e.at <= one.at < e.until}
        there |= {e.details[0] for e in found if e.at <= one.at < e.until if "pair" in e.what}
        assert len(there) <= schedule.AT_ONCE + 1, there  # a pair may come on top of one
    typed = schedule.actions(seed, 60.0)
    assert typed == schedule.actions(seed, 60.0)
    assert len(typed) >= 5
    assert {what for _, what, _ in typed} <= set(schedule.ACTIONS)


def test_every_fault_is_drawn_and_judged():
    drawn = {event.what for seed in range(60) for event in schedule.faults(seed, 60.0)}
    assert drawn == set(schedule.FAULTS)
    assert set(schedule.FAULTS) >= (laws.HITS | laws.KILLS | laws.REASONS)
