"""Which peers can be reached, by what became of the probes: tables, and laws over histories."""

from __future__ import annotations

import select
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.network import knocking, reach
from agent.network.endpoints import PerService
from agent.network.handshakes import attach_filter
from agent.network.knocking import Knocks
from agent.network.probing import PeerProbes, checksum, echo, replied
from agent.network.reach import History
from agent.network.rules import service_part
from tests.agent.network.test_rules import backends, rules, wanted
from tests.real.network.states import Cluster, vip

NODES = {f"n{number}": f"10.77.0.{number}" for number in range(1, 6)}


class Line:
    """Peers probed in virtual time; ``answers(node, at)``: a probe sent then returns."""

    def __init__(self, answers, peers=("p",), tick=0.1):
        self.answers, self.tick = answers, tick
        self.histories = {peer: History() for peer in peers}
        self.now = 100.0
        self.sent = {peer: [] for peer in peers}
        self.under_way = []

    def step(self):
        self.now = round(self.now + self.tick, 6)
        for node in self.under_way:
            self.histories[node] = reach.answered(self.histories[node], self.now)
        self.under_way = []
        self.histories = {n: reach.judged(h, self.now) for n, h in self.histories.items()}
        for node in reach.due(self.histories, self.now):
            self.histories[node] = reach.sent(self.histories[node], self.now)
            self.sent[node].append(self.now)
            if self.answers(node, self.now - 100.0):
                self.under_way.append(node)

    def until(self, at):
        while self.now - 100.0 < at:
            self.step()

    def lost_at(self, limit, node="p"):
        """Step until the peer is lost and return when; None if it never is."""
        while self.now - 100.0 < limit:
            self.step()
            if self.histories[node].lost:
                return self.now - 100.0
        return None


@pytest.mark.parametrize(
    ("what", "answers", "lost"),
    [
        ("a peer that answers", lambda _, at: True, False),
        ("one that never answered is not judged", lambda _, at: False, False),
        ("one that falls silent", lambda _, at: at < 10, True),
        ("a gap of half a second", lambda _, at: not 10 <= at < 10.5, False),
        ("a gap of two seconds", lambda _, at: not 10 <= at < 12, True),
        ("every second probe is lost", lambda _, at: int(at * 10) % 2 == 0, False),
        ("two of three probes are lost", lambda _, at: int(at * 10) % 3 == 0, False),
    ],
)
def test_when_a_peer_is_lost(what, answers, lost):
    assert (Line(answers).lost_at(60) is not None) is lost, what


@settings(max_examples=200, deadline=None)
@given(death=st.floats(1.0, 5.0), tick=st.sampled_from([0.05, 0.1]))
def test_a_peer_that_dies_is_lost_within_two_seconds(death, tick):
    at = Line(lambda _, now: now < death, tick=tick).lost_at(20)
    assert at is not None
    # After its last answer; a tenth is left for putting it in force.
    assert 1.0 <= at - death <= 1.9


def test_a_standstill_of_ours_loses_nobody():
    line = Line(lambda _, at: True)
    line.until(5)
    line.now += 30.0  # no probe was sent meanwhile: nobody was silent
    line.until(40)
    assert line.histories["p"].back_at is None


def test_it_is_trusted_again_after_a_steady_while_and_flapping_makes_that_longer():
    down = [(10, 13), (20, 23), (30, 33), (40, 43)]
    line = Line(lambda _, at: not any(begin <= at < end for begin, end in down))
    took = []
    for begin, end in down:
        line.until(begin)
        assert line.lost_at(end) is not None
        while line.histories["p"].lost:
            line.step()
        took.append(line.now - 100.0 - end)
    assert took[0] <= 2.0
    assert took == sorted(took)
    assert took[-1] >= 2 * took[0]
    assert took[-1] <= reach.BACK_MAX + 2.0
    line.until(200)
    assert not line.histories["p"].lost


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=50, max_size=400))
def test_nobody_is_lost_without_many_probes_in_a_row_unanswered(pattern):
    """Whatever answers and whatever does not: the verdict needs eight probes over a second."""
    fate = iter([*pattern, *[True] * 2000])
    results = []

    def answers(_, at):
        results.append((at, next(fate)))
        return results[-1][1]

    line = Line(answers)
    at = line.lost_at(60)
    if at is not None:
        row = []
        for when, arrived in reversed(results):
            if arrived:
                break
            row.append(when)
        assert len(row) >= reach.LOST_PROBES
        assert row[0] - row[-1] >= reach.LOST_AFTER - 0.2
    line.until(140)
    assert not line.histories["p"].lost, "all answered since: it is found again"


HISTORIES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.one_of(st.none(), st.floats(0, 100)),
    max_size=12,
)


@given(HISTORIES)
def test_from_four_peers_up_never_more_than_half_are_taken_out(since):
    histories = {node: History(known=True, lost_since=at) for node, at in since.items()}
    lost = {node for node, at in since.items() if at is not None}
    out = reach.unreachable(histories)
    assert out <= lost
    if len(histories) >= 4:
        assert len(out) <= len(histories) / 2
        if len(lost) <= len(histories) // 2:
            assert out == lost
    else:
        assert out == lost
    # Those that were lost first stay out when more follow.
    later = {
        n: h if h.lost else History(known=True, lost_since=200.0) for n, h in histories.items()
    }
    assert out <= reach.unreachable(later)


@given(st.integers(1, 400))
def test_probes_are_bounded_whatever_the_number_of_peers(count):
    peers = [f"p{number}" for number in range(count)]
    line = Line(lambda _, at: True, peers=peers, tick=0.25)
    line.until(12)
    usual = sum(len(times) for times in line.sent.values()) / 12
    assert usual <= reach.RATE * 1.1 + count / 12
    silent = Line(lambda _, at: at < 2, peers=peers, tick=0.1)
    silent.until(12)
    hurried = sum(len(times) for times in silent.sent.values()) / 12
    assert hurried <= reach.RATE * 1.1 + count / 12 + reach.HURRIED / reach.HURRY


test_probes_are_bounded_whatever_the_number_of_peers = settings(max_examples=12, deadline=None)(
    test_probes_are_bounded_whatever_the_number_of_peers
)


def lost(state, *nodes):
    return type(state)(
        **{
            name: getattr(state, name)
            for name in state.__dataclass_fields__
            if name != "unreachable"
        },
        unreachable=frozenset(nodes),
    )


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((), {"10.210.16.66", "10.210.16.130", "10.210.16.194"}),
        (("n2",), {"10.210.16.66", "10.210.16.194"}),
        (("n2", "n3"), {"10.210.16.66"}),
        (("n4",), {"10.210.16.66", "10.210.16.130", "10.210.16.194"}),  # nothing runs there
    ],
)
def test_a_lost_peers_endpoints_get_no_new_connections(gone, left):
    cluster = Cluster(NODES)
    for number in (1, 2, 3):
        cluster.task(f"w{number}", f"n{number}", ["net-a"], number=2)
    port = {"target": 80, "published": 8080}
    cluster.service("web", "net-a", ["w1", "w2", "w3"], vip=vip("net-a", 2), ports=[port])
    found = rules(lost(wanted(cluster), *gone))
    assert backends(found, found.sets["vips"][vip("net-a", 2)]) == left
    assert backends(found, found.sets["ports"]["tcp . 8080"]) == left


def test_the_last_backend_is_never_taken_out():
    cluster = Cluster(NODES)
    cluster.task("w2", "n2", ["net-a"], number=2)
    cluster.service("web", "net-a", ["w2"], vip=vip("net-a", 2))
    found = rules(lost(wanted(cluster), "n2"))
    assert backends(found, found.sets["vips"][vip("net-a", 2)]) == {"10.210.16.130"}


def test_a_service_is_worked_out_again_when_one_of_its_nodes_is_lost_or_found():
    cluster = Cluster(NODES)
    for number in (1, 2):
        cluster.task(f"w{number}", f"n{number}", ["net-a"], number=2)
    cluster.service("web", "net-a", ["w1", "w2"], vip=vip("net-a", 2))
    parts = PerService(service_part)
    state = wanted(cluster)
    parts.update(state)
    changes = [parts.update(lost(state, *gone))[1] for gone in (["n5"], ["n2"], ["n2"], [])]
    assert changes == [set(), {"shop/web/net-a"}, set(), {"shop/web/net-a"}]


def test_echoes_are_well_formed_and_only_replies_count():
    request = echo(0x1234, 7)
    assert checksum(request) == 0, "as the receiver checks it"
    header = bytes([0x45]) + bytes(19)
    assert replied(header + request) is None
    assert replied(header + b"\0" + request[1:]) == 0x1234
    assert replied(header + b"\0") is None
    assert replied(b"") is None


def test_a_peer_whose_address_changed_is_not_judged_by_the_old_one(tmp_path):
    probes = PeerProbes(tmp_path / "run" / "peers.json")
    probes.meet("10.210.0.1", {"n2": "10.210.0.2", "n3": "10.210.0.3"})
    known = reach.answered(History(), 1.0)
    probes.histories = dict.fromkeys(("n2", "n3"), known)
    probes.meet("10.210.0.1", {"n2": "10.210.0.2", "n3": "10.210.0.9", "n4": "10.210.0.4"})
    assert probes.histories == {"n2": known, "n3": History(), "n4": History()}


def test_who_has_answered_once_is_known_to_the_next_agent(tmp_path):
    path = tmp_path / "run" / "peers.json"
    peers = {"n2": "10.210.0.2", "n3": "10.210.0.3", "n4": "10.210.0.4"}
    probes = PeerProbes(path)
    probes.meet("10.210.0.1", peers)
    probes.histories |= {"n2": History(known=True), "n4": History(known=True)}
    probes.meet(
        "10.210.0.1", {"n2": "10.210.0.2", "n3": "10.210.0.3", "n4": "10.210.0.4", "n5": ""}
    )

    again = PeerProbes(path)
    again.meet("10.210.0.1", {**peers, "n4": "10.210.0.44"})
    assert {node: history.known for node, history in again.histories.items()} == {
        "n2": True,
        "n3": False,
        "n4": False,  # another machine by now
    }
    again.forget()
    assert not path.exists()
    for text in ("torn {", "[]", ""):
        path.write_text(text)
        torn = PeerProbes(path)
        torn.meet("10.210.0.1", peers)
        assert not any(history.known for history in torn.histories.values())


def _tcp(flags, *, protocol=6, fragment=0, options=b""):
    """Return the beginning of an IPv4 packet with these TCP flags."""
    words = (5 + len(options) // 4) | 0x40
    header = struct.pack("!BBHHHBBH8x", words, 0, 40, 1, fragment, 64, protocol, 0) + options
    return header + struct.pack("!HHIIBBHHH", 8080, 40000, 1, 1, 0x50, flags, 1024, 0, 0)


SYN, ACK, RST, FIN, PUSH = 0x02, 0x10, 0x04, 0x01, 0x08


@pytest.mark.parametrize(
    ("packet", "heard"),
    [
        (_tcp(SYN | ACK), True),
        (_tcp(SYN | ACK, options=bytes(8)), True),
        (_tcp(SYN | ACK | 0x40), True),  # with ECN
        (_tcp(SYN), False),  # it wants something of us: it may not hear our answer
        (_tcp(ACK), False),
        (_tcp(ACK | PUSH), False),  # sent again and again when our answers are lost
        (_tcp(ACK | FIN), False),
        (_tcp(ACK | RST), False),
        (_tcp(SYN | ACK, protocol=17), False),
        (_tcp(SYN | ACK, protocol=1), False),
        (_tcp(SYN | ACK, fragment=100), False),
        (b"\x45", False),
    ],
)
def test_an_accepted_connection_is_the_only_packet_that_counts(packet, heard):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        attach_filter(here)
        here.setblocking(False)
        try:
            there.send(packet)
            found = bool(here.recv(256))
        except (BlockingIOError, PermissionError):
            found = False
        assert found == heard


class Doors:
    """Tasks that are knocked at in virtual time; ``answers(address)``: True, False or None."""

    now = 0.0

    def __init__(self, answers, takes=0.0):
        self.answers, self.open, self.takes = answers, [], takes

    def begin(self, source, address):
        link = Link(address, self.now)
        self.open.append(link)
        return link

    def heard(self, link):
        if self.now < link.at + self.takes:
            return None
        return self.answers(self, link.address)


class Link:
    def __init__(self, address, at):
        self.address, self.at, self.closed = address, at, False

    def close(self):
        self.closed = True


def knocked(answers, tasks, *, seconds=30.0, passed=frozenset(), takes=0.0):
    """Return which peers count as lost after each tenth of a second, as Knocks finds out."""
    doors = Doors(answers, takes)
    knocks = Knocks(open=doors.begin, heard=doors.heard)
    knocks.meet(tasks)
    found, now = [], 100.0
    while now < 100.0 + seconds:
        now += 0.1
        doors.now = now - 100.0
        knocks.look("10.210.0.1", now, passed)
        found.append(frozenset(n for n, h in knocks.histories.items() if h.lost))
        assert sum(not link.closed for link in doors.open) <= 32 * len(tasks), "bounded"
    return found, knocks, doors


TWO = {"n2": ("10.0.0.2", "10.0.0.3"), "n3": ("10.0.0.4",)}


@pytest.mark.parametrize(
    ("what", "answers", "lost"),
    [
        ("all answer", lambda doors, _: True, set()),
        ("nobody ever did", lambda doors, _: None, set()),
        (
            "n2 falls silent",
            lambda doors, a: True if a == "10.0.0.4" or doors.now < 9 else None,
            {"n2"},
        ),
        (
            "one of two does",
            lambda doors, a: True if a != "10.0.0.3" or doors.now < 9 else None,
            set(),
        ),
        ("one of two never did", lambda doors, a: None if a == "10.0.0.3" else True, set()),
        (
            "one never did, the other falls silent",
            lambda doors, a: (
                True if a == "10.0.0.4" or (a == "10.0.0.2" and doors.now < 9) else None
            ),
            {"n2"},
        ),
        (
            "what comes is another error",
            lambda doors, a: a == "10.0.0.4" or doors.now < 9,
            {"n2"},
        ),
        (
            "it is back after a while",
            lambda doors, a: True if a == "10.0.0.4" or not 9 < doors.now < 15 else None,
            set(),
        ),
    ],
)
def test_a_peer_to_whose_tasks_nothing_comes_through_is_lost_though_it_echoes(what, answers, lost):
    found, _, _ = knocked(answers, TWO)
    assert found[-1] == lost, what


def test_it_is_lost_as_soon_as_a_peer_without_echoes():
    found, _, _ = knocked(lambda doors, _: True if doors.now < 9 else None, TWO)
    when = next(number for number, lost in enumerate(found) if lost) / 10
    assert 10.0 <= when <= 9 + 2.5


@pytest.mark.parametrize("takes", [0.05, 0.25, 0.45, 0.9])
def test_a_long_line_is_not_a_lost_peer(takes):
    """Law: an answer counts however late, also where the next were asked in a hurry."""
    found, _, _ = knocked(lambda doors, _: True, TWO, takes=takes)
    assert not any(found)


def test_a_connection_that_was_accepted_is_an_answer():
    silent = lambda doors, _: True if doors.now < 9 else None  # noqa: E731
    found, _, _ = knocked(silent, TWO, passed=frozenset({"n2"}))
    assert found[-1] == {"n3"}


def test_tasks_that_are_new_on_a_peer_are_not_judged_by_the_old_ones():
    found, knocks, doors = knocked(lambda doors, _: True if doors.now < 9 else None, TWO)
    assert found[-1] == {"n2", "n3"}
    knocks.meet({"n2": ("10.0.0.9",), "n3": ("10.0.0.4", "10.0.0.5")})
    assert [n for n, h in knocks.histories.items() if h.lost] == ["n3"], "it has one of them still"
    knocks.meet({"n3": ("10.0.0.4",)})
    assert set(knocks.histories) == {"n3"}
    knocks.close()
    assert all(link.closed for link in doors.open)


@pytest.mark.parametrize(
    ("echoes", "knocks", "out"),
    [
        ({"a": None, "b": None}, {}, set()),
        ({"a": 5.0, "b": None}, {"a": None}, {"a"}),
        ({"a": None, "b": None}, {"b": 3.0}, {"b"}),
        ({"a": None, "b": None}, {"c": 3.0}, set()),  # not a peer any more
        ({"a": 1.0, "b": None, "c": None, "d": None}, {"b": 3.0, "c": 2.0}, {"a", "c"}),  # half
        ({"a": None, "b": None, "c": None, "d": None}, dict.fromkeys("abcd", 1.0), {"a", "b"}),
    ],
)
def test_either_kind_of_silence_counts_and_never_more_than_half(echoes, knocks, out):
    history = lambda since: History(known=True, lost_since=since)  # noqa: E731
    found = reach.together(
        {n: history(at) for n, at in echoes.items()}, {n: history(at) for n, at in knocks.items()}
    )
    assert reach.unreachable(found) == out


@pytest.mark.parametrize("listening", [True, False])
def test_a_refusal_is_as_good_an_answer_as_a_connection(monkeypatch, listening):
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        if listening:
            door.listen()
        monkeypatch.setattr(knocking, "PORT", door.getsockname()[1])
        link = knocking.begin("127.0.0.1", "127.0.0.1")
        with link:
            select.select([], [link], [], 60)
            assert knocking.answer(link) is True


def test_what_cannot_be_asked_says_nothing():
    assert knocking.begin("192.0.2.1", "127.0.0.1") is None  # not an address of ours
