"""Archives of paths in containers, both ways: `corral cp` at the agent.

A jailed child (agent.copyjail) does all that touches the container's files. Here it is started in
the right place, and bytes go between it and whoever asked, as fast as both can: what the other
side does not take is not read. Who leaves ends the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.errors import Later, Refusal
from agent.piping import PIECE, SILENCE, end, feed, passed_on, stuck
from agent.runtime import exits
from specs.inside import Copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from agent.tasks.effects import Images, Volumes
    from agent.tasks.holdings import Holdings
    from agent.tasks.record import Record
    from agent.vocabulary import Process

ANSWER = 30.0  # seconds for the first word of the child
ANSWER_MAX = 64 * 1024


class NoSuchPath(Exception):
    """There is nothing of that name in the container."""


class Copying:
    """Starts the child for a task's files."""

    def __init__(self, holdings: Holdings, images: Images, volumes: Volumes) -> None:
        self._holdings = holdings
        self._images = images
        self._volumes = volumes

    async def read(self, record: Record, request: web.Request) -> web.StreamResponse:
        """Answer with the archive of a path. Raises NoSuchPath, Refusal, Later."""
        asked = {"path": _path(request.query), "follow": request.query.get("follow") == "1"}
        async with self._child(record, {**asked, "write": False}) as child:
            assert child.stdout is not None
            head = await _answer(child)
            response = web.StreamResponse(
                headers={
                    "Content-Type": "application/x-tar",
                    "Corral-Directory": "1" if head.get("directory") else "0",
                }
            )
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                if await passed_on(child, response):
                    await response.write_eof()
                elif request.transport is not None:
                    # Nothing says "not whole" but a stream that is cut.
                    request.transport.abort()
        return response

    async def write(self, record: Record, request: web.Request) -> Copied:
        """Put the archive that is sent where it belongs. Raises NoSuchPath, Refusal, Later."""
        query = request.query
        asked: dict[str, Any] = {"path": _path(query), "write": True, "source": query.get("source")}
        for name in ("directory", "contents", "sync"):
            asked[name] = query.get(name) == "1"
        async with self._child(record, asked) as child:
            answer = asyncio.create_task(_answer(child, patience=None), name="copy-answer")
            feeding = asyncio.create_task(feed(child, request), name="copy-feed")
            try:
                await asyncio.wait({answer, feeding}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    feeding.result()  # raises where who sends has gone
                try:
                    async with asyncio.timeout(SILENCE):
                        return Copied.model_validate(await answer)
                except TimeoutError:
                    raise stuck() from None
            finally:
                for task in (answer, feeding):
                    task.cancel()
                await asyncio.wait({answer, feeding})

    @contextlib.asynccontextmanager
    async def _child(
        self, record: Record, asked: dict[str, Any]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start the child in the task's files; it is ended when the block is left."""
        if record.image is None or record.erased:
            raise Refusal("nothing of this task is on the node yet, or any more")
        slot = self._holdings.slot_of(record.assignment)
        # Lent also where the child goes into the namespace of what runs: that may end, and be
        # unmounted, while the child still holds its mount. Before the namespace is looked for, so
        # that it is the same mount.
        root, point = await self._images.borrow(record.id, record.image.digest)
        try:
            process = record.process
            inside = _namespace(process) if process is not None else None
            if inside is not None:
                os.close(root)
                asked, fd = asked | {"namespace": inside}, inside
            else:
                try:
                    there = await self._volumes.present(record.assignment, record.image, slot)
                except BaseException:
                    os.close(root)
                    raise
                asked, fd = asked | {"root": root, "point": point, "mounts": there}, root
            async with self._started(asked, fd) as child:
                yield child
        finally:
            await asyncio.shield(self._images.returned(record.id))

    @contextlib.asynccontextmanager
    async def _started(
        self, asked: dict[str, Any], fd: int
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start the child with a descriptor that becomes its own; end it with the block."""
        asked["parent"] = os.getpid()
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent.copyjail", json.dumps(asked)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(fd,),
                limit=PIECE,
                env={
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    "PATH": os.defpath,
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )
        finally:
            os.close(fd)
        try:
            yield child
        finally:
            await end(child)


def _namespace(process: Process) -> int | None:
    """Return the mount namespace of exactly this process; None when it has ended."""
    try:
        fd = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    # Looked at after opening: whatever has the number now is whose namespace this is.
    if exits.identify(process.pid) != process:
        os.close(fd)
        return None
    return fd


def _path(query: Mapping[str, str]) -> str:
    path = query.get("path", "")
    if "\0" in path or len(path) > 4096:
        raise Refusal("the path cannot be one of a file")
    return path if path.startswith("/") else f"/{path}"


async def _answer(
    child: asyncio.subprocess.Process, patience: float | None = ANSWER
) -> dict[str, Any]:
    """Return the child's line. Raises what it says."""
    assert child.stdout is not None
    try:
        async with asyncio.timeout(patience):
            line = await child.stdout.readuntil(b"\n")
        said = json.loads(line)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        raise Later("the process that copies ended before its work") from None
    except TimeoutError:
        raise Later(f"the container's files did not answer within {ANSWER:g} s") from None
    if "error" not in said:
        return dict(said)
    match said["kind"]:
        case "missing":
            raise NoSuchPath(said["error"])
        case "refused":
            raise Refusal(said["error"])
        case _:
            raise Later(said["error"])
