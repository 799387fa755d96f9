"""Read a file that a user named, whatever it turns out to be, without waiting for it.

What a Compose file, an env file or a secret is said to be may be a directory, a device, a
named pipe nobody writes into, or a file without an end. Each is an OSError whose
``strerror`` says so in words, within a second: callers tell it like any unreadable file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time

TYPE_CHECKING = False  # not from typing: who only reads a line of a file needs no more than this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final

TEXT_LIMIT: Final = 4 * 1024 * 1024  # far above any file that people wrote
PIPE_SECONDS: Final = 0.5  # for all a named pipe holds; whoever offers one answers at once
_CHUNK: Final = 65536
_DEVICE: Final = "it is a device, not a file"
_SOCKET: Final = "it is a socket, not a file"


class FileTooLarge(OSError):
    """The file holds more than is read of it, or never ends."""

    def __init__(self, path: str, limit: int) -> None:
        size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
        super().__init__(errno.EFBIG, f"it is larger than {size}", path)


# Who wants to know what is looked at, and how it was.
_noted: list[tuple[dict[str, Any], Callable[[str], Any]]] = []


@contextlib.contextmanager
def noting(stamp: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    """Collect every path that is read or asked for meanwhile, absent ones too, and its stamp.

    That is taken before the first look at it. What was made of files can be used again while
    none of these has changed.
    """
    noted: tuple[dict[str, Any], Callable[[str], Any]] = ({}, stamp)
    _noted.append(noted)
    try:
        yield noted[0]
    finally:
        _noted[:] = [one for one in _noted if one is not noted]


def _note(path: str) -> None:
    name = os.fspath(path)
    for found, stamp in _noted:
        if name not in found:
            found[name] = stamp(name)


def exists(path: str) -> bool:
    """Say whether there is something at the path, noted."""
    _note(path)
    return os.path.exists(path)


def is_folder(path: str) -> bool:
    """Say whether the path is a folder, noted."""
    _note(path)
    return os.path.isdir(path)


def is_link(path: str) -> bool:
    """Say whether the path is a symbolic link, noted."""
    _note(path)
    return os.path.islink(path)


def read(path: str, limit: int = TEXT_LIMIT) -> bytes:
    """Return the bytes of a file; OSError when it cannot be read or has more than ``limit``.

    A pipe of the shell (``/dev/stdin``, ``<(command)``) is read to its end, since its writer
    was started for it; a named pipe gets ``PIPE_SECONDS``. ``/dev/null`` is an empty file.
    """
    _note(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # all that open() says of a socket
            raise OSError(errno.EINVAL, _SOCKET, path) from None
        raise
    try:
        return _contents(fd, path, limit)
    except BlockingIOError:  # some files of the kernel's are ordinary by name only
        raise OSError(errno.EAGAIN, "it has no end", path) from None
    finally:
        os.close(fd)


def _contents(fd: int, path: str, limit: int) -> bytes:
    found = os.fstat(fd)
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISCHR(mode) and found.st_rdev == os.makedev(1, 3):  # /dev/null
        return b""
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EINVAL, _DEVICE, path)
    if stat.S_ISREG(mode) and found.st_size > limit:
        raise FileTooLarge(path, limit)
    until: float | None = None
    if stat.S_ISFIFO(mode):
        if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
            os.set_blocking(fd, True)  # the shell's: this opening of it is ours alone
        else:
            until = time.monotonic() + PIPE_SECONDS
    data = bytearray()
    while chunk := _chunk(fd, path, until, begun=bool(data)):
        data += chunk
        if len(data) > limit:
            raise FileTooLarge(path, limit)
    return bytes(data)


def _chunk(fd: int, path: str, until: float | None, *, begun: bool) -> bytes:
    """Return the next bytes, none at the end; a named pipe (``until``) is waited for."""
    if until is not None:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        left = until - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            words = "and does not end" if begun else "into which nobody writes"
            raise OSError(errno.EINVAL, f"it is a named pipe {words}", path)
    return os.read(fd, _CHUNK)
