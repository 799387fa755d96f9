"""Which boot of the machine this is: what a reboot takes along is known by it."""

from __future__ import annotations

from pathlib import Path


def boot_id() -> str:
    """Return this boot's id: pids and namespaces of another boot are gone.

    The lab mounts one per host over the file.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
