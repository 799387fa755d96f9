"""Directories below the run directory, one a task, each with a tmpfs of its own.

What is in them is said in secretfs.py and shmfs.py: here they are told and taken away.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.linux import mounts

if TYPE_CHECKING:
    from pathlib import Path


class TaskFs:
    """The tmpfs directories of one node's tasks, of one kind. All methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._make_root()

    def _make_root(self) -> None:
        """Make the parent of all; again at each use, because people tidy up below /run."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _home(self, task: str) -> Path:
        return self._root / task

    def mounted(self, task: str) -> bool:
        try:
            inside = self._home(task).stat().st_dev
        except FileNotFoundError:
            return False
        return inside != self._root.stat().st_dev

    def _take_off(self, task: str) -> None:
        while self.mounted(task):
            mounts.take_off(str(self._home(task)))

    def remove(self, task: str) -> None:
        """Unmount and remove what the task has; nothing is fine."""
        self._take_off(task)
        with contextlib.suppress(FileNotFoundError):
            self._home(task).rmdir()

    def tasks(self) -> set[str]:
        """Return the tasks that have something here."""
        try:
            return {path.name for path in self._root.iterdir()}
        except FileNotFoundError:  # somebody tidied up below /run
            return set()
