"""Connections to an API: those that ask nothing make room, those that ask are served."""

from __future__ import annotations

import asyncio

import pytest

from specs.kit.callers import Callers

pytestmark = pytest.mark.looptime

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Inner(asyncio.Protocol):
    """A server's own protocol: notes what reaches it."""

    def __init__(self):
        self.made = self.lost = False
        self.data = b""

    def connection_made(self, transport):
        self.made = True

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.lost = True


class Wire(asyncio.Transport):
    def __init__(self, protocol):
        super().__init__()
        self.protocol, self.closed, self.written = protocol, False, b""

    def write(self, data):
        self.written += data

    def close(self):
        self.abort()

    def abort(self):
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


@pytest.fixture
def door():
    made: list[Inner] = []

    def factory():
        made.append(Inner())
        return made[-1]

    callers = Callers(factory, most=3, head=10.0)

    def connect(*data):
        wire = Wire(callers())
        wire.protocol.connection_made(wire)
        for piece in data:
            wire.protocol.data_received(piece)
        return wire

    callers.connect, callers.made = connect, made
    return callers


async def test_the_oldest_that_asked_nothing_makes_room(door):
    asked = door.connect(HEAD)
    first, second = door.connect(), door.connect(HEAD[:20])
    late = door.connect(HEAD)
    await asyncio.sleep(0)
    assert [wire.closed for wire in (asked, first, second, late)] == [False, True, False, False]
    assert door.made[1].lost
    assert len(door) == 3


async def test_where_all_have_asked_the_new_one_is_told(door):
    asked = [door.connect(HEAD) for _ in range(3)]
    late = door.connect(HEAD)
    await asyncio.sleep(0)
    assert late.written.startswith(b"HTTP/1.1 503 ")
    assert late.closed
    assert len(door.made) == 3, "nothing was made for it"
    asked[0].abort()
    await asyncio.sleep(0)
    assert not door.connect(HEAD).closed


@pytest.mark.parametrize(
    ("pieces", "closed"),
    [
        ((), True),
        ((HEAD[:-1],), True),
        (tuple(HEAD[i : i + 1] for i in range(len(HEAD) - 1)), True),
        (tuple(HEAD[i : i + 1] for i in range(len(HEAD))), False),
        ((HEAD[:-3], HEAD[-3:]), False),
        ((HEAD + b"more",), False),
    ],
)
async def test_a_head_has_ten_seconds(door, pieces, closed):
    wire = door.connect(*pieces)
    await asyncio.sleep(9.9)
    assert not wire.closed
    await asyncio.sleep(0.2)
    assert wire.closed is closed
    assert door.made[0].data == b"".join(pieces)
    assert len(door) == (not closed)


async def test_a_thousand_silent_ones_do_not_keep_one_out(door):
    wires = []
    for _ in range(1000):
        wires.append(door.connect())
        assert len(door) <= 3
    assert not door.connect(HEAD).closed
    await asyncio.sleep(0)
    assert sum(not wire.closed for wire in wires) == 2
