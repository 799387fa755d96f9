"""Archives of whole volumes, both ways: `corral volume backup` and `restore` at the agent.

GNU tar does the work, with owners by number, access lists, attributes and holes. It is started in
a directory that is open already and follows no link, so whatever a container makes of the volume
meanwhile, only what is in it is read. What comes is unpacked beside the volume and takes its
place when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Final

from aiohttp import web

from agent.errors import NoRoom, Refusal
from agent.piping import PIECE, SILENCE, end, feed, passed_on, stuck
from agent.tasks.record import Phase
from agent.volumes.replacing import check_unused
from specs.kit.amounts import size as amount
from specs.kit.room import ARCHIVES, measure
from specs.kit.tarends import TarEnds
from specs.objects import Restored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agent.tasks.adoption import Found
    from agent.tasks.effects import Volumes
    from agent.tasks.holdings import Holdings

_TAR: Final = (
    # It must not go on when the agent is killed and cleans up anew.
    *("setpriv", "--pdeathsig", "KILL", "tar", "--numeric-owner", "--acls", "--xattrs"),
    *("--xattrs-include=user.*", "--xattrs-include=security.capability"),
)
PACK: Final = (*_TAR, "--create", "--format=posix", "--sparse", "--one-file-system")
UNPACK: Final = (*_TAR, "--extract", "--same-owner", "--preserve-permissions")
_CHANGED: Final = 1  # tar's exit code: a file changed while it was read
_STRIDE: Final = 16 << 20  # bytes between two looks at it
_SAID: Final = 8192


class NoSuchVolume(Exception):
    """There is no volume of that name on this node."""


class Saving:
    """Starts tar for a volume of this node."""

    def __init__(self, holdings: Holdings, volumes: Volumes) -> None:
        self._holdings = holdings
        self._volumes = volumes

    async def read(self, name: str, request: web.Request) -> web.StreamResponse:
        """Answer with the archive of all data of a volume. Raises NoSuchVolume."""
        data = await open_data(self._volumes, name)
        async with started(data, (*PACK, "--file=-", at_folder(data), "."), unpacks=False) as tar:
            return await packed(tar, request)

    async def write(self, name: str, request: web.Request) -> Restored:
        """Make what is sent the data of a volume, all of it or nothing. Raises Refusal, Later."""
        replace = request.query.get("replace") == "1"
        check_unused(name, self.users(name))  # early, before all is sent
        async with self._volumes.draft() as draft:
            check_room(draft, request.query.get("size", ""))
            data = os.open(draft / "_data", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            async with started(data, (*UNPACK, "--file=-", at_folder(data)), unpacks=True) as tar:
                await unpacked(tar, request, draft)
            await self._volumes.put(name, draft, replace=replace, users=lambda: self.users(name))
        return Restored(volume=name)

    def users(self, name: str) -> list[str]:
        """Return the containers that have the volume mounted, or may have it, by name."""
        unclear = (
            f"{task} (nobody can say what it uses)"
            for task, stray in self._holdings.strays.items()
            if _may_use(stray.found, name)
        )
        mounted = (
            record.assignment.name
            for record in self._holdings.records()
            if name in record.assignment.volumes.values()
            and not record.erased
            and record.phase not in (Phase.NONE, Phase.ENDED)
        )
        return sorted((*mounted, *unclear))


def _may_use(found: Found, name: str) -> bool:
    """Say whether a task of which not all could be read may have a volume mounted."""
    told = [found.assignment, found.record.assignment if found.record is not None else None]
    known = [one for one in told if one is not None]
    return not known or any(name in one.volumes.values() for one in known)


def at_folder(folder: int) -> str:
    return f"--directory=/proc/self/fd/{folder}"


async def open_data(volumes: Volumes, name: str) -> int:
    """Return a descriptor of a volume's data. Raises NoSuchVolume."""
    try:
        return await volumes.open(name)
    except FileNotFoundError:
        raise NoSuchVolume(f"volume {name} is not on this node") from None


def check_room(draft: Path, size: str) -> None:
    """Refuse what cannot fit, where it is known how large it is. Raises NoRoom."""
    room = measure(draft)
    if size.isdecimal() and room is not None and int(size) + ARCHIVES > room.free:
        raise NoRoom(
            f"{amount(int(size))} do not fit on this node's disk: {amount(room.free)} are free, "
            f"and {amount(ARCHIVES)} must stay so"
        )


@contextlib.asynccontextmanager
async def started(
    folder: int, command: tuple[str, ...], *, unpacks: bool, given: int = DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start tar with a folder's descriptor, which it takes over; end it with the block.

    ``given``: the descriptor of what one that packs reads.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE if unpacks else given,
            stdout=DEVNULL if unpacks else PIPE,
            stderr=PIPE if unpacks else DEVNULL,
            pass_fds=(folder,),
            limit=PIECE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
    finally:
        os.close(folder)
    try:
        yield child
    finally:
        await end(child)


class _Spared:
    """Sees to what must stay free while data comes of which nobody knows how much it is."""

    def __init__(self, folder: Path, see: Callable[[bytes], None]) -> None:
        self._folder = folder
        self._see = see
        self._left = 0  # bytes until the disk is looked at again

    def see(self, piece: bytes) -> None:
        """Take note of what comes. Raises NoRoom."""
        self._see(piece)
        self._left -= len(piece)
        if self._left > 0:
            return
        self._left = _STRIDE
        room = measure(self._folder)
        if room is not None and room.free < ARCHIVES:
            raise NoRoom(
                f"the archive does not fit on this node's disk: {amount(ARCHIVES)} must stay free"
            )


async def packed(tar: asyncio.subprocess.Process, request: web.Request) -> web.StreamResponse:
    """Answer with what tar packs; what is not whole is cut off."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        if await passed_on(tar, response, fine=(0, _CHANGED)):
            await response.write_eof()
        elif request.transport is not None:
            # Nothing says "not whole" but a stream that is cut.
            request.transport.abort()
    return response


async def unpacked(tar: asyncio.subprocess.Process, request: web.Request, folder: Path) -> None:
    """Give tar all that is sent. Raises Refusal, Later, NoRoom."""
    said = asyncio.create_task(_last_words(tar), name="tar-words")
    archive = TarEnds()
    try:
        await feed(tar, request, _Spared(folder, archive.see).see)
        async with asyncio.timeout(SILENCE):
            code, words = await tar.wait(), await said
    except TimeoutError:
        raise stuck() from None
    finally:
        said.cancel()
        await asyncio.wait({said})
    if "No space left" in words:
        raise NoRoom("the archive does not fit on this node's disk")
    if fault := archive.fault():
        raise Refusal(f"it is no whole tar archive: {fault}")
    if code:
        raise Refusal(f"the archive cannot be unpacked: {words or f'tar ended with {code}'}")


async def _last_words(tar: asyncio.subprocess.Process) -> str:
    """Return why tar failed: the first line says it, the last that it did."""
    assert tar.stderr is not None
    first = b""
    while piece := await tar.stderr.read(_SAID):
        if len(first) < _SAID:
            first += piece
    line = first.decode(errors="replace").partition("\n")[0].removeprefix("tar: ")
    return "".join(c if c.isprintable() else "?" for c in line)[:300]
