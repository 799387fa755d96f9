"""The Linux calls that Python 3.11 lacks: mount, pivot_root, openat2, unshare, setns, inotify.

The agent's one way to libc: the unpacking child, overlay mounts, volumes, tasks' network
namespaces, the spawner and the log followers. Stdlib only, because the child that reads
hostile archives imports it. Every function raises OSError with the path in it; none of
them decides anything.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8
CLONE_FS: Final = 0x200
CLONE_NEWNS: Final = 0x20000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWNET: Final = 0x40000000
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10
OVERLAY_MAGIC: Final = 0x794C7630
TMPFS_MAGIC: Final = 0x01021994
NSFS_MAGIC: Final = 0x6E736673
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38

# Generic system call numbers, the same on every architecture since 5.x (openat2, 437);
# pivot_root and capset differ, so they go through libc or a table.
_SYS_OPENAT2: Final = 437
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_AT_FDCWD: Final = -100
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
_RACES: Final = 32  # whoever renames for ever in a tree must not hold us for ever
_CAPABILITY_VERSION_3: Final = 0x20080522


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """Mount something, or change a mount (mount(2))."""
    _check(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            os.fsencode(data) if data else None,
        ),
        target,
    )


def unmount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """Unmount what is mounted on top at ``target`` (umount2(2))."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def copy_mount(point: str) -> int:
    """Return a descriptor of a copy of what is mounted at ``point``: it stays when that goes."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(point), flags), point)


def place_mount(copy: int, target: str) -> None:
    """Mount what :func:`copy_mount` returned."""
    _check(
        _libc.syscall(
            *(_SYS_MOVE_MOUNT, copy, b"", _AT_FDCWD, os.fsencode(target)),
            _MOVE_MOUNT_F_EMPTY_PATH,
        ),
        target,
    )


def unshare(flags: int) -> None:
    """Take the calling thread out of shared namespaces or attributes (unshare(2))."""
    _check(_libc.unshare(flags), "unshare")


def setns(namespace: int, kind: int) -> None:
    """Move the calling thread into the namespace of a descriptor (setns(2))."""
    _check(_libc.setns(namespace, kind), "setns")


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds ``fd`` to disk."""
    _check(_libc.syncfs(fd), "syncfs")


def prctl(option: int, value: int = 0) -> None:
    """Set an attribute of the calling process (prctl(2))."""
    _check(_libc.prctl(option, *(ctypes.c_ulong(v) for v in (value, 0, 0, 0))), f"prctl {option}")


def pivot_into(directory: str) -> None:
    """Make ``directory`` (a mount point) the root, with nothing of the old tree reachable."""
    os.chdir(directory)
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    # pivot_root(".", ".") stacks the old root on the new one (pivot_root(2), NOTES).
    _check(_libc.syscall(number, b".", b"."), directory)
    unmount(".", MNT_DETACH)
    os.chdir("/")


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def open_inside(root: int, path: str, flags: int, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open ``path`` below the directory ``root``; no link of any kind leads out of it."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve | RESOLVE_NO_MAGICLINKS)
    for _ in range(_RACES):
        result = _libc.syscall(
            _SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
        )
        if result >= 0:
            return int(result)
        # A rename elsewhere in the tree makes ".." unsafe for a moment (openat2(2)).
        if ctypes.get_errno() != errno.EAGAIN:
            return _check(result, path)
    raise OSError(errno.EAGAIN, "the path keeps changing", path)


class _StatFs(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_long),
        ("rest", ctypes.c_char * 256),
    ]


def filesystem_type(where: str | int) -> int:
    """Return the magic number of the file system at a path, or of an open file (statfs(2))."""
    result = _StatFs()
    if isinstance(where, int):
        _check(_libc.fstatfs(where, ctypes.byref(result)), "fstatfs")
    else:
        _check(_libc.statfs(os.fsencode(where), ctypes.byref(result)), where)
    return int(result.type)


def inotify_open() -> int:
    """Return a new inotify descriptor that never blocks (inotify_init1(2))."""
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")


def inotify_watch(fd: int, path: str, mask: int) -> int:
    """Watch ``path`` for the events of ``mask``; return the watch's number."""
    return _check(_libc.inotify_add_watch(fd, os.fsencode(path), mask), path)


def inotify_forget(fd: int, watch: int) -> None:
    """Watch no longer."""
    _check(_libc.inotify_rm_watch(fd, watch), "inotify")


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def keep_capabilities(numbers: frozenset[int]) -> None:
    """Give up every capability of this process except ``numbers``."""
    mask = sum(1 << number for number in numbers)
    halves = (_CapData * 2)()
    for index in (0, 1):
        part = (mask >> (32 * index)) & 0xFFFFFFFF
        halves[index].effective = halves[index].permitted = part
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(halves)), "capset")
