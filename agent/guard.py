"""Kill what runs of exclusive tasks whose lease has ended: ``python -m agent.guard DIR CGROUP``.

Started by ``agent/tasks/guarded.py``, which writes the files; needs nothing of the agent, and no
memory to speak of. It looks ten times a second, so that what thaws with its machine after its
lease has ended lives for a moment only; it ends some seconds after the last file went.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

LOOK = 0.1  # seconds
IDLE = 10.0  # seconds without a lease after which it ends
CGROUPS = Path("/sys/fs/cgroup")


def due(directory: Path, now: float) -> list[str]:
    """Return the tasks whose time is over; a file that cannot be read says nothing."""
    found = []
    for path in directory.glob("*.lease"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if float(json.loads(path.read_text())["kill"]) <= now:
                found.append(path.stem)
    return found


def places(cgroup: str, task: str) -> list[Path]:
    """Return the task's control groups, in every hierarchy."""
    tops = (CGROUPS, *(top for top in CGROUPS.iterdir() if top.is_dir()))
    return [place for top in tops if (place := top / cgroup / task).is_dir()]


def kill(directories: list[Path]) -> int:
    """Kill all processes there, frozen ones too; return how many there were."""
    pids: set[int] = set()
    for directory in directories:
        with contextlib.suppress(OSError):
            (directory / "cgroup.kill").write_text("1")
        for folder, _, _ in os.walk(directory):
            with contextlib.suppress(OSError):
                pids |= set(map(int, Path(folder, "cgroup.procs").read_text().split()))
    for pid in pids:
        # Just read from the task's own group: a number is not used again within microseconds.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if pids:
        for directory in directories:  # what is frozen dies once it is let go on
            for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                with contextlib.suppress(OSError):
                    if (directory / name).exists():
                        (directory / name).write_text(word)
    return len(pids)


def run(directory: Path, cgroup: str) -> None:
    """Look until nothing is to be guarded any more."""
    idle = time.monotonic()
    while time.monotonic() - idle < IDLE:
        with contextlib.suppress(OSError):
            for task in due(directory, time.clock_gettime(time.CLOCK_BOOTTIME)):
                if count := kill(places(cgroup, task)):
                    text = f"{time.time():.3f} {task}: its lease has ended, {count} killed\n"
                    sys.stdout.write(text)
                    sys.stdout.flush()
            if any(directory.glob("*.lease")):
                idle = time.monotonic()
        time.sleep(LOOK)


def main() -> int:
    """Guard, unless another does."""
    directory = Path(sys.argv[1])
    lock = os.open(directory / "guard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    run(directory, sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
