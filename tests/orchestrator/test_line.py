"""The controller's own HTTP connections to agents: read however they are cut, or refused."""

from __future__ import annotations

import asyncio
import itertools

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dispatch.direct import Direct
from orchestrator.dispatch.line import MAX_HEAD, AgentLine, Body, NoHttp, request

OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nLast: 1\r\n\r\n"


class Socket(asyncio.Transport):
    """What was written; pausing and closing are noted."""

    def __init__(self, line: AgentLine) -> None:
        super().__init__()
        self.line = line
        self.written = b""
        self.paused = self.closed = False

    def write(self, data) -> None:
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.line.connection_lost(None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def a_line() -> tuple[AgentLine, Socket]:
    line = AgentLine()
    socket = Socket(line)
    line.connection_made(socket)
    return line, socket


async def answered(pieces: list[bytes], *, end: bool = False) -> tuple[int, bytes, AgentLine]:
    line, _ = a_line()

    async def say() -> None:
        for piece in pieces:
            line.data_received(piece)
            await asyncio.sleep(0)
        if end:
            line.eof_received()

    saying = asyncio.create_task(say())
    head = await line.ask(b"GET / HTTP/1.1\r\n\r\n")
    data = await Body(line, head).read(100)
    await saying
    return head.status, data, line


ANSWERS = {
    "with a length": (JSON, False, True),
    "in chunks": (CHUNKS, False, True),
    "after a word in between": (b"HTTP/1.1 100 Continue\r\n\r\n" + JSON, False, True),
    "until the end": (OK + b"\r\nhello", True, False),
    "and closes": (JSON.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), False, False),
}


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 150), max_size=8))
@settings(deadline=None)
def test_an_answer_is_read_however_it_is_cut(what, cuts):
    data, end, again = ANSWERS[what]
    places = [0, *sorted({c for c in cuts if c < len(data)}), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(places) if a != b]
    status, body, line = asyncio.run(answered(pieces, end=end))
    assert (status, body) == (200, b"hello")
    assert line.usable == again


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 ok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"x" * (MAX_HEAD + 4),
        OK + b"Content-Length: many\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nlong\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n",
    ],
)
async def test_what_is_no_http_is_refused(data):
    with pytest.raises(NoHttp, match="no HTTP"):
        await answered([data])


@pytest.mark.parametrize("data", [b"", JSON[:20], JSON[:-1], CHUNKS[:-10]])
async def test_an_answer_that_breaks_off_is_told(data):
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await answered([data] if data else [], end=True)


async def test_of_an_endless_answer_the_beginning_is_read_and_nothing_more():
    status, data, line = await answered([OK + b"Content-Length: 999999\r\n\r\n" + b"x" * 200])
    assert (status, data) == (200, b"x" * 100)
    assert not line.usable


async def test_who_sends_faster_than_is_read_is_held_up():
    line, socket = a_line()
    asking = asyncio.create_task(line.ask(b""))
    await asyncio.sleep(0)
    line.data_received(OK + b"Content-Length: 9000000\r\n\r\n")
    body = Body(line, await asking)
    line.data_received(b"x" * (2 << 20))
    assert socket.paused
    assert len(await body.readany()) == 2 << 20
    reading = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    assert not socket.paused
    line.data_received(b"y")
    assert await reading == b"y"


def test_a_request_in_bytes():
    assert request("PUT", "/v1/x", {"A": "b"}, b"{}") == (
        b"PUT /v1/x HTTP/1.1\r\nHost: agent\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert request("GET", "/", {}, None) == b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n"


# Which connection is asked.

KEPT, ENDS = JSON, JSON.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")


@pytest.mark.parametrize(
    ("first", "then", "dials", "fails"),
    [
        (KEPT, "answers", 1, False),
        (KEPT, "ends before it is asked", 2, False),
        (KEPT, "ends when it is asked", 2, False),  # it was idle for too long at that moment
        (KEPT, "ends in its answer", 1, True),  # whatever it did, it began to answer
        (ENDS, "answers", 2, False),
    ],
)
async def test_the_kept_connection_is_asked_and_a_new_one_where_it_had_ended(
    tmp_path, first, then, dials, fails
):
    path, served = str(tmp_path / "s"), []

    async def serve(reader, writer):
        mine = len(served)
        served.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            await writer.drain()
            if mine == 0 and then == "ends before it is asked":
                return
            await reader.readuntil(b"\r\n\r\n")
            if mine == 0 and then == "ends when it is asked":
                return
            writer.write(KEPT[:30] if then == "ends in its answer" else KEPT)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with (
        await asyncio.start_unix_server(serve, path),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as http,
    ):
        direct = Direct(http)
        assert await direct.exchange("GET", "/", {}, None) == (200, b"hello")
        while then == "ends before it is asked" and direct._line and direct._line.usable:
            await asyncio.sleep(0.001)
        asked = direct.exchange("GET", "/", {}, None)
        if fails:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await asked
        else:
            assert await asked == (200, b"hello")
        direct.close()
    assert len(served) == dials
