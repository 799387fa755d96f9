"""The jailed child that turns one layer archive into one directory.

``python -m agent.images.unpack DEST LIMITS-JSON`` with the blob on stdin and one JSON line
of result on stdout; agent.images.layers starts it. Before it reads the first byte it makes
a mount namespace of its own, pivots into DEST and drops privileges, so that no path in the
archive, however it is resolved, names anything outside. It must never write outside DEST
and never import anything after the pivot.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import stat
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from agent.images.packed import BlobStream, Budget, Halt
from agent.linux import calls as kernel
from specs.kit.tarstream import BadArchive, TarEntry, TarStream
from specs.kit.tarwriting import write_all, write_sparse

if TYPE_CHECKING:
    from collections.abc import Callable

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_MAX_DEPTH: Final = 512
# What every container may open anyway; other devices in a layer are left out.
_DEVICES: Final = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
# chown, dac_override, fowner, fsetid, sys_admin (trusted.overlay.opaque), mknod, setfcap
_CAPABILITIES: Final = frozenset({0, 1, 3, 4, 21, 27, 31})


def _shown(name: bytes) -> str:
    text = name[:200].decode("utf-8", "backslashreplace")
    return repr(text) + ("..." if len(name) > 200 else "")


def clean(name: bytes) -> list[bytes]:
    """Return the components of a member's name; one that leads out is refused."""
    if name.startswith(b"./"):
        name = name[2:]
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise Halt("refused", f"the name {_shown(name)} leads out of the layer")
            parts.pop()
            continue
        if b"\0" in part:
            raise Halt("refused", f"the name {_shown(name)} holds a zero byte")
        parts.append(part)
    if len(parts) > _MAX_DEPTH:
        raise Halt("refused", f"the name {_shown(name)} is nested too deeply")
    return parts


class Layer:
    """Puts entries into the directory that is now "/"."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._times: list[tuple[bytes, int]] = []  # directories, set last
        self._hidden: set[bytes] = set()  # paths with a whiteout in this layer
        self.skipped = 0
        self.opaque_root = False
        self._make: dict[int, Callable[[TarEntry, bytes], None]] = {
            0x31: self._hard_link,
            0x32: self._symlink,
            0x33: self._node,
            0x34: self._node,
            0x35: self._directory,
            0x36: self._fifo,
        }

    def add(self, entry: TarEntry, stream: TarStream) -> None:
        parts = clean(entry.name)
        if not parts:
            if entry.kind == 0x35:
                self._dress(entry, b"/")
            return
        last = parts[-1]
        if last.startswith(_WHITEOUT):
            self._whiteout(parts, last)
            return
        for part in parts:
            if part.startswith(_WHITEOUT):
                if part.startswith(b".wh..wh."):  # aufs's own bookkeeping
                    return
                raise Halt("refused", f"{_shown(entry.name)} lies below a whiteout")
        path = b"/" + b"/".join(parts)
        self._budget.inode()
        if entry.kind == 0x30:
            self._file(entry, path, stream)
            return
        make = self._make.get(entry.kind)
        if make is None:
            raise Halt("refused", f"{_shown(entry.name)} is of the unknown type {entry.kind:#x}")
        make(entry, path)

    def finish(self) -> None:
        for path, mtime in reversed(self._times):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced since
                os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

    def _parents(self, path: bytes) -> None:
        """Make the directories above ``path`` that the archive did not mention."""
        parent = path.rpartition(b"/")[0]
        waiting: list[bytes] = []
        while parent:
            try:
                os.mkdir(parent, 0o755)
                self._budget.inode()
            except FileNotFoundError:
                waiting.append(parent)
                parent = parent.rpartition(b"/")[0]
                continue
            except FileExistsError:
                if not os.path.isdir(parent):
                    raise Halt("refused", f"{_shown(parent)} is not a directory") from None
            parent = waiting.pop() if waiting else b""

    def _create(self, path: bytes, make: Callable[[], Any]) -> Any:
        """Call ``make`` where ``path`` is free: parents made, an earlier entry removed."""
        try:
            return make()
        except FileNotFoundError:
            self._parents(path)
        except FileExistsError:
            self._remove(path)
        return make()

    def _remove(self, path: bytes) -> None:
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass

    def _file(self, entry: TarEntry, path: bytes, stream: TarStream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = entry.mode & 0o777
        try:
            fd = os.open(path, flags, mode)
        except OSError:
            fd = self._create(path, lambda: os.open(path, flags, mode))
        try:
            if entry.sparse is None:
                for piece in stream.pieces():
                    self._budget.data(len(piece))
                    write_all(fd, piece)
            else:
                self._sparse(entry, fd, stream)
            os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & 0o7000:  # chown clears them
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                self._attributes(entry, fd)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _sparse(self, entry: TarEntry, fd: int, stream: TarStream) -> None:
        # Holes cost no disk here, but a copy of the file elsewhere may: the length counts.
        self._budget.data(entry.real_size)
        write_sparse(entry, fd, stream.pieces())

    def _directory(self, entry: TarEntry, path: bytes) -> None:
        opaque = path in self._hidden
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            self._create(path, lambda: os.mkdir(path, 0o700))
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                self._create(path, lambda: os.mkdir(path, 0o700))
        self._dress(entry, path)
        if opaque:
            self._set_opaque(path)

    def _symlink(self, entry: TarEntry, path: bytes) -> None:
        self._create(path, lambda: os.symlink(entry.link, path))
        self._dress(entry, path, link=True)

    def _hard_link(self, entry: TarEntry, path: bytes) -> None:
        target = b"/" + b"/".join(clean(entry.link))
        if target == path:
            return
        try:
            self._create(path, lambda: os.link(target, path, follow_symlinks=False))
        except FileNotFoundError:
            raise Halt(
                "refused", f"{_shown(entry.name)} links to {_shown(entry.link)}, which is not there"
            ) from None

    def _node(self, entry: TarEntry, path: bytes) -> None:
        if (entry.major, entry.minor) not in _DEVICES or entry.kind != 0x33:
            self.skipped += 1
            return
        device = os.makedev(entry.major, entry.minor)
        self._create(path, lambda: os.mknod(path, stat.S_IFCHR | entry.mode & 0o777, device))
        self._dress(entry, path)

    def _fifo(self, entry: TarEntry, path: bytes) -> None:
        self._create(path, lambda: os.mkfifo(path, entry.mode & 0o777))
        self._dress(entry, path)

    def _dress(self, entry: TarEntry, path: bytes, *, link: bool = False) -> None:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not link:
            # Not a link here: it was made just now, or lstat said directory.
            os.chmod(path, entry.mode)
        if entry.xattrs:
            self._attributes(entry, path)
        if entry.kind == 0x35:
            self._times.append((path, entry.mtime_ns))
        else:
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _attributes(self, entry: TarEntry, where: int | bytes) -> None:
        """Set file capabilities and user attributes; overlay's own never come from a layer."""
        for name, value in (entry.xattrs or {}).items():
            if name != "security.capability" and (
                not name.startswith("user.") or name.startswith("user.overlay.")
            ):
                continue
            try:
                if isinstance(where, int):
                    os.setxattr(where, name, value)
                else:
                    os.setxattr(where, name, value, follow_symlinks=False)
            except OSError as error:
                # user.* is not allowed on links and devices, nor on every file system.
                if error.errno not in (errno.EPERM, errno.ENOTSUP) or name.startswith("security"):
                    raise

    def _set_opaque(self, path: bytes) -> None:
        os.setxattr(path, "trusted.overlay.opaque", b"y", follow_symlinks=False)

    def _whiteout(self, parts: list[bytes], last: bytes) -> None:
        parent = b"/" + b"/".join(parts[:-1])
        if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            return
        if last == _OPAQUE:
            self._parents(parent.rstrip(b"/") + b"/x")
            if parent == b"/":
                self.opaque_root = True
            else:
                self._set_opaque(os.path.realpath(parent))
            return
        if last.startswith(b".wh..wh."):
            return  # aufs's own bookkeeping
        name = last[len(_WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise Halt("refused", f"{_shown(last)} is not a valid whiteout")
        path = parent.rstrip(b"/") + b"/" + name
        self._budget.inode()
        self._hidden.add(path)
        try:
            self._create_whiteout(path)
        except FileExistsError:
            # Whiteouts hide lower layers only, never what this layer itself brings.
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._set_opaque(path)

    def _create_whiteout(self, path: bytes) -> None:
        try:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        except FileNotFoundError:
            self._parents(path)
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _jail(directory: str, limits: dict[str, int]) -> None:
    """Leave everything but ``directory`` behind."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != limits["parent"]:
        sys.exit(1)  # the agent died before the line above
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount(directory, directory, None, kernel.MS_BIND)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("none", directory, None, kernel.MS_BIND | kernel.MS_REMOUNT | flags)
    kernel.pivot_into(directory)
    os.umask(0)
    for which, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits["bytes"]),
        (resource.RLIMIT_AS, 2 << 30),
        (resource.RLIMIT_NOFILE, 1024),
    ):
        _, hard = resource.getrlimit(which)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # EFBIG instead
    kernel.keep_capabilities(_CAPABILITIES)


def _explain(error: Exception) -> dict[str, Any]:
    match error:
        case Halt():
            return {"error": str(error), "kind": error.kind}
        case BadArchive():
            return {"error": str(error), "kind": "refused"}
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            return {"error": os.strerror(error.errno or 0), "kind": "space"}
        case OSError():
            name = error.filename if isinstance(error.filename, bytes) else b""
            what = os.strerror(error.errno) if error.errno else str(error)
            return {"error": f"{_shown(name)}: {what}", "kind": "refused"}
        case RecursionError() | MemoryError():
            return {"error": "it is nested beyond all bounds", "kind": "refused"}
        case _:
            return {"error": f"{type(error).__name__}: {error}", "kind": "refused"}


def main(directory: str, limits: dict[str, int]) -> NoReturn:
    from backports import zstd  # noqa: PLC0415 - before the pivot, only in this process

    budget = Budget(limits)
    source = BlobStream(0, zstd, budget)
    try:
        _jail(directory, limits)
        source.start()
        budget.look()
        layer = Layer(budget)
        stream = TarStream(source.more)
        for entry in stream:
            layer.add(entry, stream)
        layer.finish()
        stream.drain()
        blob, content = source.digests()
        result: dict[str, Any] = {
            "blob": blob,
            "diff_id": content,
            "bytes": budget.bytes,
            "inodes": budget.inodes,
            "skipped": layer.skipped,
            "opaque_root": layer.opaque_root,
        }
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent gets words
        result = _explain(error)
    os.write(1, json.dumps(result).encode() + b"\n")
    os._exit(0)  # reading threads may hang in a full queue; nothing is left to flush


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
