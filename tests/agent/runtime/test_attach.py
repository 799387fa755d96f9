"""Whoever listens to a container's first process may be slow; its end is told all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading

import pytest

from agent.runtime import exits
from agent.runtime.attach import HELD, Hearing, MainProcess
from agent.runtime.failure import RuntimeFailure

PIECES = 400
PIECE = b"\2" + b"x" * 8191  # as conmon sends what came on stdout
LIMIT = 300.0


@pytest.fixture
def door(tmp_path):
    """Conmon's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "attach"))
        listening.listen(0)
        yield listening


@pytest.fixture
def process():
    """The container's process: one that lives until it is killed."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


async def until(check):
    async with asyncio.timeout(LIMIT):
        while not check():
            await asyncio.sleep(0.01)


async def test_what_is_left_at_the_end_is_taken_from_conmon_however_slow_the_listener(
    tmp_path, door, process
):
    sent = []

    def conmon():
        connection, _ = door.accept()
        with connection:
            for _ in range(PIECES):
                connection.send(PIECE)  # waits for who listens
                sent.append(None)

    speaking = threading.Thread(target=conmon, daemon=True)
    speaking.start()
    connection = MainProcess(tmp_path)
    hearing = Hearing(connection, exits.identify(process.pid))
    taking = asyncio.create_task(hearing.run())
    try:
        await until(lambda: len(sent) * 8191 > HELD)
        before = -1
        while before != len(sent):  # it stands still: the listener takes nothing
            before = len(sent)
            await asyncio.sleep(0.5)
        assert len(sent) < PIECES
        process.kill()
        await until(lambda: len(sent) == PIECES)
        heard = b""
        async with asyncio.timeout(LIMIT):
            while True:
                channel, data = await hearing.next()
                if not data:
                    break
                assert channel == 1
                heard += data
        assert len(heard) == PIECES * 8191
    finally:
        taking.cancel()
        connection.close()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        speaking.join(LIMIT)


async def test_a_conmon_that_takes_nobody_any_more_is_said_at_once(tmp_path, door):
    others = []
    with contextlib.suppress(BlockingIOError):
        while True:
            one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            one.setblocking(False)
            others.append(one)
            one.connect(str(tmp_path / "attach"))
    with pytest.raises(RuntimeFailure, match="cannot be followed"):
        MainProcess(tmp_path)
    for one in others:
        one.close()
