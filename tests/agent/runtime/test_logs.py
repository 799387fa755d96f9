"""Logs: every line once and in order, over rotations, runs and pruning."""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux.inotify import Inotify
from agent.runtime import logs
from specs.stack import LogConfig

STAMP = b"2026-11-23T12:00:%02d.123456789+00:00"


def raw(text, second=0, stream=b"stdout", tag=b"F"):
    return b" ".join((STAMP % second, stream, tag, text.encode())) + b"\n"


def test_parse():
    line, whole = logs.parse(raw("a b  c").rstrip(b"\n"), 3)
    assert (line.line, line.stream, line.run, whole) == ("a b  c", "stdout", 3, True)
    assert line.time == pytest.approx(1795435200.123456)
    assert logs.parse(b"garbage", 1) is None
    assert logs.parse(b"not-a-time stdout F x", 1) is None


@settings(deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=30)
    ),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_any_chopping_gives_the_same_lines(texts, sizes):
    data = b"".join(raw(text) for text in texts)
    assembler, got, at, turn = logs.Assembler(1), [], 0, 0
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
    assembler = logs.Assembler(1)
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
        return [line.line async for line in logs.Reader(folder, inotify).read(**options)]
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
    position = logs._Position(tmp_path)
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


def test_rotation_and_pruning(tmp_path):
    limits = LogConfig(max_size=1000, max_files=3)
    line = "x" * 100
    for number in range(40):
        write(tmp_path, "000001.log", f"{number} {line}")
        logs.rotate(tmp_path, tmp_path / "bundle", 1, limits)
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert total <= 3 * 1200
    kept = [line.line.split()[0] for line in logs.last_lines(tmp_path, 1000)]
    assert kept == [str(n) for n in range(40 - len(kept), 40)], "the oldest go first"


def test_a_crash_loop_does_not_leave_thousands_of_files(tmp_path):
    for run in range(1, 300):
        write(tmp_path, f"{run:06d}.log", "hi")
    logs.prune(tmp_path, LogConfig())
    assert len(list(tmp_path.iterdir())) <= logs.FILES_MAX


async def test_without_follow_reading_ends_however_fast_the_container_prints(tmp_path):
    now = datetime.now(UTC)
    early = (now - timedelta(seconds=1)).isoformat().encode()
    late = (now + timedelta(seconds=30)).isoformat().encode()
    current = tmp_path / "000001.log"
    current.write_bytes(early + b" stdout F before\n")
    inotify, got = Inotify(), []
    reader = logs.Reader(tmp_path, inotify)
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
        reading = logs.Reader(tmp_path, inotify).read(
            tail=None, since=None, follow=True, over=lambda: False
        )
        async with asyncio.timeout(5):
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
    st.integers(0, 30),
)
def test_the_end_read_backwards_is_the_end_of_the_whole(parts, count):
    data = b"".join(
        raw(f"{i}-" + "x" * size, stream=stream, tag=tag)
        for i, (stream, tag, size) in enumerate(parts)
    )
    whole = logs.Assembler(1)
    expected = list(whole.feed(data))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as file:
        patch.setattr(logs, "CHUNK", 100)
        file.write(data)
        file.flush()
        lines, rest, size = logs.end_lines(file.fileno(), count, 1)
    assert size == len(data)
    assert lines == expected[len(expected) - len(lines) :]
    assert len(lines) >= min(count, len(expected))
    assert list(rest.flush()) == list(whole.flush())


def test_a_short_tail_reads_only_the_end_of_a_large_file(tmp_path, monkeypatch):
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: reads.append(n) or pread(fd, n, at))
    (tmp_path / "000001.log").write_bytes(raw("x" * 100) * 20_000 + raw("last"))
    lines = logs.last_lines(tmp_path, 2)
    assert [line.line for line in lines] == ["x" * 100, "last"]
    assert sum(reads) <= logs.CHUNK
