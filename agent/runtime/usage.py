"""What a container uses at this moment, and which processes it has: read from the kernel.

Control groups tell CPU, memory, processes and disks, ``/proc/PID/net/dev`` of the container's
process the network it has. Both layouts of control groups are read: the unified one (cgroup v2)
and one hierarchy a controller (v1); a controller that is not there leaves its number 0.
Everything here blocks a little and is called from a thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.runtime import exits
from specs.inside import TaskProcess, TaskUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.vocabulary import Process

_TICKS = os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 60  # bytes; v1 has no word for "none", only a number nobody has
MOST_PROCESSES = 4096  # of one container; the list is for people


def usage(parent: str, task: str, process: Process) -> TaskUsage | None:
    """Return what the task uses; None when it has no control group any more."""
    places = exits.cgroup_dirs(parent, task)
    if not places:
        return None
    limit = _number(places, "memory.max") or _number(places, "memory.limit_in_bytes")
    received, sent = _network(process.pid)
    read, written = _disks(places)
    return TaskUsage(
        at=time.monotonic(),
        cpu=_cpu(places),
        memory=_memory(places),
        memory_limit=limit if limit < _UNLIMITED else 0,
        processes=_number(places, "pids.current"),
        received=received,
        sent=sent,
        read=read,
        written=written,
    )


def processes(parent: str, task: str) -> tuple[TaskProcess, ...]:
    """Return the task's processes by number; those that end meanwhile are left out."""
    found: set[int] = set()
    for place in exits.cgroup_dirs(parent, task):
        found.update(exits.members(place))
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = (_process(pid, boot) for pid in sorted(found)[:MOST_PROCESSES])
    return tuple(row for row in rows if row is not None)


def _process(pid: int, boot: float) -> TaskProcess | None:
    folder = Path(f"/proc/{pid}")
    try:
        name, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
        words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        owner = (folder / "stat").stat().st_uid
        status = dict(
            line.split(":", 1)
            for line in (folder / "status").read_text().splitlines()
            if ":" in line
        )
    except (OSError, ValueError):
        return None
    fields = rest.split()
    inside = status.get("NSpid", "").split()
    command = b" ".join(words).decode(errors="replace")
    return TaskProcess(
        pid=pid,
        parent=int(fields[1]),
        inside=int(inside[-1]) if inside else pid,
        user="root" if owner == 0 else str(owner),
        state=fields[0],
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        started=boot + int(fields[19]) / _TICKS,
        terminal=fields[4] != "0",
        command=command or f"[{name.partition('(')[2]}]",
    )


def _read(places: Iterable[Path], name: str) -> str:
    """Return the file of the first hierarchy that has it, "" where none does."""
    for place in places:
        with contextlib.suppress(OSError):
            return (place / name).read_text()
    return ""


def _number(places: Iterable[Path], name: str) -> int:
    text = _read(places, name).strip()
    return int(text) if text.isdecimal() else 0


def _table(text: str) -> Mapping[str, int]:
    """Return the lines ``name number`` of a file."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _cpu(places: Iterable[Path]) -> float:
    """Return seconds of processors used since the container was made."""
    if used := _number(places, "cpuacct.usage"):
        return used / 1e9
    return _table(_read(places, "cpu.stat")).get("usage_usec", 0) / 1e6


def _memory(places: Iterable[Path]) -> int:
    """Return bytes in use without file pages that can go at once, as ``docker stats`` counts."""
    used = _number(places, "memory.current") or _number(places, "memory.usage_in_bytes")
    stat = _table(_read(places, "memory.stat"))
    return max(0, used - stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _disks(places: Iterable[Path]) -> tuple[int, int]:
    """Return bytes read from and written to block devices."""
    read = written = 0
    if text := _read(places, "io.stat"):
        for word in text.split():
            key, _, value = word.partition("=")
            read += int(value) if key == "rbytes" else 0
            written += int(value) if key == "wbytes" else 0
        return read, written
    for line in _read(places, "blkio.throttle.io_service_bytes_recursive").splitlines():
        words = line.split()
        if len(words) == 3:
            read += int(words[2]) if words[1] == "Read" else 0
            written += int(words[2]) if words[1] == "Write" else 0
    return read, written


def _network(pid: int) -> tuple[int, int]:
    """Return bytes received and sent in the process's network, its loopback left out."""
    received = sent = 0
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return 0, 0
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            counts = numbers.split()
            received, sent = received + int(counts[0]), sent + int(counts[8])
    return received, sent
