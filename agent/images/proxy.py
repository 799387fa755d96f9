"""Single blobs out of any image skopeo can open, through its image proxy.

``skopeo experimental-image-proxy`` keeps one authenticated connection to a registry (or to
buildah's storage) and hands over blobs through pipes, so that only what is missing is moved
and every byte can be counted and stopped. Called by agent.images.pull and build. The bytes
are not trusted: the store hashes them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
from typing import TYPE_CHECKING, Any, Final

from agent.errors import Later
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from agent.images.manifest import Blob

STALL_SECONDS: Final = 60.0  # without an answer or a new byte
_PACKET: Final = 32 * 1024
_CHUNK: Final = 1 << 20
_SESSIONS: Final = 3  # blobs at once, as Docker does


class ProxyError(Exception):
    """skopeo's words about what it could not do."""


class _Session:
    """One proxy process; its calls block and run in a thread, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        self.process = process
        self._socket = sock
        self._image = 0

    def open(self, image: str) -> None:
        self._call("Initialize")
        self._image = int(self._call("OpenImage", image)[0])

    def get(self, blob: Blob, path: Path) -> None:
        """Write a blob to ``path``; raises ProxyError, Later when nothing comes, OSError."""
        _, pipe = self._call("GetBlob", self._image, blob.digest, blob.size)
        if pipe is None:
            raise ProxyError("skopeo sent no data")
        fd, number = pipe
        try:
            # The pipe ends only when this is asked; its answer comes after the last byte.
            self._send("FinishPipe", number)
            _copy(fd, path, blob)
        finally:
            os.close(fd)
        self._receive()

    def close(self) -> None:
        self._socket.close()

    def _call(self, method: str, *arguments: Any) -> tuple[Any, tuple[int, int] | None]:
        self._send(method, *arguments)
        return self._receive()

    def _send(self, method: str, *arguments: Any) -> None:
        request = json.dumps({"method": method, "args": list(arguments)}).encode()
        try:
            self._socket.send(request)
        except OSError as error:
            raise ProxyError(f"skopeo ended ({in_words(error)})") from None

    def _receive(self) -> tuple[Any, tuple[int, int] | None]:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _PACKET, 1)
        except TimeoutError:
            raise Later(f"no answer for {STALL_SECONDS:.0f} s") from None
        except OSError as error:
            raise ProxyError(f"skopeo ended ({in_words(error)})") from None
        if not data:
            raise ProxyError("skopeo ended")
        reply = json.loads(data)
        if not reply["success"]:
            for fd in fds:
                os.close(fd)
            raise ProxyError(str(reply["error"]))
        return reply["value"], (fds[0], reply["pipeid"]) if fds else None


def _copy(fd: int, path: Path, blob: Blob) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    left = blob.size
    with path.open("wb", buffering=0) as file:
        while True:
            if not poll.poll(STALL_SECONDS * 1000):
                raise Later(f"nothing came for {STALL_SECONDS:.0f} s")
            data = os.read(fd, _CHUNK)
            if not data:
                return
            left -= len(data)
            if left < 0:
                raise ProxyError(f"it sends more than the {blob.size} bytes of {blob.digest[:19]}")
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]


class ProxySource:
    """A pool of sessions on one image."""

    def __init__(
        self,
        command: list[str],
        image: str,
        environment: Mapping[str, str],
        explain: Callable[[str], Exception],
    ) -> None:
        self._command = command
        self._image = image
        self._environment = environment
        self._explain = explain
        self._free: list[_Session] = []
        self._all: list[_Session] = []
        self._slots = asyncio.Semaphore(_SESSIONS)

    async def get(self, blob: Blob, path: Path) -> None:
        """Fetch one blob into a file. Raises what ``explain`` makes of skopeo's words."""
        async with self._slots:
            session = self._free.pop() if self._free else await self._start()
            try:
                await asyncio.to_thread(session.get, blob, path)
            except ProxyError as error:
                await self._end(session)
                raise self._explain(str(error)) from None
            except OSError as error:
                await self._end(session)
                raise Later(f"cannot store an image on this node: {in_words(error)}") from None
            except BaseException:
                await self._end(session)
                raise
            self._free.append(session)

    async def close(self) -> None:
        for session in list(self._all):
            await self._end(session)

    async def _start(self) -> _Session:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(STALL_SECONDS)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", *self._command, f"--sockfd={theirs.fileno()}"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=dict(self._environment),
            )
        session = _Session(process, ours)
        self._all.append(session)
        try:
            await asyncio.to_thread(session.open, self._image)
        except ProxyError as error:
            await self._end(session)
            raise self._explain(str(error)) from None
        return session

    async def _end(self, session: _Session) -> None:
        """Kill the process, which also frees a thread that still reads from it."""
        if session in self._all:
            self._all.remove(session)
        if session.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                session.process.kill()
        session.close()
        await session.process.wait()


@contextlib.asynccontextmanager
async def opened(
    command: list[str],
    image: str,
    environment: Mapping[str, str],
    explain: Callable[[str], Exception],
    stage: Callable[[], AbstractContextManager[Path]],
) -> AsyncIterator[ProxySource]:
    """Open ``image`` (transport:reference) for as long as the block runs.

    ``stage`` gives a folder that goes afterwards, also where we are killed meanwhile: skopeo is
    killed at the end and would leave its temporary folders in /var/tmp (it does not look at
    TMPDIR).
    """
    with stage() as scratch:
        at = command.index("skopeo") + 1
        own = [*command[:at], "--tmpdir", str(scratch), *command[at:]]
        source = ProxySource(own, image, environment, explain)
        try:
            yield source
        finally:
            await source.close()
