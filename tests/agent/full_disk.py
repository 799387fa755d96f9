"""A disk of a given size below one folder: what does not fit is ENOSPC, as from the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class Disk:
    """``size`` bytes of file contents; None = without end. Only files below ``home`` count.

    ``hungry``: a container takes every byte that becomes free at once, so nothing ever fits.
    """

    def __init__(self, monkeypatch, home: Path):
        self.home = home
        self.size: int | None = None
        self.refused = 0
        self._write, self._fallocate = os.write, os.posix_fallocate
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "posix_fallocate", self.fallocate)

    @property
    def used(self) -> int:
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes."""
        self.size = self.used + left

    def empty(self) -> None:
        """Make room without end."""
        self.size = None

    def _fits(self, fd: int, more: int) -> bool:
        path = Path(f"/proc/self/fd/{fd}").resolve()
        if self.size is None or self.home not in path.parents:
            return True
        return self.used + more <= self.size

    def write(self, fd, data):
        if not self._fits(fd, len(data)):
            self.refused += 1
            if len(data) > 8:
                self._write(fd, bytes(data[:8]))  # a part of it is there, as on a real one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(fd, data)

    def fallocate(self, fd, offset, length):
        if not self._fits(fd, length):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._fallocate(fd, offset, length)
