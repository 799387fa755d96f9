"""Whether output is lost because a disk takes nothing, and how much, of one run's log.

conmon goes on reading what its container prints, also while it cannot write it, and says so to
nobody. So while the disk has nothing left, or is read-only, what it has read (the kernel counts
that) is held against what its file has grown. Asked by rotation.py, four times a second.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from agent.runtime import logs
from agent.runtime.conmon import pid_in

NOTHING = 64 << 10  # bytes: what others leave of a full disk comes and goes
NOISE = 16  # bytes conmon reads of what is not output, at most


class Flow(NamedTuple):
    """What went through a run's conmon so far: bytes read; its log's file and size."""

    read: int
    inode: int
    size: int


class Losses:
    """``bytes`` were lost ``since`` (wall seconds) the disk takes nothing; 0 = none."""

    def __init__(self) -> None:
        self.bytes = 0
        self.since = 0.0
        self._before: Flow | None = None

    def look(self, flow: Flow | None, *, refused: bool, wall: float) -> str:
        """Take a look; return what is to be said once the disk takes something again (pure)."""
        before, self._before = self._before, flow if refused else None
        if before is not None and flow is not None:
            read = flow.read - before.read
            grown = flow.size - before.size if flow.inode == before.inode else read
            if read - grown > NOISE:
                self.since = self.since or wall
                self.bytes += read - grown
        if refused or not self.bytes:
            return ""
        said = logs.refused(self.bytes, self.since, wall)
        self.bytes, self.since = 0, 0.0
        return said


def refuses(directory: Path) -> bool:
    """Say whether nothing can be written where a log is."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return bool(found.f_flag & os.ST_RDONLY) or found.f_bfree * found.f_frsize < NOTHING


def flow(bundle: Path, log: Path) -> Flow | None:
    """Return what went through; None where nobody tells."""
    try:
        words = Path(f"/proc/{pid_in(bundle / 'conmon.pid')}/io").read_text().split()
        info = log.stat()
        return Flow(int(words[words.index("rchar:") + 1]), info.st_ino, info.st_size)
    except (OSError, ValueError, IndexError):
        return None
