"""The first process of a container, heard and spoken to through conmon's attach socket.

conmon passes on what the process prints (a byte says which stream, then the bytes) and writes what
it gets to the process's input. It waits for a listener that is slow, and so does the container, as
in Docker. The socket ends when conmon does: then all there was to hear was heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from agent.runtime.failure import RuntimeFailure

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 64 << 10  # conmon sends 8 KiB at most
PIECE = 8 << 10  # of input; conmon takes 32 KiB of a message
_CHANNELS = {2: 1, 3: 2}  # conmon's numbers -> ours: 1 stdout, 2 stderr


class MainProcess:
    """A connection to conmon; ``close`` it."""

    def __init__(self, directory: Path) -> None:
        """Connect. Raises RuntimeFailure."""
        self._ctl = directory / "ctl"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
        self._socket.setblocking(False)  # noqa: FBT003 - its signature

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
