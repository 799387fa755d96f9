"""Take off what is mounted, also while somebody still uses it."""

from __future__ import annotations

import errno
from pathlib import Path

from agent.linux import calls


def is_mounted(target: str) -> bool:
    """Say whether something is mounted at a path without links; no server is asked for it."""
    with Path("/proc/self/mountinfo").open(errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == target for line in table)


def take_off(target: str) -> None:
    """Unmount what is on top at ``target``; one in use goes out of sight now.

    A file in it may still be open, or the ending container has it mounted: the kernel
    frees it with its last user.
    """
    try:
        calls.unmount(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        calls.unmount(target, calls.MNT_DETACH | calls.UMOUNT_NOFOLLOW)
