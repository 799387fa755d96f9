"""Logs: every line once and in order, over rotations, runs and pruning."""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux.inotify import Inotify
from agent.runtime import logreading, logs
from specs.stack import LogConfig

STAMP = b"2026-11-23T12:00:%02d.123456789+00:00"


def raw(text, second=0, stream=b"stdout", tag=b"F"):
    return b" ".join((STAMP % second, stream, tag, text.encode())) + b"\n"


def test_parse():
    entry = logreading.parse(raw("a b  c").rstrip(b"\n"))
    assert entry[1:] == ("stdout", b"a b  c", True, False)
    assert entry.time == pytest.approx(1795435200.123456)
    assert logreading.parse(b"garbage") is None
    assert logreading.parse(b"not-a-time stdout F x") is None


@settings(deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=30)
    ),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_any_chopping_gives_the_same_lines(texts, sizes):
    data = b"".join(raw(text) for text in texts)
    assembler, got, at, turn = logreading.Assembler(1), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        got += assembler.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert [line.line for line in got] == texts


def test_pieces_of_a_long_line_are_joined_per_stream():
    data = (
        raw("one ", tag=b"P")
        + raw("err", stream=b"stderr")
        + raw("line", tag=b"P")
        + raw("", tag=b"F")
        + raw("rest", tag=b"P")
    )
    assembler = logreading.Assembler(1)
    assert [(x.stream, x.line) for x in assembler.feed(data)] == [
        ("stderr", "err"),
        ("stdout", "one line"),
    ]
    assert [x.line for x in assembler.flush()] == ["rest"]


def write(folder, name, *texts, second=0):
    with open(folder / name, "ab") as file:
        file.write(b"".join(raw(text, second) for text in texts))


async def collect(folder, **options):
    options = {"tail": None, "since": None, "follow": False, "over": lambda: True, **options}
    inotify = Inotify()
    try:
        return [line.line async for line in logreading.Reader(folder, inotify).read(**options)]
    finally:
        inotify.close()


async def test_order_over_runs_and_rotations(tmp_path):
    write(tmp_path, "000002.log", "e", second=9)
    write(tmp_path, "000001.log", "d", second=5)
    write(tmp_path, "000001.000001.log", "a", "b", second=1)
    write(tmp_path, "000001.000002.log", "c", second=3)
    (tmp_path / "other").write_text("x")
    assert await collect(tmp_path) == ["a", "b", "c", "d", "e"]
    assert await collect(tmp_path, tail=2) == ["d", "e"]
    assert await collect(tmp_path, tail=0) == []
    assert await collect(tmp_path, tail=99) == ["a", "b", "c", "d", "e"]
    assert await collect(tmp_path, since=1795435205.0) == ["d", "e"]
    assert await collect(tmp_path, tail=1, since=1795435205.0) == ["e"]


def test_lines_written_between_the_last_read_and_a_rotation_arrive(tmp_path, monkeypatch):
    write(tmp_path, "000001.log", "a")
    position = logreading._Position(tmp_path)
    assert [line.line for line in position.more()] == ["a"]
    look = position._next

    def rotated_meanwhile():  # the reader was at the end: now one more line, and the rotation
        monkeypatch.setattr(position, "_next", look)
        write(tmp_path, "000001.log", "b")
        (tmp_path / "000001.log").rename(tmp_path / "000001.000001.log")
        write(tmp_path, "000001.log", "c")
        return look()

    monkeypatch.setattr(position, "_next", rotated_meanwhile)
    got = []
    while (lines := position.more()) is not None:
        got += [line.line for line in lines]
    position.close()
    assert got == ["b", "c"]


# Characters and long lines: bytes as conmon wrote them, and the lines a reader sees.

SNOW = "\N{SNOWMAN}".encode()
LONG = "\N{SNOWMAN}" * 8000


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(b"P", SNOW[:1]), (b"F", SNOW[1:])], ["\N{SNOWMAN}"]),
        ([(b"P", SNOW[:1]), (b"P", SNOW[1:2]), (b"F", SNOW[2:])], ["\N{SNOWMAN}"]),
        ([(b"P", b"a" + SNOW[:2])], ["a\N{REPLACEMENT CHARACTER}"]),  # never finished
        ([(b"F", b"\xff\xfe")], ["\N{REPLACEMENT CHARACTER}" * 2]),  # no text at all
        ([(b"P", b"x\r"), (b"F", b"\r")], ["x\r"]),  # a terminal's end of line, once
        (
            [
                *((b"P", LONG.encode()[at : at + 8191]) for at in range(0, 24000, 8191)),
                (b"F", b""),
            ],
            [LONG],
        ),
    ],
)
async def test_what_was_written_in_pieces_is_read_whole(tmp_path, parts, expected):
    data = b"".join(b" ".join((STAMP % 0, b"stdout", tag, body)) + b"\n" for tag, body in parts)
    (tmp_path / "000001.log").write_bytes(data)
    assert await collect(tmp_path) == expected
    assert await collect(tmp_path, tail=5) == expected
    assert [line.line for line in logreading.last_lines(tmp_path, 5)] == expected


def test_a_line_without_end_is_cut_between_characters(monkeypatch):
    monkeypatch.setattr(logreading, "LINE_MAX", 10)
    assembler, body = logreading.Assembler(1), ("ab" + "\N{SNOWMAN}" * 7).encode()
    data = b"".join(
        b" ".join((STAMP % 0, b"stdout", b"P", body[at : at + 4])) + b"\n"
        for at in range(0, len(body), 4)
    )
    got = [*assembler.feed(data), *assembler.flush()]
    assert "".join(line.line for line in got) == body.decode()
    assert len(got) > 1


# Going on: every way a log can end, and a reader that comes back with each place it saw.


@pytest.mark.parametrize(
    "parts",
    [
        [("stdout", "F", "a"), ("stdout", "F", "b")],
        [("stderr", "P", "no end"), ("stdout", "F", "a"), ("stdout", "F", "b")],
        [("stdout", "F", "a"), ("stdout", "P", "no end")],
        [("stdout", "P", "one"), ("stderr", "P", "two")],
        [("stdout", "F", "a"), ("stderr", "P", "x"), ("stdout", "F", "b"), ("stderr", "F", "y")],
        [],
    ],
)
async def test_a_reader_that_comes_back_gets_what_is_behind_its_place(tmp_path, parts):
    for run in (1, 2):
        half = len(parts) // 2
        for name, some in (
            (f"{run:06d}.000001.log", parts[:half]),
            (f"{run:06d}.log", parts[half:]),
        ):
            (tmp_path / name).write_bytes(
                b"".join(raw(body, 0, s.encode(), tag.encode()) for s, tag, body in some)
            )
    inotify = Inotify()
    try:
        reader = logreading.Reader(tmp_path, inotify)

        async def read(after=None):
            lines = reader.read(tail=None, since=None, follow=True, over=lambda: True, after=after)
            return [line async for line in lines]

        whole = await read()
        assert [line.place for line in whole] == sorted({line.place for line in whole})
        assert [line.time for line in whole] == sorted(line.time for line in whole)
        for i, line in enumerate(whole, 1):
            assert await read(line.place) == whole[i:]
        # A place stays what it is when the file is rotated and the next one has begun.
        (tmp_path / "000002.log").rename(tmp_path / "000002.000003.log")
        write(tmp_path, "000002.log", "more")
        if whole and not any(tag == "P" for _, tag, _ in parts):
            assert [line.line for line in await read(whole[-1].place)] == ["more"]
    finally:
        inotify.close()


async def test_follow_sees_each_line_once_over_rotation_and_a_new_run(tmp_path):
    write(tmp_path, "000001.log", "0")
    ended = False

    async def work():
        nonlocal ended
        for number in range(1, 30):
            await asyncio.sleep(0.002)
            if number % 7 == 0:
                (tmp_path / "000001.log").rename(tmp_path / f"000001.{number:06d}.log")
            write(tmp_path, "000001.log", str(number))
        write(tmp_path, "000002.log", "30")
        ended = True

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        got = await collect(tmp_path, follow=True, over=lambda: ended)
    assert got == [str(n) for n in range(31)]


class Conmon(logs.Count):
    """Writes a run's log as conmon does: a full file is replaced by a new one, and so gone."""

    def __init__(self, folder, limits, run=1):
        self.path, self.folder, self.limits, self.run = (
            logs.path_of(folder, run),
            folder,
            limits,
            run,
        )
        self.size, self.begun, self.known, self.lost, self.number = (
            logs.file_size(limits),
            0,
            0,
            0,
            0,
        )
        self.path.touch()
        self.settle()

    def print(self, count=1, width=50):
        for _ in range(count):
            line = raw(f"{self.number:05d} " + "x" * width)
            self.number += 1
            if self.path.stat().st_size + len(line) > self.size:
                (self.folder / "tmp").write_bytes(line)
                (self.folder / "tmp").rename(self.path)
                self.begun += 1
            else:
                with self.path.open("ab") as file:
                    file.write(line)

    def missed(self):
        return self.begun - self.known - 1

    def kept(self, missed):
        self.known += 1 + missed

    def settle(self):
        new, lost = logs.settle(self.folder, self.run, self, self.size)
        self.lost += lost
        if new:
            logs.prune(self.folder, self.limits)
        return lost

    def disk(self):
        """Return the bytes on the disk; a file of two names is there once."""
        found = {one.st_ino: one.st_size for one in map(os.stat, self.folder.iterdir())}
        return sum(found.values())

    def lines(self):
        return [line.line for line in logreading.last_lines(self.folder, 10_000)]


@pytest.mark.parametrize("files", [1, 2, 3, 5])
@pytest.mark.parametrize("burst", [1, 5, 15, 40, 400])
def test_the_cap_holds_at_any_rate_and_what_is_lost_is_said(tmp_path, files, burst):
    """However much a container prints between two looks; nobody looking is the fastest of all."""
    limits = LogConfig(max_size=4000, max_files=files)
    conmon, told = Conmon(tmp_path, limits), 0
    while conmon.number < (1600 if burst > 5 else 600):  # some turns of all files
        conmon.print(burst)
        assert conmon.disk() <= 2 * files * 4000, "also while nobody looks"
        told += conmon.settle()
        assert conmon.disk() <= 2 * files * 4000
        lines = conmon.lines()
        gaps = [at for at, line in enumerate(lines) if line.startswith("corral: about")]
        kept = [int(line.split()[0]) for line in lines[gaps[-1] + 1 if gaps else 0 :]]
        assert kept == list(range(conmon.number - len(kept), conmon.number)), "the newest, in order"
        assert not gaps or kept[0] > int(lines[gaps[-1] - 1].split()[0]) + 1 or gaps[-1] == 0
    assert conmon.known == conmon.begun
    assert told == 0 or burst * 105 > conmon.size, "nothing is lost where we come in time"
    assert told > 0 or burst * 90 < 2 * conmon.size, "what is lost is said"
    if not told:
        assert len(kept) >= files * 4000 // 2 // 100 - 1


def test_each_lost_file_is_counted_once(tmp_path):
    conmon = Conmon(tmp_path, LogConfig(max_size=1000, max_files=100))
    for rolls in (1, 2, 5, 1, 3):
        begun = conmon.begun
        while conmon.begun < begun + rolls:
            conmon.print()
        assert conmon.settle() == (rolls - 1) * 1000
        assert conmon.settle() == 0
    assert conmon.lost == 7000
    said = [line for line in conmon.lines() if "corral:" in line]
    assert [line.split()[2] for line in said] == ["1", "3", "1"]
    assert conmon.lines()[-1].startswith(f"{conmon.number - 1:05d}")


def test_a_file_replaced_while_it_is_kept_is_not_told_as_lost(tmp_path):
    """conmon may begin another between our link and our count; that one is behind the first."""

    class Quick(Conmon):
        racing = False

        def missed(self):
            if self.racing:
                self.racing = False
                self.print(30)  # two more files
            return super().missed()

    conmon = Quick(tmp_path, LogConfig(max_size=1500, max_files=50))
    conmon.print(20)
    conmon.racing = True
    conmon.settle()
    assert conmon.lost == 0
    conmon.settle()
    begun = conmon.begun
    numbered = [p for p in logs.pieces(tmp_path) if p.sequence % 2]
    assert conmon.known == begun
    assert conmon.lost == (begun + 1 - len(numbered)) * 1500, "kept and lost are all there were"


def test_what_nobody_counted_is_said_without_an_amount(tmp_path):
    conmon = Conmon(tmp_path, LogConfig(max_size=1000, max_files=9))
    conmon.print(60)
    conmon.missed = lambda: logs.UNKNOWN
    assert conmon.settle() == 0
    (said,) = [line for line in conmon.lines() if line.startswith("corral:")]
    assert said == logs.words(logs.UNKNOWN)


@pytest.mark.parametrize(
    ("lost", "amount"),
    [(1, "1 KiB"), (4096, "4 KiB"), (1 << 20, "1.0 MiB"), (97 << 20, "97.0 MiB")],
)
def test_how_much_is_missing_is_said_in_words(lost, amount):
    assert f"about {amount} of output" in logs.words(lost)


async def test_halves_of_lines_are_not_joined_over_what_is_missing(tmp_path):
    write(tmp_path, "000001.000001.log", "a")
    with (tmp_path / "000001.000001.log").open("ab") as file:
        file.write(raw("begun", tag=b"P") + raw("wrong", tag=b"P", stream=b"stderr"))
    (tmp_path / "000001.000002.log").write_bytes(raw("gone", tag=b"G", stream=b"stderr"))
    write(tmp_path, "000001.000003.log", "end", "b")
    expected = ["a", "wrong", "begun", "gone", "end", "b"]
    assert await collect(tmp_path) == expected
    assert await collect(tmp_path, tail=9) == expected
    inotify = Inotify()
    try:
        lines = logreading.Reader(tmp_path, inotify).read(
            tail=None, since=None, follow=False, over=lambda: True
        )
        places = [line.place async for line in lines]
    finally:
        inotify.close()
    assert places == sorted(set(places))


async def test_a_follower_of_a_flood_sees_lines_in_order_and_every_gap(tmp_path):
    """Files are replaced before they are numbered; a reader never goes into one of those."""
    conmon, over = Conmon(tmp_path, LogConfig(max_size=2000, max_files=3)), False

    async def work():
        nonlocal over
        for burst in (5, 10, 70, 5, 100, 3):
            conmon.print(burst)
            await asyncio.sleep(0.003)
            conmon.settle()
            await asyncio.sleep(0.02)
        over = True

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        got = await collect(tmp_path, follow=True, over=lambda: over)
    numbers = [int(line.split()[0]) for line in got if not line.startswith("corral")]
    assert numbers == sorted(set(numbers)), "each once, in order"
    assert numbers[-1] == conmon.number - 1
    jumps = sum(b != a + 1 for a, b in pairwise(numbers))
    assert jumps <= sum(line.startswith("corral: about") for line in got)
    assert conmon.lost > 0


def test_reading_a_little_of_a_large_log_is_bounded(tmp_path, monkeypatch):
    """A task that fails is told with its last lines, on the loop: whatever it printed before."""
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: reads.append(n) or pread(fd, n, at))
    begun = raw("never finished", tag=b"P", stream=b"stderr")
    (tmp_path / "000001.log").write_bytes(begun + raw("x" * 100) * 20_000 + raw("last"))
    lines = logreading.last_lines(tmp_path, 2, 1 << 16)
    assert [line.line for line in lines][-1] == "last"
    assert sum(reads) <= 2 << 16


def test_a_crash_loop_does_not_leave_thousands_of_files(tmp_path):
    for run in range(1, 300):
        write(tmp_path, f"{run:06d}.log", "hi")
    logs.prune(tmp_path, LogConfig())
    assert len(list(tmp_path.iterdir())) <= logs.FILES_MAX


async def test_without_follow_reading_ends_however_fast_the_container_prints(tmp_path):
    now = datetime.now(UTC)
    early = (now - timedelta(seconds=1)).isoformat().encode()
    late = (now + timedelta(hours=1)).isoformat().encode()
    current = tmp_path / "000001.log"
    current.write_bytes(early + b" stdout F before\n")
    inotify, got = Inotify(), []
    reader = logreading.Reader(tmp_path, inotify)
    try:
        async for line in reader.read(tail=5, since=None, follow=False, over=lambda: True):
            got.append(line.line)
            assert len(got) < 5, "what is printed after the question is no part of the answer"
            with current.open("ab") as file:
                file.write(late + b" stdout F more\n")
    finally:
        inotify.close()
    assert got == ["before"]


async def test_a_reader_that_fell_behind_does_not_join_halves_of_different_lines(tmp_path):
    first = tmp_path / "000001.000001.log"
    first.write_bytes(raw("one", second=1) + raw("two beg", second=1, tag=b"P"))
    inotify, got = Inotify(), []
    try:
        reading = logreading.Reader(tmp_path, inotify).read(
            tail=None, since=None, follow=True, over=lambda: False
        )
        async with asyncio.timeout(60):
            async for line in reading:
                got.append(line.line)
                if len(got) == 1:
                    write(tmp_path, "000001.000009.log", "of another line", "whole", second=2)
                    first.unlink()
                if len(got) == 3:
                    break
        await reading.aclose()
    finally:
        inotify.close()
    assert got == ["one", "of another line", "whole"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"stdout", b"stderr"]),
            st.sampled_from([b"F", b"F", b"P"]),
            st.integers(0, 60),
        ),
        max_size=40,
    ),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(0, 30),
)
def test_the_end_read_backwards_is_the_end_of_the_whole(parts, cuts, count):
    """Also where lines begin in one file and end in the next."""
    data = [
        raw(f"{i}-" + "x" * size, stream=stream, tag=tag)
        for i, (stream, tag, size) in enumerate(parts)
    ]
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    whole, expected = logreading.Assembler(1), []
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(logreading, "CHUNK", 100)
        for number, (start, end) in enumerate(pairwise(edges), 1):
            last = end == len(data)
            file = "000001.log" if last else f"000001.{number:06d}.log"
            (Path(name) / file).write_bytes(b"".join(data[start:end]))
            whole.go_on(number)
            expected += whole.feed(b"".join(data[start:end]))
        expected += whole.flush()
        lines = logreading.last_lines(Path(name), count)
    assert lines == (expected[-count:] if count else [])


def test_a_short_tail_reads_only_the_end_of_a_large_file(tmp_path, monkeypatch):
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: reads.append(n) or pread(fd, n, at))
    (tmp_path / "000001.log").write_bytes(raw("x" * 100) * 20_000 + raw("last"))
    lines = logreading.last_lines(tmp_path, 2)
    assert [line.line for line in lines] == ["x" * 100, "last"]
    assert sum(reads) <= logreading.CHUNK
