"""Start programs from one thread that has a mount namespace of its own.

Everything that becomes or touches a container (conmon, crun, runc) is started from
here. In that namespace the cgroup2 mount of a *hybrid* machine is covered: crun
1.8 refuses hybrid cgroups but works when it sees the v1 hierarchies alone. Mounts
the agent makes later must still arrive there, so the agent's directories are shared
mounts (:func:`share`) and the thread's namespace is a slave of them.

The thread also keeps the short block of fork and exec off the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agent.linux import calls
from agent.runtime.failure import RuntimeFailure
from specs.kit.errnos import in_words
from specs.kit.programs import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

UNIFIED = Path("/sys/fs/cgroup/unified")


def is_mounted(path: Path) -> bool:
    """Say whether ``path`` is a mount point (also of its own file system)."""
    target = str(path)
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == target for line in table)


def share(directory: Path) -> None:
    """Make ``directory`` a shared mount of its own, so that mounts below it reach the spawner."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_mounted(directory):
        calls.mount(str(directory), str(directory), None, calls.MS_BIND)
    calls.mount("none", str(directory), None, calls.MS_SHARED)


def unshare(directory: Path) -> None:
    """Undo :func:`share` (the node leaves)."""
    while is_mounted(directory):
        calls.unmount(str(directory), calls.MNT_DETACH)


def _enter_own_namespace() -> None:
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount("none", "/", None, calls.MS_SLAVE | calls.MS_REC)
    if is_mounted(UNIFIED):
        # Covered, not only unmounted: crun makes plain directories there, which would stay behind.
        with contextlib.suppress(OSError):
            calls.unmount(str(UNIFIED), calls.MNT_DETACH)
        # A file of one page for every container, as long as it is there (see `forget`).
        calls.mount("tmpfs", str(UNIFIED), "tmpfs", 0, "mode=0755,size=64m")


@dataclass(frozen=True)
class Finished:
    """A program that ended: exit code (negative = signal) and what it said."""

    code: int
    output: str


class Spawner:
    """Starts programs; use as an async context manager."""

    def __init__(self) -> None:
        self._thread = self._new()

    @staticmethod
    def _new() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="spawner", initializer=_enter_own_namespace)

    def renew(self) -> None:
        """Enter a fresh namespace: needed after directories were made shared anew."""
        old, self._thread = self._thread, self._new()
        old.shutdown(wait=False)

    async def forget(self, cgroup: str) -> None:
        """Remove what the runtime left in the covered hierarchy for a cgroup that is gone.

        Nobody else does: without this the cover is full one day and no container starts.
        """
        left = UNIFIED / cgroup.strip("/")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, lambda: shutil.rmtree(left, ignore_errors=True))

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().run_in_executor(self._thread, os.getpid)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        unpreempted: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own and return it.

        ``unpreempted``: no ordinary process comes between two of its steps, however busy the
        machine is; what it starts itself is ordinary again.
        """

        def start() -> subprocess.Popen[bytes]:
            if not unpreempted:
                return begin()
            _run_first(0)  # this thread, so that the program is not far when its turn comes
            try:
                program = begin()
                _run_first(program.pid)
                return program
            finally:
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

        def begin() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                env={"PATH": SYSTEM_PATH, **(environment or {})},
                start_new_session=True,
                cwd="/",
            )

        future = asyncio.get_running_loop().run_in_executor(self._thread, start)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The program may have been started although nobody waits for it: do not lose it.
            future.add_done_callback(_put_away)
            raise
        except OSError as error:
            raise RuntimeFailure(f"{argv[0]} cannot be started: {in_words(error)}") from error

    async def run(self, argv: Sequence[str], *, timeout: float) -> Finished:
        """Run a program to its end; it is killed when it takes longer than ``timeout``."""
        output = os.memfd_create("output", os.MFD_CLOEXEC)
        try:
            program = await self.spawn(argv, stdout=output, stderr=output)
            try:
                code = await ended(program, timeout)
            except TimeoutError:
                raise RuntimeFailure(f"{argv[0]} did not answer within {timeout:g} s") from None
            said = os.pread(output, 1 << 20, 0).decode(errors="replace")
            return Finished(code, said)
        finally:
            os.close(output)


def _run_first(pid: int) -> None:
    """Let a process (0 = this thread) run before ordinary ones; its children are ordinary."""
    with contextlib.suppress(OSError):  # not allowed in every cgroup: then it is only likely
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(pid, policy, os.sched_param(1))


def _put_away(future: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    if not future.cancelled() and future.exception() is None:
        program = future.result()
        program.kill()
        program.wait()


async def readable(fd: int) -> None:
    """Wait until ``fd`` can be read (a pidfd: until the process ended)."""
    loop = asyncio.get_running_loop()
    await _once(fd, loop.add_reader, loop.remove_reader)


async def writable(fd: int) -> None:
    """Wait until ``fd`` can be written."""
    loop = asyncio.get_running_loop()
    await _once(fd, loop.add_writer, loop.remove_writer)


async def _once(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def seen() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, seen)
    try:
        await future
    finally:
        remove(fd)


async def ended(program: subprocess.Popen[bytes], timeout: float | None) -> int:
    """Wait for a child of ours; killed and reaped when it takes too long or we are cancelled."""
    if program.poll() is None:
        pidfd = os.pidfd_open(program.pid)
        try:
            async with asyncio.timeout(timeout):
                await readable(pidfd)
        except BaseException:
            program.kill()
            # As good as at once, and what comes next may want it gone. Longer would hold the loop.
            select.select([pidfd], [], [], 0.02)
            abandon(program)
            raise
        finally:
            os.close(pidfd)
    return program.wait(1.0)


def abandon(program: subprocess.Popen[bytes]) -> None:
    """Kill a child of ours and have it reaped beside us: its end may take a while."""
    program.kill()
    if program.poll() is None:
        threading.Thread(target=program.wait, name="reaper", daemon=True).start()
