"""Whether our table is as we left it, when somebody else's transaction comes beside ours."""

from __future__ import annotations

import errno

import pytest

from agent.network import nft
from agent.network.rules import Ruleset


class Kernel:
    """One table and the generation; ``meddle`` is done once, right after our load."""

    def __init__(self) -> None:
        self.number, self.table, self.meddle = 7, "", ""
        self.loads = 0

    def run(self, *words, script=None):
        if "list" in words:
            if not self.table:
                raise nft.NftFailed("Error: No such file or directory")
            return self.table
        self.loads += 1
        self.table, self.number = "ours", self.number + 1
        if self.meddle:
            self.table, self.number = self.meddle.strip(), self.number + 1
            self.meddle = ""
        return ""


@pytest.fixture
def kernel(monkeypatch):
    made = Kernel()
    monkeypatch.setattr(nft, "run", made.run)
    monkeypatch.setattr(nft, "generation", lambda: made.number)
    monkeypatch.setattr(nft, "full", lambda wanted: "all of it")
    return made


@pytest.mark.parametrize(
    ("meddle", "intact", "loads"),
    [
        ("", True, 1),  # nobody else
        (" ", False, 2),  # `nft flush ruleset` between our load and our look at the generation
        ("theirs", False, 2),  # a rule was added to our table in that moment
    ],
)
def test_a_change_right_behind_ours_is_seen(kernel, meddle, intact, loads):
    table, wanted = nft.Table(), object.__new__(Ruleset)
    kernel.meddle = meddle
    table.apply(wanted)
    assert table.intact() is intact
    if not intact:
        table.apply(wanted)
    table.remember()
    assert (kernel.table, kernel.loads, table.intact()) == ("ours", loads, True)


def test_a_change_of_others_elsewhere_is_not_ours(kernel):
    table, wanted = nft.Table(), object.__new__(Ruleset)
    table.apply(wanted)
    table.remember()
    kernel.number += 1  # somebody's own table
    assert table.intact()
    assert kernel.loads == 1


def rulesets(*owned):
    return [Ruleset("base", {"owned": dict.fromkeys(each, "")}, {}, {}) for each in owned]


def test_elements_go_without_nft_and_with_it_where_they_are_refused(kernel, monkeypatch):
    sent = []

    def commit(moves, generation):
        sent.append((moves, generation))
        if len(sent) == 2:
            raise OSError(errno.EBUSY, "refused")
        kernel.number += 1

    monkeypatch.setattr(nft.elements, "commit", commit)
    none, one, two = rulesets((), ('"cr-a" . 10.1.1.1',), ('"cr-b" . 10.1.1.2',))
    table = nft.Table()
    table.apply(none)
    assert table.apply(one)
    assert (kernel.loads, table.intact()) == (1, True)
    assert table.apply(two), "nft has the last word"
    assert (kernel.loads, table.intact()) == (2, True)
    assert not table.apply(two)
    assert [generation for _, generation in sent] == [8, 9]
    assert sent[0][0] == (nft.elements.Move("owned", added=(('"cr-a" . 10.1.1.1', ""),)),)


@pytest.mark.parametrize(
    ("before", "after", "move"),
    [
        ((), ("10.0.0.0/24",), {"ranges": ((0x0A000000, 0x0A000100),), "opens": True}),
        (("10.0.0.0/24",), ("10.0.0.0/24", "10.0.0.64/26"), None),  # it is in there already
        (  # another beside: what is there stays, for taking it out is a wait
            ("10.0.0.0/24",),
            ("10.0.0.0/24", "10.0.9.0/24"),
            {"ranges": ((0x0A000900, 0x0A000A00),)},
        ),
        (  # they touch, and are one
            ("10.0.0.0/24",),
            ("10.0.0.0/24", "10.0.1.0/24"),
            {"emptied": True, "ranges": ((0x0A000000, 0x0A000200),), "opens": True},
        ),
        (("10.0.0.0/24",), (), {"emptied": True, "opens": True}),
        (
            ("10.0.0.0/24", "10.0.9.0/24"),
            ("10.0.9.0/24",),
            {"emptied": True, "ranges": ((0x0A000900, 0x0A000A00),), "opens": True},
        ),
    ],
)
def test_ranges_are_taken_out_only_where_they_must_be(before, after, move):
    old, new = (
        Ruleset("base", {"pools": dict.fromkeys(each, "")}, {}, {}) for each in (before, after)
    )
    wanted = () if move is None else (nft.elements.Move("pools", **move),)
    assert nft.elements.moves(old, new) == wanted


@pytest.mark.parametrize("what", ["base", "chains", "vips", "ingress"])
def test_what_is_more_than_elements_is_left_to_nft(what):
    (old,) = rulesets(())
    sets, chains, base = dict(old.sets), {}, "base"
    if what == "base":
        base = "another"
    elif what == "chains":
        chains = {"vip_1": ("dnat ip to 10.1.1.1",)}
    else:
        sets[what] = {"vips": {"10.2.2.2": "goto vip_1"}, "ingress": {"02:00:00:00:00:01": "1"}}[
            what
        ]
    assert nft.elements.moves(old, Ruleset(base, sets, chains, {})) is None
