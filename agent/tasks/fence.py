"""Who instructs this node, durably: the fence against a controller that came before.

A file beside the set, which it outlives when that is damaged. The journal writes it before
anything of a new controller is taken, and takes nothing where that cannot be: an epoch that only
memory knows would let the former controller in again after a restart of the agent. A full disk
has room for it, because it is overwritten where it is: less than a sector of the disk, so whole
or not at all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from specs import skew
from specs.kit.disk import write_file
from specs.kit.failpoints import reached
from specs.kit.room import lacks_room
from specs.wire import Stamp

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 512  # bytes: a sector; a stamp has about 80, the rest is blank


class Fence:
    """``stamp`` is the newest one that is durable, for its cluster and epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stamp: Stamp | None = None

    def load(self) -> str:
        """Read the file; return why it cannot be read."""
        try:
            self.stamp = skew.decode(Stamp, self._path.read_bytes()).value
        except FileNotFoundError:
            return ""
        except (OSError, skew.Unreadable) as error:
            return str(error)
        return ""

    def note(self, stamp: Stamp) -> None:
        """Make it durable that this one's controller has spoken. Raises OSError."""
        known = self.stamp
        if known is None or (known.cluster, known.epoch) != (stamp.cluster, stamp.epoch):
            reached("epoch.noted")
            self._write(stamp)
            self.stamp = stamp

    def rewrite(self) -> None:
        """Write the file as it is, to know whether the disk can be written to. Raises OSError."""
        if self.stamp is not None:
            self._write(self.stamp)

    def forget(self) -> None:
        """Remove the file: the next cluster may pin this node."""
        self._path.unlink(missing_ok=True)
        self.stamp = None

    def _write(self, stamp: Stamp) -> None:
        data = stamp.encode().ljust(SIZE)
        try:
            write_file(self._path, data)
        except OSError as error:
            if not lacks_room(error) or not self._overwrite(stamp.encode()):
                raise

    def _overwrite(self, data: bytes) -> bool:
        """Write into the file there is, which needs no room; False = there is none as large."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            size = os.fstat(fd).st_size
            if len(data) > size or os.pwrite(fd, data.ljust(size), 0) != size:
                return False
            os.fsync(fd)
        finally:
            os.close(fd)
        return True
