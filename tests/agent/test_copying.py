"""Archives between containers and who asks: what hangs ends, and roots are lent meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import SimpleNamespace

import pytest

from agent import copying, piping
from agent.copying import Copying
from agent.errors import Later, Refusal
from agent.runtime import exits

LONG = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(copying, "SILENCE", 0.2)
    monkeypatch.setattr(piping, "SILENCE", 0.2)


class Child:
    """A process that says what it is given, and takes nothing where it ``hangs``."""

    def __init__(self, said=b"", *, ended=False, hangs=False, code=0):
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(said)
        if ended:
            self.stdout.feed_eof()
        self.stdin = self
        self.hangs = hangs
        self.code = code
        self.closed = False

    def write(self, piece):
        pass

    async def drain(self):
        if self.hangs:
            await asyncio.Event().wait()

    def close(self):
        self.closed = True

    async def wait(self):
        return self.code


class Response:
    """Who asked; a stalled one takes nothing."""

    def __init__(self, *, stalls=False):
        self.stalls = stalls
        self.got = b""

    async def write(self, piece):
        if self.stalls:
            await asyncio.Event().wait()
        self.got += piece


@pytest.mark.parametrize(
    ("child", "stalls", "whole"),
    [
        ({"ended": True}, False, True),
        ({"ended": True, "code": 1}, False, False),
        ({}, False, False),  # no more comes, and it does not end
        ({"ended": True}, True, False),
    ],
)
async def test_an_archive_is_whole_or_cut(child, stalls, whole):
    response = Response(stalls=stalls)
    async with asyncio.timeout(LONG):
        assert await piping.passed_on(Child(b"archive", **child), response) is whole
    assert response.got == (b"" if stalls else b"archive")


def sending(*pieces):
    """Return the request of who sends these, and then no end unless there is an empty one."""
    stream = asyncio.StreamReader()
    for piece in pieces:
        stream.feed_data(piece)
    if pieces[-1] == b"":
        stream.feed_eof()

    async def readany():
        return await stream.read(1 << 16)

    return SimpleNamespace(content=SimpleNamespace(readany=readany), query={"path": "/x"})


def with_child(child):
    found = Copying(None, None, None)

    @contextlib.asynccontextmanager
    async def started(_record, _asked):
        yield child

    found._child = started
    return found


@pytest.mark.parametrize(
    ("child", "pieces", "says"),
    [
        ({"hangs": True}, (b"a", b""), "took nothing"),  # its pipe is full for ever
        ({}, (b"a", b""), "took nothing"),  # all is written, and it does not say what came of it
        ({}, (b"a",), "nothing of the archive came"),
        ({"ended": True}, (b"a", b""), "ended before its work"),
    ],
)
async def test_what_hangs_while_it_is_written_ends_in_words(child, pieces, says):
    async with asyncio.timeout(LONG):
        with pytest.raises(Later, match=says):
            await with_child(Child(**child)).write(None, sending(*pieces))


async def test_what_was_written_is_told():
    said = b'{"files": 1, "bytes": 2, "left_out": 0}\n'
    done = await with_child(Child(said)).write(None, sending(b"a", b""))
    assert (done.files, done.bytes) == (1, 2)


class Lender:
    """The images: what is lent, and what descriptors are open."""

    def __init__(self, fault=None):
        self.lent = []
        self.given = []
        self.fault = fault

    async def borrow(self, task, _digest):
        if self.fault:
            raise self.fault
        self.lent.append(task)
        self.given.append(os.open("/", os.O_PATH))
        return self.given[-1], "/point"

    async def returned(self, task):
        self.lent.remove(task)

    async def present(self, *_):
        return []

    def slot_of(self, _):
        return "web-1"


def record(process):
    image = SimpleNamespace(digest="sha256:0")
    return SimpleNamespace(id="t1", process=process, image=image, erased=False, assignment=None)


@pytest.fixture
def lender(monkeypatch):
    found = Lender()
    found.started = []

    @contextlib.asynccontextmanager
    async def started(_self, asked, fd):
        os.close(fd)
        found.started.append((sorted(asked), list(found.lent)))
        yield None

    monkeypatch.setattr(Copying, "_started", started)
    return found


@pytest.mark.parametrize(
    ("runs", "asked"), [(True, ["namespace"]), (False, ["mounts", "point", "root"])]
)
async def test_the_root_is_lent_while_the_child_is_in_it(lender, runs, asked):
    process = exits.identify(os.getpid()) if runs else None
    before = len(os.listdir("/proc/self/fd"))
    async with Copying(lender, lender, lender)._child(record(process), {}):
        assert lender.started == [(asked, ["t1"])]
    assert lender.lent == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("runs", [True, False])
async def test_what_is_not_lent_leaves_nothing_open(lender, runs):
    lender.fault = Refusal("gone")
    process = exits.identify(os.getpid()) if runs else None
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refusal, match="gone"):
        async with Copying(lender, lender, lender)._child(record(process), {}):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
