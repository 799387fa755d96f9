"""Call the OCI runtime: crun, or runc where crun is missing. No state of its own.

``agent/runtime/containers.py`` orders these calls. All are started through the
spawner and have a deadline: a hung runtime delays one task, never the agent.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.runtime.failure import RuntimeFailure, from_runtime
from specs.kit import programs
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from pathlib import Path

    from agent.runtime.spawner import Spawner

TIMEOUT = 60.0


def find_runtime() -> tuple[str, str]:
    """Return the path and the name of the runtime to use. Raises RuntimeFailure."""
    for name in ("crun", "runc"):
        path = programs.find(name)
        if path:
            return path, name
    raise RuntimeFailure("neither crun nor runc is installed; install Debian's crun package")


def scratch(folder: Path) -> dict[str, str]:
    """Return the setting that makes crun keep its temporary file in ``folder``, not in /tmp.

    crun copies itself there before it enters a container; one that is killed meanwhile
    leaves the file, and in ``folder`` it goes with the task.
    """
    return {"_LIBCONTAINER_STATEDIR": str(folder)}


@dataclass(frozen=True)
class Runtime:
    """One runtime program with the directory it keeps its state in."""

    path: str
    name: str
    root: Path
    spawner: Spawner

    def argv(self, *words: str) -> list[str]:
        """Return a command line of the runtime."""
        return [self.path, f"--root={self.root}", *words]

    async def start(self, container: str) -> None:
        """Let a created container's command run."""
        if self.name != "crun" or not self._let_go(container):
            await self._checked("start", container)

    def _let_go(self, container: str) -> bool:
        """Start it as `crun start` does; False: crun is to do it, and says why it cannot.

        All that program does (8 ms, 25 on a busy machine; our bundles have no hooks of its) is a
        byte into the pipe the container waits at.
        """
        pipe = self.root / container / "exec.fifo"
        try:
            # Without waiting: one that nobody reads is of a container that has ended.
            fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # In this order: the pipe's absence is how crun knows that it was started.
            pipe.unlink(missing_ok=True)
            os.write(fd, b"\0")
        except OSError as error:
            raise RuntimeFailure(f"it ended before it was started: {in_words(error)}") from error
        finally:
            os.close(fd)
        return True

    async def delete(self, container: str) -> None:
        """Delete a container whose processes and cgroups are gone; unknown ones are fine."""
        state = self.root / container
        if not state.exists():
            return
        if self.name == "crun":
            # With processes and cgroups gone, crun's own delete only removes this directory.
            # Doing it here saves the start of a program (7 ms) for every run that ends.
            shutil.rmtree(state)
            return
        done = await self.spawner.run(self.argv("delete", "--force", container), timeout=TIMEOUT)
        if done.code != 0 and (self.root / container).exists():
            raise RuntimeFailure(f"{self.name} delete: {done.output.strip()}")

    async def state(self, container: str) -> str | None:
        """Return created, running, paused or stopped; None when the runtime knows no such one."""
        if not (self.root / container).exists():
            return None
        done = await self.spawner.run(self.argv("state", container), timeout=TIMEOUT)
        if done.code != 0:
            return None
        try:
            return str(json.loads(done.output)["status"])
        except (ValueError, KeyError):
            return None

    async def version(self) -> str:
        """Return e.g. ``crun 1.8.1``."""
        done = await self.spawner.run([self.path, "--version"], timeout=TIMEOUT)
        words = done.output.split()
        return f"{self.name} {words[2]}" if len(words) > 2 else self.name

    async def _checked(self, *words: str) -> None:
        done = await self.spawner.run(self.argv(*words), timeout=TIMEOUT)
        if done.code != 0:
            raise from_runtime(done.output or f"{self.name} {words[0]} failed")
