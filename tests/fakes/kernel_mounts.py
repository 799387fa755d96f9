"""mount(2) and umount2(2) as a table: what agent.volumes.mounted asks of the kernel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeMounts:
    """``there``: target -> what is mounted; ``before`` and ``after`` a call may kill the caller."""

    def __init__(self, monkeypatch, module) -> None:
        self.there: dict[str, tuple[str, str, int, str]] = {}
        self.fails = 0
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None
        monkeypatch.setattr(module.mounts, "is_mounted", lambda target: target in self.there)
        monkeypatch.setattr(module.kernel, "mount", self._mount)
        monkeypatch.setattr(module.kernel, "unmount", lambda target, _flags: self._unmount(target))
        monkeypatch.setattr(module, "_by_child", self._by_child)

    def _by_child(self, source: str, target: str, kind: str, flags: int, data: str) -> None:
        self._mount(source, target, kind, flags, data)

    def _mount(self, source: str, target: str, kind: str, flags: int, data: str) -> None:
        if self.before is not None:
            self.before()
        if self.fails:
            raise OSError(self.fails, os.strerror(self.fails))
        self.there[target] = (source, kind, flags, data)
        if self.after is not None:
            self.after()

    def _unmount(self, target: str) -> None:
        if self.before is not None:
            self.before()
        del self.there[target]
        # What is in it is out of sight: the folder below is empty again.
        for path in os.scandir(target):
            os.unlink(path)
        if self.after is not None:
            self.after()
