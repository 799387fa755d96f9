"""The disk of a simulated machine: what the agent's journal needs of one, in memory.

Two trees: ``state`` is a disk, ``run`` a tmpfs. A power cut takes the tmpfs, and of the disk all
that was not synced, names as well as contents (or nothing of it, when the machine was lucky: both
happen). It can be full (ENOSPC), failing (EIO) or slow, and it can kill who uses it at the Nth
change. :func:`installed` puts it in the place of ``os`` and ``shutil`` in the modules that use it;
paths of the real disk go through to the real ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from agent import sealing
from agent.tasks import journal, kept, reserve
from specs.kit import disk as kit
from tests.sim.loop import PROCESS, Killed, alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIRST_FD = 1_000_000  # real ones are smaller


class _File:
    __slots__ = ("data", "mode", "safe", "tree")

    def __init__(self, tree: str, mode: int) -> None:
        self.data = b""
        self.safe: bytes | None = None
        self.mode = mode
        self.tree = tree


class _Folder:
    __slots__ = ("mode", "names", "safe", "tree")

    def __init__(self, tree: str, mode: int = 0o755) -> None:
        self.names: dict[str, _File | _Folder] = {}
        self.safe: dict[str, _File | _Folder] = {}
        self.mode = mode
        self.tree = tree


class SimDisk:
    """``full``: no room; ``failing``: writes and syncs fail; ``slow``: seconds a thread waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.full = False
        self.failing = False
        self.slow = 0.0
        self.kill_at = 0  # at so many more changes the process that makes it is killed
        self.on_kill: Callable[[], None] = lambda: None
        self.changes = 0
        self.top = _Folder("top")
        self.top.names = {"state": _Folder("state"), "run": _Folder("run")}

    def path(self, *parts: str) -> SimPath:
        return SimPath(self, parts)

    def find(self, parts: tuple[str, ...]) -> _File | _Folder | None:
        found: _File | _Folder | None = self.top
        for part in parts:
            if not isinstance(found, _Folder):
                return None
            found = found.names.get(part)
        return found

    def must(self, path: SimPath) -> _File | _Folder:
        found = self.find(path.parts)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return found

    def folder_of(self, path: SimPath) -> _Folder:
        found = self.find(path.parts[:-1])
        if not isinstance(found, _Folder):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return found

    def change(self, tree: str, where: str, *, grows: bool = False) -> None:
        """Ask before any change. Raises Killed, OSError."""
        alive()
        self.changes += 1
        if self.kill_at and tree != "top":
            self.kill_at -= 1
            if not self.kill_at and PROCESS.get() is not None:
                self.on_kill()
                raise Killed
        if tree != "state":
            return
        if self.full and grows:
            raise OSError(errno.ENOSPC, "No space left on device", where)
        if self.failing:
            raise OSError(errno.EIO, "Input/output error", where)

    def power_cut(self, *, lucky: bool) -> None:
        """Lose the tmpfs, and what was not synced."""
        self.top.names["run"] = _Folder("run")
        if lucky:
            self._settle(self.top.names["state"])
        else:
            self.top.names["state"] = self._back(self.top.names["state"])

    def wipe(self) -> None:
        """Lose everything, as with another disk in its place."""
        self.top.names = {"state": _Folder("state"), "run": _Folder("run")}

    def _settle(self, node: _File | _Folder) -> None:
        if isinstance(node, _File):
            node.safe = node.data
            return
        node.safe = dict(node.names)
        for one in node.names.values():
            self._settle(one)

    def _back(self, node: _File | _Folder) -> _File | _Folder:
        if isinstance(node, _File):
            node.data = node.safe or b""
            return node
        node.names = {name: self._back(one) for name, one in node.safe.items()}
        return node


class SimPath:
    """As much of pathlib.Path as the agent's journal asks of one."""

    __slots__ = ("disk", "parts")

    def __init__(self, disk: SimDisk, parts: tuple[str, ...]) -> None:
        self.disk = disk
        self.parts = parts

    def __truediv__(self, name: str) -> SimPath:
        return SimPath(self.disk, (*self.parts, *(p for p in str(name).split("/") if p)))

    def __str__(self) -> str:
        return "/" + "/".join((self.disk.name, *self.parts))

    __repr__ = __str__

    def __fspath__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimPath) and (self.disk, self.parts) == (other.disk, other.parts)

    def __hash__(self) -> int:
        return hash(self.parts)

    def __lt__(self, other: SimPath) -> bool:
        return self.parts < other.parts

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else ""

    @property
    def parent(self) -> SimPath:
        return SimPath(self.disk, self.parts[:-1])

    @property
    def parents(self) -> list[SimPath]:
        return [SimPath(self.disk, self.parts[:n]) for n in range(len(self.parts) - 1, -1, -1)]

    def with_name(self, name: str) -> SimPath:
        return SimPath(self.disk, (*self.parts[:-1], name))

    # Looking.

    def exists(self) -> bool:
        return self.disk.find(self.parts) is not None

    def is_dir(self) -> bool:
        return isinstance(self.disk.find(self.parts), _Folder)

    def is_file(self) -> bool:
        return isinstance(self.disk.find(self.parts), _File)

    def iterdir(self) -> list[SimPath]:
        found = self.disk.must(self)
        assert isinstance(found, _Folder)
        return [self / name for name in found.names]

    def stat(self) -> SimpleNamespace:
        found = self.disk.must(self)
        size = len(found.data) if isinstance(found, _File) else 0
        kind = stat.S_IFREG if isinstance(found, _File) else stat.S_IFDIR
        return SimpleNamespace(st_mode=kind | found.mode, st_size=size, st_mtime=0.0)

    def read_bytes(self) -> bytes:
        alive()
        found = self.disk.must(self)
        if isinstance(found, _Folder):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(self))
        return found.data

    # Changing.

    def mkdir(self, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        if self.exists():
            if not exist_ok:
                raise FileExistsError(errno.EEXIST, "File exists", str(self))
            return
        if parents and not self.parent.exists():
            self.parent.mkdir(parents=True, exist_ok=True)
        folder = self.disk.folder_of(self)
        self.disk.change(folder.tree, str(self), grows=True)
        folder.names[self.name] = _Folder(folder.tree, mode)

    def unlink(self, *, missing_ok: bool = False) -> None:
        if not self.exists():
            if missing_ok:
                return
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))
        folder = self.disk.folder_of(self)
        self.disk.change(folder.tree, str(self))
        del folder.names[self.name]

    def rename(self, target: SimPath) -> SimPath:
        node = self.disk.must(self)
        old, new = self.disk.folder_of(self), self.disk.folder_of(target)
        self.disk.change(new.tree, str(target))
        del old.names[self.name]
        new.names[target.name] = node
        return target

    def chmod(self, mode: int) -> None:
        node = self.disk.must(self)
        self.disk.change(node.tree, str(self))
        node.mode = mode

    def write_text(self, text: str) -> None:
        fd = SIM_OS.open(self, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        SIM_OS.write(fd, text.encode())
        SIM_OS.close(fd)

    def rmdir(self) -> None:
        self.unlink()


class _SimOs:
    """``os`` for simulated paths and descriptors; everything else is the real one's."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[SimDisk, _File | _Folder, str]] = {}
        self._next = _FIRST_FD
        self.chance = random.Random(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def reset(self, seed: int) -> None:
        self._open, self._next, self.chance = {}, _FIRST_FD, random.Random(seed)

    def urandom(self, count: int) -> bytes:
        return self.chance.randbytes(count)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if not isinstance(path, SimPath):
            return os.open(path, flags, mode)
        alive()
        disk, node = path.disk, path.disk.find(path.parts)
        if node is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            folder = disk.folder_of(path)
            disk.change(folder.tree, str(path), grows=True)
            node = folder.names[path.name] = _File(folder.tree, mode)
        elif flags & os.O_EXCL and flags & os.O_CREAT:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        if flags & os.O_TRUNC and isinstance(node, _File):
            node.data = b""
        self._next += 1
        self._open[self._next] = (disk, node, str(path))
        return self._next

    def close(self, fd: int) -> None:
        if self._open.pop(fd, None) is None:
            os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        if fd not in self._open:
            return os.write(fd, data)
        disk, node, where = self._open[fd]
        disk.change(node.tree, where, grows=True)
        assert isinstance(node, _File)
        node.data += bytes(data)
        return len(data)

    def fsync(self, fd: int) -> None:
        if fd not in self._open:
            os.fsync(fd)
            return
        disk, node, where = self._open[fd]
        disk.change(node.tree, where)
        if isinstance(node, _File):
            node.safe = node.data
        else:
            node.safe = dict(node.names)

    def ftruncate(self, fd: int, size: int) -> None:
        _, node, _ = self._open[fd]
        assert isinstance(node, _File)
        node.data = node.data[:size]

    def truncate(self, path: Any, size: int) -> None:
        fd = self.open(path, os.O_WRONLY)
        self.ftruncate(fd, size)
        self.close(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        self._open[fd][1].mode = mode

    def fchown(self, fd: int, user: int, group: int) -> None:
        pass

    def fstat(self, fd: int) -> Any:
        if fd not in self._open:
            return os.fstat(fd)
        node = self._open[fd][1]
        return SimpleNamespace(st_size=len(node.data) if isinstance(node, _File) else 0)

    def posix_fallocate(self, fd: int, offset: int, size: int) -> None:
        disk, node, where = self._open[fd]
        disk.change(node.tree, where, grows=True)
        assert isinstance(node, _File)
        node.data = b"\0"  # its size does not matter here


class _SimShutil:
    def __getattr__(self, name: str) -> Any:
        return getattr(shutil, name)

    def rmtree(self, path: Any, ignore_errors: bool = False, **more: Any) -> None:
        if not isinstance(path, SimPath):
            shutil.rmtree(path, ignore_errors, **more)
            return
        if path.exists():
            try:
                path.unlink()
            except OSError:
                if not ignore_errors:
                    raise


SIM_OS = _SimOs()
_SHUTIL = _SimShutil()
_USERS = (kit, journal, kept, reserve, sealing)


@contextlib.contextmanager
def installed(seed: int) -> Iterator[None]:
    """Put the simulated disk in the place of the real one, in the modules that use it."""
    SIM_OS.reset(seed)
    before = []
    for module in _USERS:
        for name, ours in (("os", SIM_OS), ("shutil", _SHUTIL)):
            if hasattr(module, name):
                before.append((module, name, getattr(module, name)))
                setattr(module, name, ours)
    measure = reserve.measure
    reserve.measure = lambda path: None  # type: ignore[assignment] - no reserve: room is all or nothing here
    try:
        yield
    finally:
        reserve.measure = measure
        for module, name, real in before:
            setattr(module, name, real)
