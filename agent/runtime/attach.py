"""The first process of a container, heard and spoken to through conmon's attach socket.

conmon passes on what the process prints (a byte says which stream, then the bytes) and writes what
it gets to the process's input. It waits for a listener that is slow, and so does the container, as
in Docker. The socket ends when conmon does: then all there was to hear was heard. A conmon that
waits cannot tell how the process ended, so ``Hearing`` takes what is left when that has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from agent.runtime import exits
from agent.runtime.failure import RuntimeFailure
from agent.runtime.spawner import readable

if TYPE_CHECKING:
    from pathlib import Path

    from agent.vocabulary import Process

LARGEST = 64 << 10  # conmon sends 8 KiB at most
PIECE = 8 << 10  # of input; conmon takes 32 KiB of a message
HELD = 256 << 10  # bytes taken ahead of who listens while the process lives
LEFT = 16 << 20  # and when it has ended: no more than was in a pipe and in sockets, unless it left
# others behind that print on
_CHANNELS = {2: 1, 3: 2}  # conmon's numbers -> ours: 1 stdout, 2 stderr


class MainProcess:
    """A connection to conmon; ``close`` it."""

    def __init__(self, directory: Path) -> None:
        """Connect. Raises RuntimeFailure."""
        self._ctl = directory / "ctl"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Of a conmon that takes nobody any more, the queue is full one day: that is an answer too.
        self._socket.setblocking(False)  # noqa: FBT003 - its signature
        try:
            here = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # A socket's path has 107 bytes: through the directory, wherever it is.
                self._socket.connect(f"/proc/self/fd/{here}/attach")
            finally:
                os.close(here)
        except OSError as error:
            self._socket.close()
            raise RuntimeFailure(f"its output cannot be followed: {error.strerror}") from error

    async def read(self) -> tuple[int, bytes]:
        """Return (channel, bytes) that it printed; no bytes = it has ended, all is said."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._socket, LARGEST)
            except OSError:
                data = b""
            if not data:
                return 0, b""
            if data[0] in _CHANNELS and len(data) > 1:
                return _CHANNELS[data[0]], data[1:]

    async def write(self, data: bytes) -> None:
        """Pass input on; who does not read any more is not told."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            for start in range(0, len(data), PIECE):
                await loop.sock_sendall(self._socket, data[start : start + PIECE])

    def end_input(self) -> None:
        """Say that no more input comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size."""
        with contextlib.suppress(OSError):
            ctl = os.open(self._ctl, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(ctl, f"1 {rows & 0xFFFF} {columns & 0xFFFF}\n".encode())
            finally:
                os.close(ctl)

    def close(self) -> None:
        """Let go of it; the process runs on."""
        self._socket.close()


class Hearing:
    """What a process prints, for one listener, in order; ``run`` takes it from the connection."""

    def __init__(self, connection: MainProcess, process: Process | None) -> None:
        self._connection = connection
        self._process = process
        self._heard: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._ended = False
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Take what comes, no faster than the listener while the process lives."""
        async with asyncio.TaskGroup() as group:
            end = group.create_task(self._until_ended())
            data = b"."
            while data:
                while self._bytes > (LEFT if self._ended else HELD):
                    await self._change()
                channel, data = await self._connection.read()
                self._heard.append((channel, data))
                self._bytes += len(data)
                self._moved.set()
            end.cancel()

    async def next(self) -> tuple[int, bytes]:
        """Return (channel, bytes); no bytes = it has ended, all is said."""
        while not self._heard:
            await self._change()
        channel, data = self._heard.popleft()
        self._bytes -= len(data)
        self._moved.set()
        return channel, data

    async def _change(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _until_ended(self) -> None:
        pidfd = exits.open_process(self._process) if self._process is not None else None
        if pidfd is not None:
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
        self._ended = True
        self._moved.set()
