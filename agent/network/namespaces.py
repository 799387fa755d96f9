"""Network namespaces as files: make, enter, keep, drop.

A task's namespace lives as a bind mount of its nsfs inode under the run
directory, so it outlasts every process in it and every restart of ours.
Entering a namespace changes the calling *thread*; only the network thread may
call :func:`inside` and it always comes back (or the process must not go on).
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agent.linux import calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CURRENT = "/proc/thread-self/ns/net"


def open_current() -> int:
    """Return a descriptor of the calling thread's network namespace."""
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Run the calling thread in ``namespace`` and bring it back to ``home``."""
    calls.setns(namespace, calls.CLONE_NEWNET)
    try:
        yield
    finally:
        calls.setns(home, calls.CLONE_NEWNET)


def create(path: Path, home: int) -> int:
    """Make a namespace, keep it at ``path``, and return a descriptor of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444)
    calls.unshare(calls.CLONE_NEWNET)
    try:
        namespace = open_current()
        try:
            keep(path)
        except OSError:
            os.close(namespace)
            raise
    finally:
        calls.setns(home, calls.CLONE_NEWNET)
    return namespace


def keep(path: Path) -> None:
    """Bind the calling thread's namespace to the existing file ``path``."""
    calls.mount(_CURRENT, str(path), None, calls.MS_BIND)


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
    return calls.filesystem_type(descriptor) == calls.NSFS_MAGIC


def drop(path: Path) -> None:
    """Forget the namespace; it dies with its last process. Fine when it is gone already."""
    # Several binds may lie over each other when a crash came between mount and journal.
    with suppress(OSError):
        while True:
            calls.unmount(str(path), calls.MNT_DETACH)
    with suppress(FileNotFoundError):
        path.unlink()
