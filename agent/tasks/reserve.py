"""Room set aside on the disk for what must be written when it is full.

A few files beside the journal: each is an inode and a piece of the disk. When a write finds no
room one is given up and the write is tried again, so what others write at the same time gets no
more than that. They are made again when there is room for them and for others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from typing import TYPE_CHECKING, TypeVar

from specs.kit.room import lacks_room, measure, shortage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)
T = TypeVar("T")

PIECES = 4
SIZE = 1 << 20


class Reserve:
    """The files of one folder; any thread may ask."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.whole = False  # all of it is there

    def provide(self) -> None:
        """Make what is missing, if that leaves room for others."""
        with self._lock, contextlib.suppress(OSError):
            room = measure(self._folder)
            if self.whole or room is None:
                return
            if shortage(room._replace(free=room.free - PIECES * SIZE), str(self._folder)):
                return
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for path in self._paths():
                _preallocate(path)
            self.whole = True

    def spending(self, write: Callable[[], T]) -> T:
        """Write; where there is no room, give up a piece and try again. Raises OSError."""
        while True:
            try:
                return write()
            except OSError as error:
                if not lacks_room(error) or not self._give():
                    raise

    def _give(self) -> bool:
        """Give up a piece; False: none is left."""
        with self._lock:
            self.whole = False
            for path in self._paths():
                with contextlib.suppress(OSError):
                    path.unlink()
                    log.warning("the disk is full: a part of the reserve is given up")
                    return True
        return False

    def remove(self) -> None:
        """Give all of it back."""
        with self._lock:
            self.whole = False
            shutil.rmtree(self._folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return [self._folder / str(number) for number in range(PIECES)]


def _preallocate(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size < SIZE:
            os.posix_fallocate(fd, 0, SIZE)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
