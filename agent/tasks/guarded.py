"""Leases as files below /run, and the guard that kills by them what nobody stops.

One file a task: when its lease ends and when it is to be killed, in seconds of CLOCK_BOOTTIME. The
guard (``python -m agent.guard``) is a process of its own, which needs nothing but these files: it
works while the agent is killed, stopped or hangs, and it is the first to see that the whole
machine was frozen.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit import disk
from specs.lease import KILL, TERM

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

SPARE = 0.5  # seconds the agent has for its own SIGKILL before the guard sends one
_ROOT = Path(__file__).resolve().parents[2]  # where ``agent`` can be imported from


def boottime() -> float:
    """Return the seconds since the machine was started, asleep or frozen ones too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class GuardedLeases:
    """The leases of this machine; see LeaseStore. ``cgroup``: the parent of all tasks'."""

    def __init__(self, directory: Path, cgroup: str, boot: str) -> None:
        self._directory = directory
        self._cgroup = cgroup
        self._boot = boot
        self._process: subprocess.Popen[bytes] | None = None

    def load(self) -> tuple[dict[str, float], tuple[str, ...]]:
        until: dict[str, float] = {}
        members: tuple[str, ...] = ()
        for path in self._files():
            try:
                found = json.loads(path.read_text())
                if found["boot"] == self._boot:
                    until[path.stem] = float(found["until"])
                    members = tuple(map(str, found["members"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("a lease cannot be read: %s", error)
        return until, members

    def put(self, until: Mapping[str, float], members: tuple[str, ...]) -> None:
        for path in self._files():
            if path.stem not in until:
                path.unlink(missing_ok=True)
        if not until:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for task, end in until.items():
            kill = end - TERM + KILL + SPARE
            text = json.dumps(
                {"until": end, "kill": kill, "boot": self._boot, "members": list(members)}
            )
            path = self._directory / f"{task}.lease"
            if not path.exists() or path.read_text() != text:
                disk.write_file(path, text.encode(), durable=False)
        self._guard()

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.lease")) if self._directory.is_dir() else []

    def _guard(self) -> None:
        """See to it that a guard runs: ours, or one an agent before us began."""
        if self._process is not None and self._process.poll() is None:
            return
        lock = os.open(self._directory / "guard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(lock)
        with (self._directory / "guard.log").open("ab") as output:
            self._process = subprocess.Popen(
                # -S: it needs the standard library only, and stays small.
                [sys.executable, "-S", "-m", "agent.guard", str(self._directory), self._cgroup],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(_ROOT)},
                cwd="/",
                start_new_session=True,  # it outlives us
            )
