"""What is in a volume, entry by entry, as two nodes compare it.

A record is ``d`` of a folder, ``-`` of all else, a digest of all that a move keeps of an entry
(kind, mode, owners, attributes, links, time, and with ``sums`` the content), a space, and its path,
ended by a NUL. Two trees with the same records are the same. What a content's holes are is not part
of it: blocks of zeros count for nothing, written or not. An empty record: the work goes on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK: Final = 64 << 10
_ZEROS: Final = bytes(_BLOCK)
_KEPT: Final = ("user.", "security.capability", "system.posix_acl_")
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENODATA})
ALIVE: Final = 2.0  # seconds of work after which an empty record says that it goes on
END: Final = b"\0"


def records(root: int, *, sums: bool, now: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
    """Yield the records of a folder that is open as ``root``, parents first, in one order.

    What goes meanwhile is left out; so are sockets, and what is mounted below. Raises OSError.
    """
    told = now()
    leaders: dict[tuple[int, int], bytes] = {}
    device = os.fstat(root).st_dev
    yield _record(root, b".", b".", leaders) + END
    for path, folders, files, fd in os.fwalk(b".", dir_fd=root, onerror=_unless_gone):
        folders.sort()
        files.sort()
        for name in list(folders):
            whole = _joined(path, name)
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_dev != device:
                    folders.remove(name)
                    continue
                yield _record(fd, name, whole, leaders) + END
            except OSError as error:
                _unless_gone(error)
        for name in files:
            whole = _joined(path, name)
            try:
                line = _record(fd, name, whole, leaders)
                if sums and line:
                    content = hashlib.blake2b(digest_size=16)
                    for _ in _contents(fd, name, content):
                        if now() - told > ALIVE:
                            told = now()
                            yield END
                    line = _mixed(line, content.digest(), whole)
            except OSError as error:
                _unless_gone(error)
                continue
            if line:
                yield line + END


def size(root: int) -> tuple[int, int]:
    """Return what a folder takes on the disk, in bytes, and how many entries it has."""
    taken, count, seen = 0, 0, set[int]()
    for _, folders, files, fd in os.fwalk(b".", dir_fd=root, onerror=_unless_gone):
        for name in (*folders, *files):
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                _unless_gone(error)
                continue
            count += 1
            if found.st_nlink == 1 or found.st_ino not in seen:
                taken += found.st_blocks * 512
            if found.st_nlink > 1:
                seen.add(found.st_ino)
    return taken, count


def _joined(path: bytes, name: bytes) -> bytes:
    return name if path == b"." else path.removeprefix(b"./") + b"/" + name


def _record(fd: int, name: bytes, path: bytes, leaders: dict[tuple[int, int], bytes]) -> bytes:
    """Return an entry's record; empty where a move leaves it out."""
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFSOCK:
        return b""
    facts = hashlib.blake2b(digest_size=16)
    facts.update(struct.pack("=III", found.st_mode, found.st_uid, found.st_gid))
    if kind != stat.S_IFLNK:
        facts.update(struct.pack("=q", found.st_mtime_ns))
        for key, value in _attributes(fd, name):
            facts.update(struct.pack("=II", len(key), len(value)) + key + value)
    else:
        facts.update(os.readlink(name, dir_fd=fd))
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        facts.update(struct.pack("=Q", found.st_rdev))
    if kind != stat.S_IFDIR:
        facts.update(struct.pack("=QQ", found.st_size, found.st_nlink))
        if found.st_nlink > 1:  # of several names one is the first, on both sides the same
            facts.update(leaders.setdefault((found.st_dev, found.st_ino), path))
    sort = b"d" if kind == stat.S_IFDIR else b"-"
    return sort + facts.hexdigest().encode() + b" " + path


def _mixed(line: bytes, content: bytes, path: bytes) -> bytes:
    whole = hashlib.blake2b(line + content, digest_size=16)
    return line[:1] + whole.hexdigest().encode() + b" " + path


def _attributes(fd: int, name: bytes) -> list[tuple[bytes, bytes]]:
    place = b"/proc/self/fd/%d/%s" % (fd, name)
    try:
        keys = sorted(key for key in os.listxattr(place, follow_symlinks=False) if _is_kept(key))
        return [(key.encode(), os.getxattr(place, key, follow_symlinks=False)) for key in keys]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _is_kept(key: str) -> bool:
    return key.startswith(_KEPT)


def _contents(fd: int, name: bytes, into: hashlib.blake2b) -> Iterator[None]:
    """Take in what a file holds; yield now and then."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
        return
    file = os.open(name, flags, dir_fd=fd)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return
        at = 0
        while True:
            try:
                at = os.lseek(file, at, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # nothing but a hole is left
                raise
            os.lseek(file, at, os.SEEK_SET)
            block = _full(file, at)
            if not block:
                return
            if block != _ZEROS[: len(block)]:
                into.update(struct.pack("=Q", at) + block)
            at += len(block)
            yield
    finally:
        os.close(file)


def _full(file: int, at: int) -> bytes:
    """Read a whole block of the grid, unless the file ends in it."""
    block = os.pread(file, _BLOCK, at)
    while (
        block
        and len(block) < _BLOCK
        and (more := os.pread(file, _BLOCK - len(block), at + len(block)))
    ):
        block += more
    return block


def _unless_gone(error: OSError) -> None:
    if error.errno not in _GONE:
        raise error
