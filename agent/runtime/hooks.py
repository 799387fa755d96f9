"""Run the hooks of a task by what `exec` uses; what they print goes to the log of its run.

conmon appends to that log, and so do we, whole lines in one write each. A line begins with the
kind of the hook, so that who reads the log sees whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from agent.runtime import conmon, exits, logs
from agent.runtime import exec as execution
from agent.runtime.spawner import readable
from specs.kit.amounts import as_set
from specs.wire import ExecRequest

if TYPE_CHECKING:
    from pathlib import Path

    from agent.runtime.containers import OciContainers
    from agent.vocabulary import Process
    from specs.kit.patience import Patience
    from specs.stack import Hook

_PREFIX: Final = "hook-"
_LINE: Final = 8192  # bytes of a line before it is taken as one
_KEPT: Final = 1 << 20  # bytes of output of one hook that its log takes
_STREAMS: Final = {execution.STDOUT: "stdout", execution.STDERR: "stderr"}


class HookLog:
    """Takes the output of a hook to a log, line by line; remembers the last one."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._begun: dict[int, bytes] = {}
        self._size = 0
        self._last: dict[int, str] = {}

    def add(self, channel: int, data: bytes) -> None:
        """Take output; empty = it ended."""
        rest = self._begun.pop(channel, b"") + data
        *lines, rest = rest.split(b"\n") if data else [rest, b""] if rest else [b""]
        while len(rest) > _LINE:
            lines.append(rest[:_LINE])
            rest = rest[_LINE:]
        if rest:
            self._begun[channel] = rest
        texts = [line.decode(errors="replace").rstrip("\r") for line in lines]
        for text in texts:
            self._last[channel] = text.strip() or self._last.get(channel, "")
        self.say(channel, texts)

    def say(self, channel: int, lines: list[str]) -> None:
        """Append lines to the log, where there is one."""
        if self._size > _KEPT:
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "000+00:00")
        text = "".join(f"{now} {_STREAMS[channel]} F {self._kind} hook: {line}\n" for line in lines)
        self._size += len(text)
        if self._size > _KEPT:
            text += f"{now} stderr F {self._kind} hook: (what it prints further is not kept)\n"
        # Never made by us: a log that is switched off has no file.
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            fd = os.open(self._path, flags)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)

    @property
    def last(self) -> str:
        """Return the last line of what it complained of, else of what it said."""
        return self._last.get(execution.STDERR) or self._last.get(execution.STDOUT, "")


class OciHooks:
    """Hooks in containers by the OCI runtime."""

    def __init__(self, containers: OciContainers) -> None:
        self._containers = containers

    async def run(self, task: str, run: int, hook: Hook, kind: str, patience: Patience) -> str:
        request = ExecRequest(
            command=hook.command,
            user=hook.user,
            privileged=hook.privileged,
            working_dir=hook.working_dir,
            environment=hook.environment,
        )
        log = HookLog(logs.path_of(self._containers.logs(task), run), kind)
        session = await execution.begin(self._containers, task, request, _PREFIX)
        why = "it was not waited for any longer"
        try:
            code = await execution.to_end(session, log.add, patience)
            why = _fault(code, log.last)
        except TimeoutError:
            why = f"did not end within {as_set(patience.seconds)}{_said(log.last)}"
        finally:
            if why:
                log.say(execution.STDERR, [f"failed: {why}"])
        return why

    async def sweep(self, task: str) -> None:
        """End a hook that an agent before this one began: nobody would hear of its end."""
        for folder in self._containers.bundle(task).glob(f"{_PREFIX}*"):
            process = exits.identify(conmon.pid_in(folder / "pid"))
            # The number may be a stranger's by now.
            if process and exits.is_member(process, self._containers.cgroup, task):
                await _killed(process)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _killed(process: Process) -> None:
    pidfd = exits.open_process(process)
    if pidfd is None:
        return
    try:
        exits.send(process, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(execution.KILL_TIMEOUT):
                await readable(pidfd)
    finally:
        os.close(pidfd)


def _fault(code: int, said: str) -> str:
    if code == 0:
        return ""
    how = f"ended by signal {code - 128}" if code > 128 else f"exited with {code}"
    return f"{how}{_said(said)}"


def _said(text: str) -> str:
    return f": {text[:200]}" if text else ""
