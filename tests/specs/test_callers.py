"""Connections to an API: those that ask nothing make room, those that ask are served."""

from __future__ import annotations

import asyncio

import pytest

from specs.kit import callers as module
from specs.kit.callers import BodyRefused, Callers, Encrypted, answering, read_body

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


class Body:
    """A request of one connection whose body comes in pieces, each after so many seconds."""

    content_length = None

    def __init__(self, protocol, *pieces):
        self.headers = {}
        self.protocol, self.content, self._pieces = protocol, self, list(pieces)

    async def readany(self):
        if not self._pieces:
            return b""
        after, data = self._pieces.pop(0)
        await asyncio.sleep(after)
        return data


def states(door, *wires):
    """Bring connections of the door into the states of a request, oldest first."""
    opened, tasks = [], []
    for state in wires:
        wire = door.connect(*([] if state == "silent" else [HEAD]))
        protocol = door.made[-1]
        if state in ("idle", "again"):
            with answering(protocol):
                pass
        if state in ("answering", "again", "sending"):
            kept = answering(protocol)
            kept.__enter__()
            tasks.append(kept)
        if state == "sending":
            kept = module._awaited(protocol)
            kept.__enter__()
            tasks.append(kept)
        opened.append(wire)
    return opened, tasks


@pytest.mark.parametrize(
    ("there", "closed"),
    [
        (("answering", "idle", "answering"), 1),
        (("answering", "sending", "answering"), 1),
        (("sending", "idle", "answering"), 1),
        (("sending", "idle", "silent"), 2),
        (("idle", "idle", "answering"), 0),
        (("sending", "sending", "answering"), 0),
        (("again", "answering", "again"), None),
    ],
)
async def test_who_keeps_us_waiting_makes_room_and_what_is_answered_is_not_broken_off(
    door, there, closed
):
    wires, kept = states(door, *there)
    late = door.connect(HEAD)
    await asyncio.sleep(0)
    assert [wire.closed for wire in wires] == [number == closed for number in range(3)]
    assert late.closed is (closed is None)
    assert len(door) == 3
    for one in reversed(kept):
        one.__exit__(None, None, None)


async def test_a_thousand_that_asked_once_and_stay_do_not_keep_one_out(door):
    for _ in range(1000):
        states(door, "idle")
        assert len(door) <= 3
    assert not door.connect(HEAD).closed


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([(1, b"all")], None),
        ([(29, b"late")], None),
        ([(31, b"never")], 408),
        ([(20, b"."), (20, b".")], 408),  # in drops
        ([(20, b"x" * 20_000), (20, b".")], None),  # slow, and as much as is asked for
        ([(1, b".")] * 40, 408),
        ([(1, b"x" * 2000)] * 400, None),
        ([(1, b"x" * 2_000_000)], 413),
    ],
)
async def test_a_body_has_to_come_and_not_in_drops(door, pieces, status):
    door.connect(HEAD)
    body = Body(door.made[-1], *pieces)
    if status is None:
        whole = b"".join(data for _, data in pieces)
        assert await read_body(body, 1_000_000) == whole
        return
    begun = asyncio.get_running_loop().time()
    with pytest.raises(BodyRefused) as refused:
        await read_body(body, 1_000_000)
    assert refused.value.status == status
    assert asyncio.get_running_loop().time() - begun < 40


class Slow:
    """A TLS context that nobody answers: the other side says nothing of its keys."""


async def test_before_keys_are_agreed_on_a_connection_is_one_that_never_asked(door, monkeypatch):
    """Law: half-open encrypted connections keep nobody out and last seconds."""
    loop = asyncio.get_running_loop()

    async def never(transport, protocol, context, *, server_side, ssl_handshake_timeout):
        await asyncio.sleep(ssl_handshake_timeout)
        raise ConnectionAbortedError("SSL handshake is taking longer")

    monkeypatch.setattr(loop, "start_tls", never)
    monkeypatch.setattr(Wire, "pause_reading", lambda self: None)
    wires = []
    for _ in range(10):
        wires.append(Wire(Encrypted(door, Slow())))
        wires[-1].protocol.connection_made(wires[-1])
        await asyncio.sleep(0)
        assert len(door) <= 3
    assert sum(not wire.closed for wire in wires) == 3
    assert not door.connect(HEAD).closed
    await asyncio.sleep(door.head + 1)
    assert all(wire.closed for wire in wires)
    assert len(door) == 1
