"""Network namespaces as files: make, enter, keep, drop.

A task's namespace lives as a bind mount of its nsfs inode under the run
directory, so it outlasts every process in it and every restart of ours.
Entering a namespace changes the calling *thread*; only the network thread may
call :func:`inside` and it always comes back (or the process must not go on).
Python 3.11 has no os.setns, hence libc by ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_NSFS_MAGIC = 0x6E736673
_CURRENT = "/proc/thread-self/ns/net"


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def open_current() -> int:
    """Return a descriptor of the calling thread's network namespace."""
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Run the calling thread in ``namespace`` and bring it back to ``home``."""
    _check(_libc.setns(namespace, _CLONE_NEWNET), "enter network namespace")
    try:
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET), "leave network namespace")


def create(path: Path, home: int) -> int:
    """Make a namespace, keep it at ``path``, and return a descriptor of it."""
    path.touch(mode=0o444)
    _check(_libc.unshare(_CLONE_NEWNET), "make network namespace")
    try:
        namespace = open_current()
        try:
            keep(path)
        except OSError:
            os.close(namespace)
            raise
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET), "leave network namespace")
    return namespace


def keep(path: Path) -> None:
    """Bind the calling thread's namespace to the existing file ``path``."""
    target = os.fsencode(path)
    result = _libc.mount(_CURRENT.encode(), target, b"none", ctypes.c_ulong(_MS_BIND), None)
    _check(result, f"bind namespace to {path}")


def open_kept(path: Path) -> int | None:
    """Return a descriptor of the namespace kept at ``path``; None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    if is_namespace(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def is_namespace(descriptor: int) -> bool:
    """Say whether the descriptor is of nsfs, not of the empty file a crash left behind."""
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with f_type
    _check(_libc.fstatfs(descriptor, ctypes.byref(buffer)), "look at namespace file")
    return int(buffer[0]) == _NSFS_MAGIC


def drop(path: Path) -> None:
    """Forget the namespace; it dies with its last process. Fine when it is gone already."""
    # Several binds may lie over each other when a crash came between mount and journal.
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass
    with suppress(FileNotFoundError):
        path.unlink()
