"""The journal over a power cut: what was acknowledged is there, whatever was not synced is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.tasks.held import Held, merge
from agent.tasks.journal import Journal
from agent.tasks.record import Record
from specs.kit import disk
from specs.wire import Content
from tests.agent.test_journal import instructions, named


class PowerCutError(BaseException):
    """The current is off: nothing below this may go on."""


class Disk:
    """What of a folder would be there after a power cut: only what fsync(2) was told.

    Contents by inode as of a file's last fsync, names as of a directory's. ``cut_at`` = the power
    fails in the n-th fsync, before or after it had its effect.
    """

    def __init__(self, monkeypatch, *, cut_at=0, late=False):
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, dict[str, int | Path]] = {}
        self.calls = 0
        self.cut_at, self.late = cut_at, late
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, fd):
        self.calls += 1
        if self.calls == self.cut_at and not self.late:
            raise PowerCutError
        path = Path(f"/proc/self/fd/{fd}").resolve()
        if path.is_dir():
            self.names[path] = {
                one.name: one if one.is_dir() else one.stat().st_ino for one in path.iterdir()
            }
        else:
            self.contents[os.fstat(fd).st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()
        if self.calls == self.cut_at:
            raise PowerCutError

    def after_the_cut(self, old: Path, new: Path) -> Path:
        """Make ``new`` what is found where ``old`` was; a folder without a synced name is lost."""
        new.mkdir()
        for name, what in self.names.get(old, {}).items():
            if isinstance(what, Path):
                self.after_the_cut(old / name, new / name)
            else:
                (new / name).write_bytes(self.contents.get(what, b""))
        return new


HISTORY = [
    {
        "generation": 1,
        "tasks": {"a": named("a")},
        "contents": {"c1": Content(id="c1", data="eA==")},
    },
    {"generation": 2, "base": 1, "tasks": {"b": named("b")}},
    {"generation": 3, "base": 2, "contents": {"c2": Content(id="c2", data="eQ==")}},
    {"generation": 4, "base": 3, "tasks": {"c": named("c")}, "remove": {"tasks": ("a",)}},
    {"generation": 5, "tasks": {"d": named("d")}},
]


def play(base: Path) -> tuple[list[Held], bool, bool]:
    """Give the journal the history, and a task that ends.

    Return what was acknowledged, whether the end was, and whether the power held.
    """
    held, acknowledged, finished = Held(), [Held()], False
    try:
        journal = Journal(base / "journal", base / "tasks", base / "run")
        for one in HISTORY:
            given = instructions(**one)
            held = merge(held, given)
            journal.accept(given, held)
            acknowledged.append(held)
        journal.put(Record(id="a", assignment=named("a"), state="preparing"), disk=True)
        journal.put(Record(id="a", assignment=named("a"), state="complete"), durable=True)
        finished = True
    except PowerCutError:
        return acknowledged, finished, False
    return acknowledged, finished, True


@pytest.mark.parametrize("late", [False, True])
def test_acknowledged_instructions_survive_a_power_cut_at_every_fsync(tmp_path, monkeypatch, late):
    for number in range(1, 100):
        old, new = tmp_path / f"{number}-old", tmp_path / f"{number}-new"
        machine = Disk(monkeypatch, cut_at=number, late=late)
        old.mkdir()
        acknowledged, finished, whole = play(old)
        monkeypatch.undo()
        machine.after_the_cut(old, new)
        journal = Journal(new / "journal", new / "tasks", new / "run")
        found = journal.load()
        last, next_one = len(acknowledged) - 1, min(len(acknowledged), len(HISTORY))
        generation = found.stamp.generation if found.stamp else 0
        assert generation in (last, next_one), f"cut at fsync {number}: an acknowledged set is lost"
        if generation == last and last:
            assert found.objects == acknowledged[-1].objects, "and all of it is there"
        if finished:
            assert journal.records()["a"].state == "complete", "a final state is not forgotten"
        if whole:
            break
    assert whole
    assert number >= 2 * len(HISTORY) - 2, "the cuts were real"


def test_the_disk_of_the_test_loses_what_is_not_synced(tmp_path, monkeypatch):
    machine = Disk(monkeypatch)
    (tmp_path / "old").mkdir()
    disk.write_file(tmp_path / "old/a", b"x")
    disk.write_file(tmp_path / "old/b", b"y", durable=False)
    new = machine.after_the_cut(tmp_path / "old", tmp_path / "new")
    assert sorted(one.name for one in new.iterdir()) == ["a"]
