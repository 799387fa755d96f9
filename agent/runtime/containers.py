"""Containers of tasks: the seam the runner uses, and the real one on conmon and crun.

A task has at most one container at a time, named by the task id. Everything of a
container that is meaningless after a reboot is in its bundle directory on tmpfs:
config.json, conmon's pid and control files, the exit file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.runtime import conmon, exits, logreading, logs, usage
from agent.runtime.failure import RuntimeFailure
from agent.runtime.rotation import Followed
from agent.vocabulary import FoundRun, Process
from specs.kit import disk
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from agent.runtime.crun import Runtime
    from agent.runtime.rotation import Rotation
    from agent.vocabulary import Exit
    from specs.inside import TaskProcess, TaskUsage
    from specs.stack import TaskSpec


LAST_BYTES = 64 << 10  # of a log, read on the loop to tell why a task failed
_JOINED = re.compile(r"/proc/(\d+)/ns/(?:pid|ipc)")
_RUN_FILES = ("pid", "conmon.pid", "oom", "exit", "ctl", "winsz", "attach")


@dataclass(frozen=True)
class OciContainers:
    """Containers by conmon and an OCI runtime."""

    runtime: Runtime
    conmon: str
    bundles: Path
    tasks: Path
    cgroup: str
    rotation: Rotation

    def bundle(self, task: str) -> Path:
        """Return the task's bundle directory."""
        return self.bundles / task

    def logs(self, task: str) -> Path:
        """Return the directory of the task's logs."""
        return self.tasks / task / "log"

    def write(self, task: str, config: dict[str, Any]) -> None:
        directory = self.bundle(task)
        (directory / "exits").mkdir(mode=0o700, parents=True, exist_ok=True)
        reached("rt.after_bundle")
        disk.write_file(
            directory / "config.json", json.dumps(config).encode(), durable=False, mode=0o644
        )

    def config(self, task: str) -> dict[str, Any]:
        """Return the task's config.json. Raises RuntimeFailure."""
        try:
            config = json.loads((self.bundle(task) / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"the task's bundle cannot be read: {error}") from error
        assert isinstance(config, dict)
        return config

    async def create(
        self, task: str, run: int, spec: TaskSpec, *, once: bool = False
    ) -> tuple[Process, Process]:
        self._remove_run_files(task)
        folder = self.logs(task)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs.prune(folder, spec.logging)  # of a container that crashes again and again
        request = conmon.Request(
            container=task,
            directory=self.bundle(task),
            log=None if spec.logging.driver == "none" else logs.path_of(folder, run),
            log_max=logs.file_size(spec.logging),
            terminal=spec.tty,
            stdin=spec.stdin_open,
            stays=spec.tty or not once,
        )
        made = await conmon.create(self.conmon, self.runtime, request)
        reached("rt.after_create")
        if request.log is not None:
            # Before it prints anything, so that no file is missed however fast it is.
            with contextlib.suppress(OSError):
                logs.settle(folder, run, logs.Count(), request.log_max)
            self.rotation.begin(Followed(task, run, folder, self.bundle(task), spec.logging))
        return made

    async def start(self, task: str) -> None:
        await self.runtime.start(task)
        reached("rt.after_start")

    async def state(self, task: str) -> str | None:
        return await self.runtime.state(task)

    async def find(self, task: str) -> FoundRun | None:
        """Return the task's run by conmon's files and the runtime's word.

        A pid of a file is believed only where it is in the task's own cgroup, or where conmon
        told the exit: the number may be a stranger's by now.
        """
        process = exits.identify(conmon.pid_in(self.bundle(task) / "pid"))
        monitor = exits.identify(conmon.pid_in(self.bundle(task) / "conmon.pid"))
        if process is not None and not exits.is_member(process, self.cgroup, task):
            process = None
        if process is None and not (self.bundle(task) / "exits" / task).exists():
            return None
        gone = Process(pid=0, start=0)
        pieces = logs.pieces(self.logs(task))
        return FoundRun(
            number=max((piece.run for piece in pieces), default=1),
            process=process or gone,
            monitor=monitor or gone,
            begun=process is None or await self.runtime.state(task) != "created",
            age=exits.age(process) if process is not None else 0.0,
            paused=exits.is_frozen(self.cgroup, task),
            beside=self._beside(task),
        )

    def _beside(self, task: str) -> Process | None:
        """Return the process whose namespaces the task's run was made to join, by its bundle."""
        try:
            pid = joined(self.config(task))
        except (RuntimeFailure, KeyError):
            return None
        return exits.identify(pid) or Process(pid=pid, start=0) if pid else None

    async def follow(self, task: str, process: Process, monitor: Process) -> Exit:
        return await exits.follow(process, monitor, self.bundle(task), (self.cgroup, task))

    def send(self, process: Process, number: int) -> bool:
        return exits.send(process, number)

    async def freeze(self, task: str, *, paused: bool) -> None:
        await exits.freeze(self.cgroup, task, paused=paused)

    def usage(self, task: str, process: Process) -> TaskUsage | None:
        """Return what the task uses; None when it has ended. Blocks a little."""
        return usage.usage(self.cgroup, task, process)

    def processes(self, task: str) -> tuple[TaskProcess, ...]:
        """Return the task's processes. Blocks a little."""
        return usage.processes(self.cgroup, task)

    async def clear(self, task: str) -> None:
        self._kill_monitor(task)
        try:
            await exits.kill_cgroup(self.cgroup, task)
        except TimeoutError:
            raise RuntimeFailure(
                "a process of the task cannot be killed; the kernel holds it"
            ) from None
        reached("stop.after_kill")
        # In a thread: the kernel may take its time to take a control group down.
        await asyncio.to_thread(exits.remove_cgroup, self.cgroup, task)
        await self.runtime.delete(task)
        reached("stop.after_delete")
        await self.runtime.spawner.forget(f"{self.cgroup}/{task}")
        self._remove_run_files(task)

    def _kill_monitor(self, task: str) -> None:
        """Kill a conmon that outlived its run (or our attempt to make one)."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.bundle(task) / "conmon.pid").read_text())
            monitor = exits.identify(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if monitor is not None and b"--cid" in words and task.encode() in words:
                exits.send(monitor, signal.SIGKILL)

    def _remove_run_files(self, task: str) -> None:
        directory = self.bundle(task)
        for path in (*(directory / name for name in _RUN_FILES), directory / "exits" / task):
            path.unlink(missing_ok=True)

    async def erase(self, task: str) -> None:
        if (
            (self.bundle(task) / "conmon.pid").exists()
            or (self.runtime.root / task).exists()
            or exits.cgroup_dirs(self.cgroup, task)
        ):
            await self.clear(task)
        shutil.rmtree(self.bundle(task), ignore_errors=True)

    def last_lines(self, task: str, count: int) -> list[str]:
        found = logreading.last_lines(self.logs(task), count, LAST_BYTES)
        return [line.line for line in found]

    def known(self) -> set[str]:
        found: set[str] = set()
        for folder in (self.bundles, self.runtime.root):
            with contextlib.suppress(FileNotFoundError):
                found.update(path.name for path in folder.iterdir())
        for place in exits.cgroup_dirs(self.cgroup, ""):
            found.update(entry.name for entry in os.scandir(place) if entry.is_dir())
        return found


def joined(config: dict[str, Any]) -> int:
    """Return the pid of the process whose namespaces an OCI configuration joins; 0 = nobody's."""
    for one in config["linux"]["namespaces"]:
        if match := _JOINED.fullmatch(one.get("path", "")):
            return int(match[1])
    return 0
