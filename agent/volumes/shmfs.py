"""The shared memory of tasks that lend it to others (``ipc: shareable``): a tmpfs each.

Called by agent.volumes.store. A container's own /dev/shm is mounted by the runtime and is nobody
else's to mount; of these tasks it is made below the run directory, where the tasks that share it
find it. Each run begins with an empty one, as in Docker, and it goes with the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.errors import Later
from agent.linux import calls as kernel
from agent.vocabulary import BoundMount
from agent.volumes.taskfs import TaskFs
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from pathlib import Path

TARGET: Final = "/dev/shm"
OPTIONS: Final = ("rbind", "rprivate", "rw", "nosuid", "nodev", "noexec")
_FLAGS: Final = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


class ShmFs(TaskFs):
    """Those with shared memory."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir / "shm")

    def place(self, task: str, size: int) -> BoundMount:
        """Make the task's shared memory, empty, and return its mount. Raises Later."""
        home = self._home(task)
        try:
            self._make_root()
            home.mkdir(mode=0o700, exist_ok=True)
            self._take_off(task)
            kernel.mount("corral-shm", str(home), "tmpfs", _FLAGS, f"mode=1777,size={size}")
        except OSError as error:
            raise Later(f"cannot make its shared memory: {in_words(error)}") from None
        return BoundMount(str(home), TARGET, "bind", OPTIONS)
