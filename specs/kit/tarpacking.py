"""Pack files into a tar stream, piece by piece: the reading half of `corral cp`.

Everything is opened by its parent's descriptor and looked at before it is opened for reading, so
that nobody who renames meanwhile leads this out of the tree or into a device. Memory does not grow
with the tree but for the names of files with several links. Standard library only: the child that
looks into a container imports it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE: Final = 256 * 1024
DEEPEST: Final = 400  # folders in folders; each holds two descriptors open
MOST_LINKS: Final = 100_000  # names remembered of files with several
_CAPABILITY: Final = "security.capability"
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


class TooDeep(Exception):
    """Folders in folders beyond all bounds."""


def descriptors() -> int:
    """Return the folder of this process's descriptors; opened before a root is changed."""
    return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class Packer:
    """Writes entries to ``emit``. ``own``: descriptors(), ``owner``: whose everything becomes.

    ``unreal`` says of a folder whether the kernel makes up what is in it: that is left out.
    """

    def __init__(
        self,
        emit: Callable[[bytes], None],
        *,
        own: int,
        owner: tuple[int, int] | None = None,
        unreal: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._emit = emit
        self._own = own
        self._owner = owner
        self._unreal = unreal
        self._links: dict[tuple[int, int], str] = {}
        self.files = 0
        self.bytes = 0

    def pack(self, handle: int, name: bytes) -> None:
        """Write what ``handle`` (O_PATH) stands for under ``name``, all of it, and the end."""
        self._entry(handle, os.fsdecode(name), 0)
        self.end()

    def one(self, handle: int, name: bytes) -> None:
        """Write what ``handle`` stands for; of a folder only that it is there."""
        self._entry(handle, os.fsdecode(name), None)

    def none(self, name: bytes, kind: bytes) -> None:
        """Write an entry of which there is nothing but its name and kind."""
        head = tarfile.TarInfo(os.fsdecode(name))
        head.type = kind
        self._head(head)

    def end(self) -> None:
        """Write the end of the archive."""
        self._emit(_END)

    def _entry(self, handle: int, path: str, depth: int | None) -> None:
        info = os.fstat(handle)
        head = tarfile.TarInfo(path)
        head.mode = stat.S_IMODE(info.st_mode)
        head.uid, head.gid = self._owner or (info.st_uid, info.st_gid)
        head.mtime = max(0, int(info.st_mtime))
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            self._file(head, handle, info)
            return
        if kind == stat.S_IFDIR:
            head.type = tarfile.DIRTYPE
            self._head(head)
            if depth is not None and not self._unreal(handle):
                self._folder(handle, path, depth)
            return
        if kind == stat.S_IFLNK:
            head.type = tarfile.SYMTYPE
            head.linkname = os.readlink("", dir_fd=handle)
        elif kind == stat.S_IFIFO:
            head.type = tarfile.FIFOTYPE
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            head.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            head.devmajor, head.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
        else:
            return  # a socket: there is nothing to copy of it
        self._head(head)

    def _folder(self, handle: int, path: str, depth: int) -> None:
        if depth >= DEEPEST:
            raise TooDeep
        opened = self._reopen(handle, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(opened) as names:
                for entry in names:
                    with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                        self._named(opened, entry.name, f"{path}/{entry.name}", depth + 1)
        finally:
            os.close(opened)

    def _named(self, parent: int, name: str, path: str, depth: int) -> None:
        inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._entry(inner, path, depth)
        finally:
            os.close(inner)

    def _file(self, head: tarfile.TarInfo, handle: int, info: os.stat_result) -> None:
        if info.st_nlink > 1:
            key = (info.st_dev, info.st_ino)
            if (first := self._links.get(key)) is not None:
                head.type, head.linkname = tarfile.LNKTYPE, first
                self._head(head)
                return
            if len(self._links) < MOST_LINKS:
                self._links[key] = head.name
        # The very file that was looked at, whatever has its name by now.
        opened = self._reopen(handle, os.O_RDONLY | os.O_NONBLOCK)
        try:
            head.size = info.st_size
            try:
                value = os.fsdecode(os.getxattr(opened, _CAPABILITY))
                head.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": value}
            except OSError:
                pass  # it has none, or nothing here has
            self._head(head)
            left = head.size
            while left and (piece := os.read(opened, min(left, PIECE))):
                self._emit(piece)
                left -= len(piece)
            while left:  # it became shorter meanwhile: what was announced must come
                step = min(left, PIECE)
                self._emit(bytes(step))
                left -= step
            if rest := -head.size % tarfile.BLOCKSIZE:
                self._emit(bytes(rest))
            self.bytes += head.size
        finally:
            os.close(opened)

    def _reopen(self, handle: int, flags: int) -> int:
        return os.open(str(handle), flags | os.O_CLOEXEC, dir_fd=self._own)

    def _head(self, head: tarfile.TarInfo) -> None:
        self.files += 1
        self._emit(head.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
