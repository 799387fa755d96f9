"""How a daemon shows that it lives, and how it keeps what would restart it.

What it shows runs on the daemon's event loop: a loop that hangs beats no more. systemd hears it
through ``WatchdogSec``, the supervisor (orchestrator/embedded/supervisor.py) reads a file.
Either kills and restarts a daemon that stays silent; containers never notice. Where there is
no systemd nobody restarts a supervisor that was killed, so its daemons do: it adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit.sdnotify import notify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

BEAT = 2.0  # seconds; who judges waits for many of them
LOOK = 3.0
AGAIN = "CORRAL_SUPERVISOR_AGAIN"  # set where a daemon starts a killed one, and only then
RESTARTER = "CORRAL_SUPERVISOR"  # the supervisor's own command, as it gives it to its daemons


@contextlib.asynccontextmanager
async def shown(folder: Path, name: str) -> AsyncIterator[None]:
    """Beat, and keep the supervisor, for as long as the block runs."""
    work = (
        asyncio.create_task(beat(folder, name), name="beat"),
        asyncio.create_task(keep_supervised(folder), name="supervisor"),
    )
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)


async def beat(folder: Path, name: str) -> None:
    """Show that this loop turns until cancelled; then nobody expects it to."""
    path = folder / f"{name}.alive"
    count = 0
    try:
        while True:
            count += 1
            notify("WATCHDOG=1", wait=False)  # the next one comes soon; the loop turns on
            # Nothing waits for a disk here: the folder is in memory, one page.
            with contextlib.suppress(OSError):
                _write(path, f"{os.getpid():>10} {count:>20}\n")
            await asyncio.sleep(BEAT)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _write(path: Path, text: str) -> None:
    # Always as long: a reader never sees half of an old and half of a new one.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, text.encode(), 0)
    finally:
        os.close(descriptor)


async def keep_supervised(folder: Path) -> None:
    """Start our supervisor again when it was killed; one that ended in order took us along."""
    command = json.loads(os.environ.get(RESTARTER) or "[]")
    while command:
        await asyncio.sleep(LOOK)
        if was_killed(folder / "supervisor.pid"):
            log.warning("the supervisor was killed: starting another")
            await asyncio.to_thread(_start, command)


def was_killed(pid_file: Path) -> bool:
    """Say whether the process that wrote the file is gone without having removed it."""
    try:
        pid, started = pid_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False
    try:
        stat = Path(f"/proc/{int(pid)}/stat").read_text(encoding="latin-1")
        fields = stat.rpartition(")")[2].split()
    except (OSError, ValueError):
        return True
    return fields[0] in "ZX" or fields[19] != started


def _start(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, AGAIN: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the supervisor does not start: %s", error)
        return
    log.info("the supervisor's start ended with %d", done.returncode)  # another won: 4
