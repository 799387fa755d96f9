"""Which processes of a host a name means, and their end by SIGKILL.

Daemons are known by the words they were started with, a container's process as the child of its
monitor. Called by ``lab.py``; looks at /proc of the machine and signals nothing outside the host's
control group.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.lab.layout import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

MODULES = {"agent": "agent", "controller": "orchestrator", "dns": "agent.dns"}
WHAT = ("agent", "controller", "dns", "supervisor", "conmon", "task")
PATIENCE = 30.0  # seconds until a killed process is gone; the kernel ends its disk's work first


class HostProcess:
    """A process of the machine as /proc shows it."""

    def __init__(self, pid: int) -> None:
        """Look at it. Raises OSError: it has ended."""
        folder = Path(f"/proc/{pid}")
        self.pid = pid
        self.words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        self.parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])

    def runs(self, module: str) -> bool:
        """Tell whether it is ``python -m module``."""
        return "python" in self.words[0] and ("-m", module) in itertools.pairwise(self.words)


def seen(pids: Iterable[int]) -> list[HostProcess]:
    found = []
    for pid in sorted(pids):
        with suppress(OSError):
            found.append(HostProcess(pid))
    return found


def meant(what: str, word: str, processes: list[HostProcess]) -> list[int]:
    """Return the pids that are meant: all of a daemon, the first of the monitors or tasks (pure).

    ``word``: only those that have it among the words of the process or its monitor.
    """
    if what in MODULES:
        chosen = [p for p in processes if p.runs(MODULES[what])]
    elif what == "supervisor":
        chosen = [p for p in processes if any(w.endswith("/supervisor.py") for w in p.words)]
    else:
        chosen = [p for p in processes if p.words[0].rpartition("/")[2] == "conmon"]
    chosen = [p for p in chosen if not word or any(word in said for said in p.words)]
    # A child has its parent's words until it has its own.
    own = {p.pid for p in chosen}
    chosen = [p for p in chosen if p.parent not in own]
    if what == "task":
        monitors = {p.pid for p in chosen}
        chosen = [p for p in processes if p.parent in monitors]
    return [p.pid for p in chosen][: None if what in (*MODULES, "supervisor") else 1]


def kill(what: str, word: str, pids: Iterable[int]) -> int:
    """SIGKILL what is meant among a host's processes; return how many. Raises LabError: none."""
    if what not in WHAT:
        raise LabError(f"kill {what!r}: use one of {', '.join(WHAT)}")
    found = meant(what, word, seen(pids))
    if not found:
        about = f" with {word!r}" if word else ""
        raise LabError(f"no {what}{about} runs there")
    ends = []
    for pid in found:
        with suppress(ProcessLookupError):
            ends.append(os.pidfd_open(pid))
    for end in ends:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(end, signal.SIGKILL)
    for end in ends:
        select.select([end], [], [], PATIENCE)
        os.close(end)
    return len(found)
