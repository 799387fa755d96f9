"""Write small files so that a reader, and a power cut, finds the old or the new one whole.

Everything of the agent that is trusted after a crash goes through here: the journal, the
images' records and references, what volumes and secrets put in place. A file is written
under a name of its own beginning with a dot, and renamed. What a kill between the two
leaves is such a dot file: :func:`sweep` takes it away where a directory is read as a list.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_file(
    path: Path,
    data: bytes,
    *,
    durable: bool = True,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace a file atomically; ``durable`` = it survives a power cut once this returns.

    Mode and owner are in force before the name is. Raises OSError and leaves no trace.
    """
    # A name for each call: two threads may write the same file, the last one wins.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(fd, data)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: those created, renamed, deleted."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``; write(2) may take a part only (a full disk, a signal)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sweep(directory: Path) -> None:
    """Delete what :func:`write_file` left when it was killed."""
    for path in directory.iterdir():
        if path.name.startswith(".") and path.is_file():
            path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Delete a directory that a container or an archive shaped; depth is no obstacle."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        # rm walks with relative names, so paths beyond PATH_MAX and any depth go too.
        command = ["rm", "-rf", "--one-file-system", "--", str(path)]
        subprocess.run(command, check=True, capture_output=True)
