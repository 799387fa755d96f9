"""What a disk that takes nothing cost a log: counted by what conmon read and did not write."""

from __future__ import annotations

import pytest

from agent.runtime import logs
from agent.runtime.losses import Flow, Losses
from tests.agent.runtime.test_logs import collect, write

SAID = "corral: about 2 KiB of output are missing here: the node's disk took nothing from"


def told(*looks):
    """Return what is said at each look; a look is (bytes read, file, its size, refused)."""
    losses, found = Losses(), []
    for at, (read, inode, size, refused) in enumerate(looks):
        seen = None if read is None else Flow(read, inode, size)
        found.append(losses.look(seen, refused=refused, wall=1795435200.0 + at))
    return [one.partition(" from ")[0] + " from" if one else "" for one in found]


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        # all is well, however much is printed
        ([(0, 1, 0, False), (9000, 1, 9000, False)], ["", ""]),
        # full, and nothing is printed
        ([(10, 1, 10, True), (10, 1, 10, True), (10, 1, 10, False)], ["", "", ""]),
        # full, and what is printed fits all the same
        ([(0, 1, 0, True), (3000, 1, 4000, True), (3000, 1, 4000, False)], ["", "", ""]),
        # full, and what is printed goes nowhere
        ([(0, 1, 0, True), (1048, 1, 0, True), (2048, 1, 0, False)], ["", "", SAID]),
        # a part of it fits
        ([(0, 1, 0, True), (3048, 1, 1000, True), (3048, 1, 1000, False)], ["", "", SAID]),
        # the file was replaced meanwhile: that much is not known, the rest is
        ([(0, 1, 9, True), (500, 2, 0, True), (2548, 2, 0, True), (2548, 2, 0, False)],
         ["", "", "", SAID]),
        # nobody tells how much went through
        ([(0, 1, 9, True), (None, 0, 0, True), (5000, 1, 9, True), (5000, 1, 9, False)],
         ["", "", "", ""]),
        # said once
        ([(0, 1, 0, True), (2048, 1, 0, False), (2048, 1, 0, False)], ["", SAID, ""]),
    ],
)  # fmt: skip
def test_what_is_lost_is_said_when_the_disk_takes_something_again(looks, said):
    assert told(*looks) == said


class Gap(logs.Count):
    """A log that lost something before the file that begins now, and maybe whole files too."""

    def __init__(self, missed):
        self.text, self.files = "the disk was full", missed

    def missed(self):
        return self.files

    def gap(self):
        return self.text

    def kept(self, missed):
        self.text, self.files = "", 0


@pytest.mark.parametrize("missed", [0, 3])
async def test_it_stands_where_it_is_missing(tmp_path, missed):
    write(tmp_path, "000001.log", "before")
    assert logs.settle(tmp_path, 1, logs.Count(), 100)[0]
    (tmp_path / "000001.log").unlink()  # conmon was told to begin another
    write(tmp_path, "000001.log", "after")
    count = Gap(missed)
    assert logs.settle(tmp_path, 1, count, 1024)[0]
    lines = await collect(tmp_path)
    first = lines.index("the disk was full")
    assert lines[:first] == ["before"]
    assert lines[-1] == "after"
    assert sum("3 KiB of output are missing" in line for line in lines) == (missed > 0)
    assert count.text == "", "said once"


async def test_it_stands_at_the_end_of_a_run_that_has_ended(tmp_path):
    write(tmp_path, "000001.log", "before")
    logs.settle(tmp_path, 1, logs.Count(), 100)
    logs.end_with(tmp_path, 1, logs.refused(5000, 0.0, 60.0))
    write(tmp_path, "000002.log", "another run")
    lines = await collect(tmp_path)
    assert lines[0] == "before"
    assert "took nothing from 1970-01-01 00:00:00 to 1970-01-01 00:01:00 (UTC)" in lines[1]
    assert lines[2] == "another run"
