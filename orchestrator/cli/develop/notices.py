"""When files change: the kernel's notices, a burst of them at once.

inotify by hand, as the agent has it: what is needed of it is "look again in these folders", and no
more. The libraries there are tell single changes instead, would have to be looked behind just the
same where notices were lost, and would travel to every node in the agents' bundle. Where the kernel
watches no more folders, or the files lie where it sees no change, everything is looked at again
every few seconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = 0.25  # seconds without a notice that end a burst
LONGEST = 5.0  # seconds after which one is taken as it is
POLL = 2.0  # seconds between two looks where the kernel tells nothing

_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x40, 0x80
_CREATE, _DELETE, _ONLYDIR, _ISDIR = 0x100, 0x200, 0x01000000, 0x40000000
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_MASK = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_SAYS_MORE = _MODIFY | _MOVED_TO | _CREATE  # also where size and time stay as they were
_HEAD = struct.Struct("iIII")
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC


class Noticed:
    """What a burst says: folders to look at again, files that changed whatever a look says."""

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self.files: set[str] = set()
        self.everything = False


class Burst:
    """When a burst of notices is over (pure)."""

    def __init__(self, now: float) -> None:
        self._began = self._last = now

    def more(self, now: float) -> None:
        """Take one more notice."""
        self._last = now

    def left(self, now: float) -> float:
        """Return the seconds to wait; 0 and less: it is over."""
        return min(self._last + QUIET, self._began + LONGEST) - now


class FolderNotices:
    """An inotify descriptor and the folders it watches."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_NONBLOCK_CLOEXEC)
        self.deaf = "" if self._fd >= 0 else os.strerror(ctypes.get_errno())
        self._path: dict[int, str] = {}
        self._number: dict[str, int] = {}
        self._looked = time.monotonic()

    def watch(self, folder: str) -> bool:
        """Hear of changes in the folder; where that cannot be, of everything every POLL s.

        The kernel is asked each time, for it ends a watch with its folder and tells so later; and
        it says whether it is a new watch: another folder than what was called so till now.
        """
        if self.deaf:
            return False
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
        if number >= 0:
            # A folder that was moved keeps its watch: whatever was called so is to be forgotten
            # without ending it.
            new: bool = self._number.get(folder) != number
            self._number.pop(self._path.get(number, ""), None)
            self._path[number] = folder
            self._number[folder] = number
            return new
        error = ctypes.get_errno()
        if error == errno.ENOSPC:
            self.deaf = "the kernel watches no more folders (sysctl fs.inotify.max_user_watches)"
        elif error not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            self.deaf = os.strerror(error)
        return False

    def forget(self, folder: str) -> None:
        """Take it that the folder of this name is another one by now, or none."""
        number = self._number.pop(folder, None)
        if number is not None:
            self._path.pop(number, None)
            self._libc.inotify_rm_watch(self._fd, number)

    def wait(self, seconds: float, wanted: Callable[[str, bool], bool]) -> Noticed | None:
        """Return a burst once it is over; None where none began in this time.

        ``wanted`` says of a path, and whether it is a folder, whether it is anybody's.
        """
        until = time.monotonic() + seconds
        burst: Burst | None = None
        found = Noticed()
        while True:
            now = time.monotonic()
            left = until - now if burst is None else burst.left(now)
            if left <= 0:
                break
            if self.deaf:
                time.sleep(max(0.0, min(left, self._looked + POLL - now)))
                if time.monotonic() < self._looked + POLL:
                    return None
                self._looked = time.monotonic()
                found.everything = True
                return found
            ready, _, _ = select.select([self._fd], [], [], left)
            if ready and self._read(found, wanted):
                now = time.monotonic()
                burst = burst or Burst(now)
                burst.more(now)
        return found if burst is not None else None

    def _read(self, found: Noticed, wanted: Callable[[str, bool], bool]) -> bool:
        """Take the notices there are; say whether one of them is anybody's."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        any_, at = False, 0
        while at < len(data):
            number, mask, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            if mask & _OVERFLOW:
                found.everything = any_ = True
                continue
            folder = self._path.get(number)
            if mask & _IGNORED:
                if folder is not None and self._number.get(folder) == number:
                    del self._number[folder]
                self._path.pop(number, None)
            if folder is None or not name:
                continue
            path = f"{folder.rstrip('/')}/{os.fsdecode(name)}"
            if not wanted(path, bool(mask & _ISDIR)):
                continue
            any_ = True
            found.folders.add(folder)
            if mask & _SAYS_MORE and not mask & _ISDIR:
                found.files.add(path)
        return any_
