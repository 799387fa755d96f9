"""A volume's move from one node to another, as both agents do their part of it.

The controller compares (``tree``), has the differences read at the source (``differences``) and
written to the target's draft (``take``, ``drop``), and has the draft take the volume's name
(``place``). The source's data keeps a name of its own then (``aside``), which no task can mean.
Every step may be repeated; ``undo`` takes away all that a move has made here.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from itertools import islice
from typing import TYPE_CHECKING, Final

from aiohttp import web

from agent.errors import NoRoom, Refusal
from agent.saving import (
    PACK,
    UNPACK,
    NoSuchVolume,
    Saving,
    at_folder,
    check_room,
    open_data,
    packed,
    started,
    unpacked,
)
from agent.volumes import listing, replacing
from agent.volumes.replacing import check_unused, opened
from specs.kit import disk
from specs.kit.room import measure
from specs.objects import VolumeLook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from aiohttp.typedefs import Handler

    from agent.tasks.effects import Volumes

_MARK: Final = "moved"  # beside a volume's data: which move put it there
_DRAFT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_MANY: Final = 512  # records sent at once


class Moving:
    """The steps of moves on this node."""

    def __init__(self, saving: Saving, volumes: Volumes) -> None:
        self._saving = saving
        self._volumes = volumes

    def routes(self) -> list[web.RouteDef]:
        """Return what the agent serves of moves."""

        def done(step: Callable[[web.Request], Awaitable[None]]) -> Handler:
            async def handle(request: web.Request) -> web.Response:
                await step(request)
                return web.json_response({})

            return handle

        async def look(request: web.Request) -> web.Response:
            return web.json_response((await self.look(request)).model_dump())

        volume = "/v1/volumes/{name}"
        draft = f"{volume}/drafts/{{draft}}"
        return [
            web.get(f"{volume}/look", look),
            web.get(f"{volume}/tree", self.tree),
            web.post(f"{volume}/differences", self.differences),
            web.put(f"{draft}/archive", done(self.take)),
            web.post(f"{draft}/drop", done(self.drop)),
            web.post(f"{draft}/place", done(self.place)),
            web.delete(draft, done(self.undo)),
            web.post(f"{volume}/aside", done(self.aside)),
            web.delete(f"{volume}/aside", done(self.forget)),
        ]

    async def look(self, request: web.Request) -> VolumeLook:
        """Say what is here of a volume, how large it is, and what is free."""
        path, lock = self._at(request)
        async with lock:
            return await asyncio.to_thread(_looked, path)

    async def tree(self, request: web.Request) -> web.StreamResponse:
        """Answer with the records of a volume or of a draft. Raises NoSuchVolume, Refusal."""
        path, _ = self._at(request)
        if request.query.get("unused"):
            self._check_unused(path.name)
        where = await asyncio.to_thread(_whose, path, request.query.get("draft", ""))
        sums = bool(request.query.get("sums"))
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        try:
            with opened(where / "_data") as root:
                await response.prepare(request)
                found = listing.records(root, sums=sums)
                while piece := await asyncio.to_thread(_some, found):
                    await response.write(piece)
                await response.write_eof()
        except FileNotFoundError:
            if response.prepared:
                raise
            raise NoSuchVolume(f"volume {path.name} is not on this node") from None
        except ConnectionError:
            pass  # who asked has left
        except (OSError, RecursionError):
            if request.transport is not None:
                request.transport.abort()  # nothing else says that it is not whole
        return response

    async def differences(self, request: web.Request) -> web.StreamResponse:
        """Answer with an archive of the entries whose paths are sent, each ended by a NUL."""
        path, _ = self._at(request)
        data = await open_data(self._volumes, path.name)
        with tempfile.TemporaryFile() as names:
            try:
                async for piece in request.content.iter_any():
                    names.write(piece)
                names.seek(0)
            except BaseException:
                os.close(data)
                raise
            command = (
                *(*PACK, "--no-recursion", "--ignore-failed-read", "--no-unquote", "--null"),
                *("--file=-", at_folder(data), "--verbatim-files-from", "--files-from=-"),
            )
            async with started(data, command, unpacks=False, given=names.fileno()) as tar:
                return await packed(tar, request)

    async def take(self, request: web.Request) -> None:
        """Unpack what is sent into a draft, which is made where there is none."""
        path, _ = self._at(request)
        draft = _draft(path, request.match_info["draft"])
        await asyncio.to_thread(_begun, draft)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            check_room(draft, request.query.get("size", ""))
            data = os.open(draft / "_data", flags)
            # Names come level by level: no folder's time is final before all are there.
            command = (*UNPACK, "--delay-directory-restore", "--file=-", at_folder(data))
            async with started(data, command, unpacks=True) as tar:
                await unpacked(tar, request, draft)
        except NoRoom as full:  # no other node is asked for: trying again does not help
            raise Refusal(str(full)) from None

    async def drop(self, request: web.Request) -> None:
        """Remove from a draft the entries whose paths are sent, each ended by a NUL."""
        path, _ = self._at(request)
        names = (await request.content.read()).split(b"\0")
        await asyncio.to_thread(
            _dropped, _draft(path, request.match_info["draft"]) / "_data", names
        )

    async def place(self, request: web.Request) -> None:
        """Give a draft its volume's name. Raises Refusal where there is data already, Later."""
        path, lock = self._at(request)
        draft = _draft(path, request.match_info["draft"])
        async with lock:
            self._check_unused(path.name)
            await asyncio.to_thread(_placed, draft, path, request.match_info["draft"])

    async def undo(self, request: web.Request) -> None:
        """Take away what a move has made here."""
        path, lock = self._at(request)
        draft, mark = _draft(path, request.match_info["draft"]), request.match_info["draft"]
        async with lock:
            if await asyncio.to_thread(_marked, path, mark):
                self._check_unused(path.name)
                await asyncio.to_thread(disk.take_away, path)
            await asyncio.to_thread(disk.take_away, draft)

    async def aside(self, request: web.Request) -> None:
        """Give the data of a volume a name no task can mean; with ``back`` its own again."""
        path, lock = self._at(request)
        back = bool(request.query.get("back"))
        async with lock:
            self._check_unused(path.name)
            await asyncio.to_thread(_renamed, _kept(path), path, back=back)

    async def forget(self, request: web.Request) -> None:
        """Remove the data that was kept aside."""
        path, lock = self._at(request)
        async with lock:
            await asyncio.to_thread(disk.take_away, _kept(path))

    def _at(self, request: web.Request) -> tuple[Path, asyncio.Lock]:
        return self._volumes.place_of(request.match_info["name"])

    def _check_unused(self, name: str) -> None:
        check_unused(name, self._saving.users(name))


def _whose(path: Path, move: str) -> Path:
    """Return where a volume is, or the draft of a move: in its place already, or beside it."""
    if not move:
        return path
    draft = _draft(path, move)
    return draft if draft.is_dir() or not _marked(path, move) else path


def _draft(path: Path, name: str) -> Path:
    if not _DRAFT.fullmatch(name):
        raise Refusal(f"{name!r} is no name of a move")
    return path.with_name(f"{replacing.MOVE}{name}")


def _kept(path: Path) -> Path:
    return path.with_name(f"{replacing.KEPT}{path.name}")


def _some(found: Iterator[bytes]) -> bytes:
    """Return the next records; fewer where the work says that it goes on. Empty at the end."""
    piece = []
    for record in islice(found, _MANY):
        piece.append(record)
        if record == listing.END:
            break
    return b"".join(piece)


def _looked(path: Path) -> VolumeLook:
    taken = count = 0
    here = (path / "_data").is_dir()
    if here:
        with opened(path / "_data") as root:
            taken, count = listing.size(root)
    room = measure(path.parent)
    return VolumeLook(
        here=here,
        kept=_kept(path).is_dir(),
        size=taken,
        entries=count,
        free=room.free if room is not None else -1,
    )


def _begun(draft: Path) -> None:
    if (draft / "_data").is_dir():
        os.utime(draft)
        return
    new = replacing.begin(draft.parent)
    try:
        new.rename(draft)
    except OSError:
        replacing.discard(new)
        raise


def _dropped(data: Path, names: list[bytes]) -> None:
    """Remove entries, those below first. The draft is nobody's but ours: no link is in a path."""
    for name in sorted(filter(None, names), reverse=True):
        if name == b"." or name.startswith(b"/") or b".." in name.split(b"/"):
            raise Refusal("a path that leads out of the volume")
        path = data / os.fsdecode(name)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (IsADirectoryError, PermissionError):
            disk.remove_tree(path)


def _marked(path: Path, move: str) -> bool:
    try:
        return (path / _MARK).read_text() == move
    except FileNotFoundError:
        return False


def _placed(draft: Path, path: Path, move: str) -> None:
    if _marked(path, move):
        disk.take_away(draft)
        return
    if not (draft / "_data").is_dir():
        raise Refusal(f"nothing of volume {path.name} came here")
    disk.write_file(draft / _MARK, move.encode())
    replacing.place(draft, path, replace=False)
    disk.take_away(draft)  # an empty one that was there


def _renamed(kept: Path, path: Path, *, back: bool) -> None:
    source, target = (kept, path) if back else (path, kept)
    if not source.is_dir():
        if target.is_dir():
            return
        raise NoSuchVolume(f"volume {path.name} is not on this node")
    if target.is_dir():
        raise Refusal(f"volume {path.name} has data in two places of this node")
    source.rename(target)
    disk.sync(path.parent)
