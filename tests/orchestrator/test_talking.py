"""A session with an agent that ends: nothing that is read or sent of it waits on.

The agent stays as it is and its connections stay open: so it is with a line that is cut, and for a
moment with an agent that was killed, of whose connections one is seen to end before another.
"""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest
from aiohttp import web

from orchestrator.contracts import LogQuery
from orchestrator.dispatch.talking import talking
from orchestrator.errors import Unavailable
from specs.wire import BuildImage

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def agent(folder):
    """Serve an agent that answers with one line, or nothing, and then says no more."""
    silent, reached = asyncio.Event(), asyncio.Event()

    async def begins(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'{"line": "STEP 1"}\n')
        reached.set()
        await silent.wait()
        return answer

    async def says_nothing(request):
        reached.set()
        await silent.wait()
        return web.Response()

    async def talks(request):
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        reached.set()
        await silent.wait()
        return websocket

    app = web.Application()
    app.router.add_post("/v1/builds", begins)
    app.router.add_get("/v1/tasks/t1/logs", says_nothing)
    app.router.add_get("/v1/volumes/data/archive", begins)
    app.router.add_put("/v1/volumes/data/archive", says_nothing)
    app.router.add_get("/v1/tasks/t1/exec", talks)
    app.router.add_get("/v1/reports", begins)
    app.router.add_get("/v1/hello", says_nothing)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "agent")).start()
    try:
        yield reached
    finally:
        silent.set()
        await runner.cleanup()


async def build(client):
    request = BuildImage.model_validate({"tag": "app", "build": {"context": "/"}})
    async for _ in client.build(request):
        pass


async def logs(client):
    async for _ in client.logs("t1", LogQuery(follow=True)):
        pass


async def read(client):
    async for _ in client.read_volume("data"):
        pass


async def write(client):
    async def pieces():
        yield b"x" * 4096

    await client.write_volume("data", {}, pieces())


async def reports(client):
    async for _ in client.reports(silence=600):
        pass


async def hello(client):
    await client.hello()


async def execute(client):
    class Browser:
        """Who is relayed: says nothing, and hears what comes."""

        closed = False

        async def receive(self):
            await asyncio.Event().wait()

        def __aiter__(self):
            return self

        async def __anext__(self):
            await asyncio.Event().wait()

    await client.exec("t1", Browser())


@pytest.mark.parametrize("does", [build, logs, read, write, reports, hello, execute])
async def test_what_is_under_way_ends_with_the_session(tmp_path, does):
    async with agent(tmp_path) as reached:
        connector = aiohttp.UnixConnector(path=str(tmp_path / "agent"))
        async with talking(connector, "n1") as client:
            going = asyncio.create_task(does(client))
            await asyncio.wait_for(reached.wait(), 30)
            await asyncio.sleep(0)
        await connector.close()
        said = ""
        try:
            await asyncio.wait_for(going, 30)
        except Unavailable as error:
            said = error.detail
        # The channel of a terminal just ends; who relays it says how (test_exec_relay.py).
        assert said.startswith("node n1 is not reached") or does is execute
        assert "no answer in time" not in said
