"""Whether our table is as we left it, when somebody else's transaction comes beside ours."""

from __future__ import annotations

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
