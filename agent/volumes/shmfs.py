"""The shared memory of tasks that lend it to others (``ipc: shareable``): a tmpfs each.

Called by agent.volumes.store. A container's own /dev/shm is mounted by the runtime and is nobody
else's to mount; of these tasks it is made below the run directory, where the tasks that share it
find it. Each run begins with an empty one, as in Docker, and it goes with the task.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from agent.errors import Later
from agent.linux import calls as kernel
from agent.linux import mounts
from agent.vocabulary import BoundMount
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from pathlib import Path

TARGET: Final = "/dev/shm"
OPTIONS: Final = ("rbind", "rprivate", "rw", "nosuid", "nodev", "noexec")
_FLAGS: Final = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


class ShmFs:
    """The tmpfs directories of one node's tasks. All methods block."""

    def __init__(self, run_dir: Path) -> None:
        self._root = run_dir / "shm"
        self._make_root()

    def _make_root(self) -> None:
        """Make the parent of all; again at each use, because people tidy up below /run."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def place(self, task: str, size: int) -> BoundMount:
        """Make the task's shared memory, empty, and return its mount. Raises Later."""
        home = self._root / task
        try:
            self._make_root()
            home.mkdir(mode=0o700, exist_ok=True)
            self._take_off(home)
            kernel.mount("corral-shm", str(home), "tmpfs", _FLAGS, f"mode=1777,size={size}")
        except OSError as error:
            raise Later(f"cannot make its shared memory: {in_words(error)}") from None
        return BoundMount(str(home), TARGET, "bind", OPTIONS)

    def remove(self, task: str) -> None:
        """Unmount and remove what the task has; nothing is fine."""
        home = self._root / task
        self._take_off(home)
        with contextlib.suppress(FileNotFoundError):
            home.rmdir()

    def tasks(self) -> set[str]:
        """Return the tasks that have some."""
        try:
            return {path.name for path in self._root.iterdir()}
        except FileNotFoundError:  # somebody tidied up below /run
            return set()

    def _take_off(self, home: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            while home.stat().st_dev != self._root.stat().st_dev:
                mounts.take_off(str(home))
