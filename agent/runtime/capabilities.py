"""The capabilities: the kernel's list, what containers get by default, what we may hand on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE
"""
DEFAULT_CAPABILITIES: Final = frozenset("CAP_" + name for name in _DEFAULT.split())
# In the kernel's order: the position is the capability's number.
_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
ALL_CAPABILITIES: Final = tuple("CAP_" + name for name in _ALL.split())


@functools.cache
def grantable_capabilities() -> frozenset[str]:
    """Return the capabilities this process may hand on: its bounding set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(
                name for number, name in enumerate(ALL_CAPABILITIES) if bits >> number & 1
            )
    return frozenset()
