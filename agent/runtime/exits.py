"""See how runs end: by pidfd on the container and on conmon, and by conmon's exit file.

A process is named by number and start time, so a later one with the same number is
never watched or signalled. A container whose monitor is gone is killed: its output
has nowhere to go and its exit code would be lost, so the truth is "unknown".
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.runtime.failure import RuntimeFailure
from agent.runtime.spawner import readable
from agent.vocabulary import Exit, Process
from specs.kit.room import measure, shortage

if TYPE_CHECKING:
    from collections.abc import Iterator

FREEZE = 10.0  # seconds: a process that waits for a disk freezes when that has answered
# Both layouts' file, and what to write to (let go on, freeze).
_FREEZERS = {"freezer.state": ("THAWED", "FROZEN"), "cgroup.freeze": ("0", "1")}
MONITOR_GRACE = 5.0  # how long conmon may take to write the exit file
_CGROUPS = Path("/sys/fs/cgroup")


def identify(pid: int) -> Process | None:
    """Return the process with its start time; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command name may contain spaces and parentheses: count from the last one.
    return Process(pid=pid, start=int(stat.rpartition(")")[2].split()[19]))


def age(process: Process) -> float:
    """Return how many seconds ago the process began."""
    ticks = process.start / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks)


def is_member(process: Process, parent: str, task: str) -> bool:
    """Say whether the process is in the task's cgroup."""
    return any(process.pid in members(place) for place in cgroup_dirs(parent, task))


def open_process(process: Process) -> int | None:
    """Return a pidfd of exactly this process; None when it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    # Checked after opening: whatever has the number now is what the pidfd holds.
    if identify(process.pid) != process:
        os.close(pidfd)
        return None
    return pidfd


def send(process: Process, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone."""
    pidfd = open_process(process)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


@functools.cache
def _hierarchies() -> tuple[str, ...]:
    """Return where cgroup directories can be; the mounts do not change while we run."""
    with os.scandir(_CGROUPS) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return (str(_CGROUPS), *(path for path in below if os.path.ismount(path)))


def cgroup_dirs(parent: str, task: str) -> list[Path]:
    """Return the task's cgroup directories, one per hierarchy that has it."""
    places = (Path(top, parent, task) for top in _hierarchies())
    return [place for place in places if place.is_dir()]


def members(directory: Path) -> Iterator[int]:
    """Yield the numbers of the processes in a control group and those below it."""
    for folder, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            text = Path(folder, "cgroup.procs").read_text()
            yield from (int(line) for line in text.split())


async def freeze(parent: str, task: str, *, paused: bool) -> None:
    """Freeze the task's processes or let them go on; return once the kernel says so.

    Raises RuntimeFailure where it cannot, or not within ``FREEZE`` seconds.
    """
    switches = (
        (directory / name, words[paused])
        for directory in cgroup_dirs(parent, task)
        for name, words in _FREEZERS.items()
    )
    switch = next((switch for switch in switches if switch[0].exists()), None)
    if switch is None:
        raise RuntimeFailure("the kernel has no freezer for control groups here")
    path, word = switch
    path.write_text(word)
    until = time.monotonic() + FREEZE
    while is_frozen(parent, task) is not paused:
        if time.monotonic() > until:
            failed = "freeze" if paused else "go on"
            raise RuntimeFailure(f"its processes did not {failed} within {FREEZE:.0f} s")
        await asyncio.sleep(0.01)


def is_frozen(parent: str, task: str) -> bool:
    """Say whether all of the task's processes are frozen."""
    for directory in cgroup_dirs(parent, task):
        with contextlib.suppress(OSError):
            return (directory / "freezer.state").read_text().strip() == "FROZEN"
        with contextlib.suppress(OSError):
            return "frozen 1" in (directory / "cgroup.events").read_text()
    return False


async def kill_cgroup(parent: str, task: str, timeout: float = 10.0) -> bool:
    """Kill everything in the task's cgroup; True when nothing is left."""
    async with asyncio.timeout(timeout):
        while True:
            alive = False
            for directory in cgroup_dirs(parent, task):
                with contextlib.suppress(OSError):
                    (directory / "cgroup.kill").write_text("1")
                for pid in members(directory):
                    # A pid just read from our own cgroup; it may be gone, it cannot be a stranger's
                    # unless the number is used again within these microseconds.
                    alive = True
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if not alive:
                return True
            await asyncio.sleep(0.01)


def remove_cgroup(parent: str, task: str) -> None:
    """Remove the task's cgroup directories; they must be empty of processes."""
    for directory in cgroup_dirs(parent, task):
        for folder, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rmdir()


def remove_parent(parent: str) -> None:
    """Remove the cgroup all tasks live below, where it is empty."""
    for directory in cgroup_dirs(parent, ""):
        with contextlib.suppress(OSError):
            directory.rmdir()


async def follow(
    process: Process, monitor: Process, directory: Path, cgroup: tuple[str, str]
) -> Exit:
    """Wait for the end of a run and tell how it ended.

    ``directory`` is the bundle, where conmon leaves ``exits/ID`` and ``oom``.
    """
    container, conmon = open_process(process), open_process(monitor)
    try:
        if conmon is not None:
            await _first(conmon, container)
            if container is not None:
                # conmon may be the first to be seen: both end within a moment.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MONITOR_GRACE):
                        await _until_told(conmon, directory, cgroup[1])
        seen = _told(directory, cgroup[1])
        if seen is not None:
            return seen
        if conmon is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(conmon, signal.SIGKILL)
        if container is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(container, signal.SIGKILL)
            await readable(container)
        await kill_cgroup(*cgroup)
        return _told(directory, cgroup[1]) or Exit(None, reason=_untold(directory))
    finally:
        for pidfd in (container, conmon):
            if pidfd is not None:
                os.close(pidfd)


async def _first(*pidfds: int | None) -> None:
    """Wait until one of these processes has ended."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def seen() -> None:
        if not future.done():
            future.set_result(None)

    watched = [fd for fd in pidfds if fd is not None]
    for fd in watched:
        loop.add_reader(fd, seen)
    try:
        await future
    finally:
        for fd in watched:
            loop.remove_reader(fd)


async def _until_told(conmon: int, directory: Path, task: str) -> None:
    """Wait for conmon's end, or at least its word on the exit."""
    if _told(directory, task) is None:
        await readable(conmon)


def _untold(directory: Path) -> str:
    """Return why an exit code is not known."""
    room = measure(directory)
    lack = shortage(room, str(directory)) if room is not None else ""
    if lack:
        return f"its exit code could not be kept ({lack}), so it is unknown"
    return "its monitor (conmon) was lost, so the exit code is unknown"


def _told(directory: Path, task: str) -> Exit | None:
    try:
        code = int((directory / "exits" / task).read_text())
    except (OSError, ValueError):
        return None
    return Exit(code, oom=(directory / "oom").exists())
