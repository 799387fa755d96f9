"""Put the entries of a tar stream below a folder and nowhere else: the writing half of `cp`.

The archive is hostile: on the way out of a container it is the container that wrote it. Each
folder is opened by its parent's descriptor and no link is ever followed, so there is no name that
leads elsewhere, whatever else happens in that tree meanwhile. A file has its name when it is
whole: who is interrupted leaves the old one, or none. Standard library only: the child that
writes into a container imports it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

from specs.kit.copyrules import CopyRefused, may_replace
from specs.kit.tarwriting import write_all, write_sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from specs.kit.copyrules import Landing
    from specs.kit.tarstream import TarEntry

_DEEPEST: Final = 512
_LATE: Final = 10_000  # folders whose mode and time wait for the end of the archive
_CAPABILITY: Final = "security.capability"
# What every container may open anyway.
_DEVICES: Final = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_UNNAMED: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class Archive(Protocol):
    """Entries, and the data of the present one: specs.kit.tarstream.TarStream is one."""

    def __iter__(self) -> Iterator[TarEntry]: ...

    def pieces(self) -> Iterator[memoryview]: ...


def shown(name: bytes) -> str:
    """Return a name of an archive as people may see it."""
    text = name[:200].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def parts_of(name: bytes) -> list[bytes]:
    """Return the parts of an entry's name. Raises CopyRefused for one that leads out."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise CopyRefused(f"the archive names {shown(name)}, which leads out of the folder")
    if len(parts) > _DEEPEST:
        raise CopyRefused("the archive has folders in folders beyond all bounds")
    return parts


class Placer:
    """Writes entries below the folder ``base``; ``land`` says how their names begin there.

    ``owners``: as the archive has them; else they are whose this process is. ``powers``: what
    makes its user more than he is (setuid bits, capabilities, devices) comes along.
    """

    def __init__(
        self, base: int, land: Landing, *, own: int, owners: bool = False, powers: bool = False
    ) -> None:
        self._base = base
        self._land = land
        self._own = own
        self._owners = owners
        self._powers = powers
        self._late: list[tuple[list[bytes], int, int]] = []
        self._here: tuple[list[bytes], int] | None = None
        self.files = 0
        self.bytes = 0
        self.left_out = 0  # devices
        self._make: dict[int, Callable[[TarEntry, int, bytes], None]] = {
            0x31: self._hard_link,
            0x32: self._symlink,
            0x33: self._node,
            0x34: self._node,
            0x36: self._fifo,
        }

    def place(self, stream: Archive) -> None:
        """Write all entries. Raises CopyRefused, BadArchive, OSError."""
        try:
            for entry in stream:
                self._add(entry, stream)
            self._settle()
        finally:
            self._leave()

    def _add(self, entry: TarEntry, stream: Archive) -> None:
        parts = self._there(entry.name)
        if not parts:
            return  # the folder itself, which was there before
        self.files += 1
        if entry.kind == 0x35:
            self._directory(entry, parts)
            return
        folder, name = self._folder(parts[:-1]), parts[-1]
        if entry.kind == 0x30:
            self._file(entry, folder, name, stream)
            return
        make = self._make.get(entry.kind)
        if make is None:
            raise CopyRefused(f"{shown(entry.name)} is of an unknown type in the archive")
        make(entry, folder, name)

    def _there(self, name: bytes) -> list[bytes]:
        """Return an entry's place below ``base``."""
        parts = parts_of(name)
        if self._land.top is not None:
            if parts[:1] != [self._land.top]:
                raise CopyRefused(f"the archive holds {shown(name)}, which nobody asked for")
            parts = parts[1:]
        return [self._land.name, *parts] if self._land.name else parts

    # folders

    def _folder(self, parts: list[bytes], *, make: bool = True) -> int:
        """Return the folder of these parts, opened; the last one asked for stays open."""
        if self._here is not None and self._here[0] == parts:
            return self._here[1]
        fd = os.dup(self._base)
        try:
            for part in parts:
                inner = self._enter(fd, part, make=make)
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        self._leave()
        self._here = parts, fd
        return fd

    def _leave(self) -> None:
        if self._here is not None:
            os.close(self._here[1])
            self._here = None

    @staticmethod
    def _enter(fd: int, part: bytes, *, make: bool) -> int:
        try:
            return os.open(part, _FOLDER, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=fd)
            return os.open(part, _FOLDER, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise CopyRefused(
                    f"{shown(part)} is there and is no folder; nothing is copied behind it"
                ) from None
            raise

    def _directory(self, entry: TarEntry, parts: list[bytes]) -> None:
        folder = self._folder(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=folder)
        except FileExistsError:
            # One that is there stays as it is: /tmp keeps its mode whatever is copied into it.
            os.close(self._enter(folder, parts[-1], make=False))
            return
        self._late.append((parts, self._mode(entry), entry.mtime_ns))
        if self._owners:
            fd = self._enter(folder, parts[-1], make=False)
            try:
                os.fchown(fd, entry.uid, entry.gid)
            finally:
                os.close(fd)
        if len(self._late) > _LATE:
            self._settle()

    def _settle(self) -> None:
        """Give new folders their modes and times: only now is nothing written into them."""
        for parts, mode, mtime in reversed(self._late):
            with contextlib.suppress(FileNotFoundError, CopyRefused):  # replaced since
                fd = self._folder(parts, make=False)
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime, mtime))
        self._late.clear()

    # what is in them

    def _file(self, entry: TarEntry, folder: int, name: bytes, stream: Archive) -> None:
        fd, temporary = self._fresh(folder)
        try:
            if entry.sparse is None:
                for piece in stream.pieces():
                    write_all(fd, piece)
            else:
                write_sparse(entry, fd, stream.pieces())
            if self._owners:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, self._mode(entry))
            if self._powers and entry.xattrs and _CAPABILITY in entry.xattrs:
                os.setxattr(fd, _CAPABILITY, entry.xattrs[_CAPABILITY])
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            if not temporary:
                temporary = self._name_it(fd, folder, name)
            if temporary:
                self._rename(folder, temporary, name)
        finally:
            os.close(fd)
            self._tidy(folder, temporary)
        self.bytes += entry.real_size

    def _fresh(self, folder: int) -> tuple[int, bytes]:
        """Return a new file, and its name for the time being: none where the kernel can that."""
        try:
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
            return os.open(b".", flags, 0o600, dir_fd=folder), b""
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        temporary = _temporary()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(temporary, flags, 0o600, dir_fd=folder), temporary

    def _name_it(self, fd: int, folder: int, name: bytes) -> bytes:
        """Give a nameless file its name, or, where that is taken, one to be renamed from."""
        for free in (name, _temporary()):
            with contextlib.suppress(FileExistsError):
                os.link(
                    os.fsencode(str(fd)), free, src_dir_fd=self._own, dst_dir_fd=folder,
                    follow_symlinks=True,
                )  # fmt: skip
                return b"" if free == name else free
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)

    def _put(
        self, entry: TarEntry, folder: int, name: bytes, make: Callable[[bytes], None]
    ) -> None:
        temporary = _temporary()
        make(temporary)
        try:
            if self._owners:
                os.chown(temporary, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
            times = (entry.mtime_ns, entry.mtime_ns)
            os.utime(temporary, ns=times, dir_fd=folder, follow_symlinks=False)
            self._rename(folder, temporary, name)
        finally:
            self._tidy(folder, temporary)

    @staticmethod
    def _rename(folder: int, temporary: bytes, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            comes = os.stat(temporary, dir_fd=folder, follow_symlinks=False)
            same = (there.st_rdev == comes.st_rdev) or not there.st_rdev
            if not may_replace(there.st_mode, comes.st_mode, same=same):
                raise CopyRefused(
                    f"{shown(name)} is there and is neither a file nor a folder; it is left alone"
                )
        try:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            raise CopyRefused(
                f"{shown(name)} is a folder there; a file cannot replace it"
            ) from None
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise CopyRefused(
                    f"{shown(name)} is mounted there on its own and cannot be replaced"
                ) from None
            raise

    @staticmethod
    def _tidy(folder: int, temporary: bytes) -> None:
        # Also after a rename: of two links to one file the kernel keeps both.
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)

    def _symlink(self, entry: TarEntry, folder: int, name: bytes) -> None:
        self._put(entry, folder, name, lambda new: os.symlink(entry.link, new, dir_fd=folder))

    def _hard_link(self, entry: TarEntry, folder: int, name: bytes) -> None:
        target = self._there(entry.link)
        if not target:
            raise CopyRefused(f"{shown(entry.name)} is a link to a folder")
        mine = os.dup(folder)  # looking for the other one may close it
        temporary = _temporary()
        try:
            source = self._folder(target[:-1], make=False)
            os.link(target[-1], temporary, src_dir_fd=source, dst_dir_fd=mine,
                    follow_symlinks=False)  # fmt: skip
            self._rename(mine, temporary, name)
        except FileNotFoundError:
            raise CopyRefused(
                f"{shown(entry.name)} is a link to {shown(entry.link)}, which is not there"
            ) from None
        finally:
            self._tidy(mine, temporary)
            os.close(mine)

    def _fifo(self, entry: TarEntry, folder: int, name: bytes) -> None:
        self._put(
            entry, folder, name, lambda new: os.mkfifo(new, entry.mode & 0o777, dir_fd=folder)
        )

    def _node(self, entry: TarEntry, folder: int, name: bytes) -> None:
        device = (entry.major, entry.minor)
        if not self._powers or entry.kind != 0x33 or device not in _DEVICES:
            self.left_out += 1
            return
        mode = stat.S_IFCHR | entry.mode & 0o777
        self._put(
            entry, folder, name,
            lambda new: os.mknod(new, mode, os.makedev(*device), dir_fd=folder),
        )  # fmt: skip

    def _mode(self, entry: TarEntry) -> int:
        return entry.mode & (0o7777 if self._powers else 0o1777)


def _temporary() -> bytes:
    return b".corral-cp-" + os.urandom(6).hex().encode()
