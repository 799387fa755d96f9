"""Stands in for the agent where a test is about the way to it: greets, and leaves."""

from __future__ import annotations

import asyncio
import os
import subprocess

from aiohttp import web

from specs.node import NodeFacts
from specs.wire import Hello

SOCKET = "/run/corral/agent.sock"


def greeting() -> bytes:
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    facts = NodeFacts(hostname=os.uname().nodename, addresses=tuple(addresses.stdout.split()))
    return Hello(facts=facts).encode()


GREETING = greeting()


async def hello(_: web.Request) -> web.Response:
    return web.Response(body=GREETING, content_type="application/json")


async def leave(_: web.Request) -> web.Response:
    subprocess.Popen([os.environ["CORRAL_UNINSTALL"], "--detached"])
    return web.json_response({})


async def stream(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"{}\n")
        await asyncio.sleep(0.5)


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_bytes(message.data)
    return socket


async def main() -> None:
    os.makedirs("/run/corral", exist_ok=True)
    app = web.Application()
    app.add_routes(
        [
            web.get("/v1/hello", hello),
            web.get("/v1/reports", stream),
            web.post("/v1/leave", leave),
            web.get("/echo", echo),
            web.get("/blob", lambda r: web.Response(body=bytes(int(r.query["size"])))),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, SOCKET).start()
    subprocess.run(["chgrp", "corral", SOCKET], check=True)
    os.chmod(SOCKET, 0o660)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
