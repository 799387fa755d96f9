"""Write small files so that a reader, and a power cut, finds the old or the new one whole.

Everything both daemons trust after a crash goes through here: keys, the agent's journal, the
images' records and references, what volumes and secrets put in place. A file is written
under a name of its own beginning with a dot, and renamed. What a kill between the two
leaves is such a dot file: :func:`sweep` takes it away where a directory is read as a list.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Callable
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
    temporary = _beside(path)
    try:
        _write(temporary, data, durable=durable, mode=mode, owner=owner)
        reached("disk.before_rename")
        temporary.rename(path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)  # not the name beside it, and a write names none
        temporary.unlink(missing_ok=True)
        raise
    reached("disk.after_rename")
    if durable:
        sync(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Make a file whole and durable, unless one is there: of two at once the first one's stays.

    Returns whether it is ours.
    """
    temporary = _beside(path)
    try:
        _write(temporary, data, durable=True, mode=mode, owner=None)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _beside(path: Path) -> Path:
    # A name for each call: two threads may write the same file, the last one wins.
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}")


def _write(
    path: Path, data: bytes, *, durable: bool, mode: int, owner: tuple[int, int] | None
) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)
        reached("disk.before_sync")
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """Make a file's content durable, or a directory's names: those created, renamed, deleted."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def exchange(one: Path, other: Path) -> None:
    """Give each of two files or folders of a file system the other's name, at once (rename(2)).

    Raises OSError: EINVAL where the file system cannot.
    """
    import ctypes  # noqa: PLC0415 - 5 ms that only who exchanges has to wait for

    libc = ctypes.CDLL(None, use_errno=True)
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), both) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def sync_tree(path: Path) -> None:
    """Make all that was written below a directory durable: its file system is."""
    subprocess.run(["sync", "--file-system", "--", str(path)], check=True, capture_output=True)


def make_folder(path: Path, *, mode: int = 0o700) -> None:
    """Make a directory, and those above it that are missing, so that a power cut leaves it there.

    A file in it can be as durable as it likes: without the directory's own name it is lost.
    """
    if not path.parent.exists():
        make_folder(path.parent, mode=0o755)
    path.mkdir(mode=mode, exist_ok=True)
    # One that is there may be an earlier life's, killed before this line.
    sync(path.parent)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``; write(2) may take a part only (a full disk, a signal)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sweep(directory: Path) -> None:
    """Delete what :func:`write_file` left when it was killed; on a disk that lets it."""
    for path in directory.iterdir():
        if path.name.startswith(".") and path.is_file():
            with contextlib.suppress(OSError):  # read-only: nothing new lies there either
                path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Delete a directory that a container or an archive shaped; depth is no obstacle."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        subprocess.run(_rm(path), check=True, capture_output=True)


def take_away(path: Path) -> None:
    """Delete a directory that is out of its place at once; missing is fine.

    A kill meanwhile leaves ``.new-...`` beside it, for the owner of the folder to sweep.
    """
    gone = path.with_name(f".new-{os.urandom(8).hex()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
    remove_tree(gone)


def _rm(path: Path) -> list[str]:
    # rm walks with relative names, so paths beyond PATH_MAX and any depth go too.
    return ["rm", "-rf", "--one-file-system", "--", str(path)]


class Remover:
    """Deletes trees of any size beside whoever made them: one at a time, by a program of its own.

    Called from event loops and threads alike; never waits. What is under way when the process
    ends stays half deleted, so callers hand over only what a later start would sweep anyway.
    """

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Path, Callable[[], None]]] = queue.SimpleQueue()
        self._started = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self.pending = 0

    def remove(self, path: Path, then: Callable[[], None] = lambda: None) -> None:
        """Delete ``path``, an empty directory at once; call ``then`` when it is gone."""
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            with self._lock:
                self.pending += 1
                if not self._started:
                    self._started = True
                    # A daemon thread: nobody waits for a large tree to go.
                    threading.Thread(target=self._run, name="removal", daemon=True).start()
            self._given.put((path, then))
            return
        then()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing is left to delete; False when the time was up first."""
        with self._idle:
            return self._idle.wait_for(lambda: self.pending == 0, timeout)

    def _run(self) -> None:
        while True:
            path, then = self._given.get()
            # It dies with us: a later start finds the rest, and two never delete at once.
            command = ["setpriv", "--pdeathsig", "KILL", "nice", *_rm(path)]
            with contextlib.suppress(OSError):
                subprocess.run(command, check=False, capture_output=True)
            then()
            with self._idle:
                self.pending -= 1
                self._idle.notify_all()
