"""The exec channel through the controller: whoever ends first, the exit code arrives, once."""

from __future__ import annotations

import asyncio
import json
from itertools import product

import aiohttp
import pytest
from aiohttp import web

from orchestrator.dispatch.agent import AgentClient
from orchestrator.errors import Unavailable

pytestmark = pytest.mark.asyncio

CHUNK = b"\0" + b"x" * 60_000


async def serve(handler, path):
    app = web.Application()
    app.router.add_get("/v1/tasks/{id}/exec", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    return runner


class Relay:
    """A client, a controller that only relays, and an agent that behaves as ``agent`` says."""

    def __init__(self, folder, agent):
        self.folder, self.agent = folder, agent
        self.raised = None
        self.closed = asyncio.Event()

    async def __aenter__(self):
        self.runners = [await serve(self.at_agent, self.folder / "agent")]
        self.to_agent = self.session("agent")
        self.runners.append(await serve(self.at_controller, self.folder / "controller"))
        self.http = self.session("controller")
        return self

    def session(self, name):
        connector = aiohttp.UnixConnector(str(self.folder / name))
        return aiohttp.ClientSession("http://x", connector=connector)

    async def __aexit__(self, *_):
        for one in (self.http, self.to_agent):
            await one.close()
        for runner in self.runners:
            await runner.cleanup()

    async def at_agent(self, request):
        websocket = web.WebSocketResponse(timeout=2.0)
        await websocket.prepare(request)
        await self.agent(websocket)
        await websocket.close()
        self.closed.set()
        return websocket

    async def at_controller(self, request):
        websocket = web.WebSocketResponse(timeout=2.0)
        await websocket.prepare(request)
        try:
            await AgentClient(self.to_agent, "n1").exec("t1", websocket)
        except BaseException as error:
            self.raised = error
            raise
        await websocket.close()
        return websocket


async def talk(http, chunks):
    """Send that many chunks of input and return all texts that came."""
    said = []
    async with http.ws_connect("/v1/tasks/t1/exec") as websocket:

        async def feed():
            try:
                for _ in range(chunks):
                    await websocket.send_bytes(CHUNK)
            except ConnectionError:
                pass

        feeding = asyncio.create_task(feed())
        async for message in websocket:
            said.append(message.data)
            if message.type is aiohttp.WSMsgType.TEXT and "exit" in message.data:
                break
        feeding.cancel()
    return said


async def at_once(websocket):
    await websocket.send_json({"exit": 5})


async def after_some_input(websocket):
    await websocket.receive()
    await websocket.send_json({"exit": 5})


async def while_input_is_stuck(websocket):
    await asyncio.sleep(0.1)
    await websocket.send_bytes(b"\1word")
    await websocket.send_json({"exit": 5})


async def after_all_input(websocket):
    for _ in range(50):
        await websocket.receive()
    await websocket.send_json({"exit": 5})


@pytest.mark.parametrize("chunks", [0, 1, 50])
@pytest.mark.parametrize("agent", [at_once, after_some_input, while_input_is_stuck])
async def test_the_exit_code_arrives_whatever_input_is_under_way(tmp_path, agent, chunks):
    chunks = max(chunks, 1) if agent is after_some_input else chunks
    for _ in range(5):
        async with asyncio.timeout(300), Relay(tmp_path, agent) as relay:
            said = await talk(relay.http, chunks)
            assert json.loads(said[-1]) == {"exit": 5}
            assert relay.raised is None
        for name in ("agent", "controller"):
            (tmp_path / name).unlink(missing_ok=True)


async def test_all_input_arrives(tmp_path):
    async with asyncio.timeout(300), Relay(tmp_path, after_all_input) as relay:
        assert json.loads((await talk(relay.http, 50))[-1]) == {"exit": 5}


async def test_a_client_that_leaves_ends_the_agents_side(tmp_path):
    async def until_gone(websocket):
        async for _ in websocket:
            pass

    async with asyncio.timeout(300), Relay(tmp_path, until_gone) as relay:
        async with relay.http.ws_connect("/v1/tasks/t1/exec") as websocket:
            await websocket.send_bytes(CHUNK)
        await relay.closed.wait()


async def test_an_agent_that_breaks_off_says_no_exit_code(tmp_path):
    async def break_off(websocket):
        websocket._req.transport.abort()

    async with asyncio.timeout(300), Relay(tmp_path, break_off) as relay:
        assert not any("exit" in str(text) for text in await talk(relay.http, 50))


@pytest.mark.parametrize(
    ("verb", "moment"),
    [
        *product(["exec", "attach", "hello", "leave"], ["before"]),
        *product(["exec", "attach", "leave"], ["while connecting"]),  # hello has its own way
    ],
)
async def test_a_session_that_is_taken_down_is_a_node_out_of_reach(tmp_path, verb, moment):
    async with Relay(tmp_path, at_once) as relay:
        http = relay.to_agent
        connect, found = http.connector.connect, []

        async def closes(*args, **kwargs):
            found.append(await connect(*args, **kwargs))
            await http.close()
            return found[-1]

        if moment == "before":
            await http.close()
        else:
            http.connector.connect = closes
        agent = AgentClient(http, "n1")
        words = ("t1", None) if verb in ("exec", "attach") else ()
        with pytest.raises(Unavailable, match="node n1 is not reached: "):
            await getattr(agent, verb)(*words)
        for connection in found:
            connection.close()


async def test_a_fault_of_our_own_is_not_taken_for_a_lost_node(tmp_path):
    async with Relay(tmp_path, at_once) as relay:
        with pytest.raises(AssertionError, match="ours"):
            async with AgentClient(relay.to_agent, "n1")._request("GET", "/"):
                raise AssertionError("ours")
