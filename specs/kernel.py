"""Words and bounds of the Linux kernel that a Compose file may use: one table of each.

:mod:`specs.names` and :mod:`specs.compile.limits` refuse by them where a file is read; the agent
makes the container's configuration of them. Pure, stdlib only.
"""

from __future__ import annotations

import re
import signal
from typing import Final

_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE
"""
DEFAULT_CAPABILITIES: Final = frozenset("CAP_" + name for name in _DEFAULT.split())
# What a container has without asking, by x-corral.security.
BY_LEVEL: Final = {
    "default": DEFAULT_CAPABILITIES,
    "baseline": DEFAULT_CAPABILITIES - {"CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"},
    "restricted": frozenset[str](),
}
# In the kernel's order: the position is the capability's number.
_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
ALL_CAPABILITIES: Final = tuple("CAP_" + name for name in _ALL.split())
_RLIMIT_NAMES = """
as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
RLIMITS: Final = frozenset(_RLIMIT_NAMES.split())
# Namespaced sysctls: those of the namespaces a container has for itself.
_SYSCTL_IPC: Final = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)$|fs\.mqueue\."
)

MOST_PROCESSES: Final = 4_194_304  # PID_MAX_LIMIT: pids.max takes no more
MOST_CPUS: Final = 8192  # NR_CPUS of the largest kernels
MOST_ID: Final = 2**31 - 1  # of a user or group, as for Docker
MOST_LIMIT: Final = 2**63 - 1
# execve(2): of one argument or NAME=VALUE with its NUL (MAX_ARG_STRLEN), and of all together: a
# quarter of the stack's limit, at least 128 KiB, at most three quarters of 8 MiB (_STK_LIM).
LONGEST_ARGUMENT: Final = 32 * 4096
_STACK: Final = 8 << 20
_POINTER: Final = 8


def capability(name: str) -> str:
    """Return the full name of a capability (CAP_ALL too), "" where there is none."""
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    return full if full in ALL_CAPABILITIES or full == "CAP_ALL" else ""


def signal_number(text: str) -> int:
    """Return the number of ``SIGTERM``, ``term``, ``15`` or ``SIGRTMIN+3``; 0 for no signal."""
    name = text.strip().upper()
    if name.isascii() and name.isdigit():
        return int(name) if 0 < int(name[:9]) < signal.NSIG else 0
    base, plus, offset = name.removeprefix("SIG").partition("+")
    if plus and not (offset.isascii() and offset.isdigit() and len(offset) < 3):
        return 0
    try:
        number = int(signal.Signals[f"SIG{base}"]) + (int(offset) if plus else 0)
    except KeyError:
        return 0
    return number if 0 < number < signal.NSIG else 0


def sysctl_fault(name: str, *, own_network: bool) -> str:
    """Return why a sysctl is not a container's to set."""
    if name.startswith("net."):
        return (
            "" if own_network else f"sysctl {name} would change the node: the task uses its network"
        )
    if _SYSCTL_IPC.match(name):
        return ""
    return f"sysctl {name} is not a container's own: it would change the whole node"


def room_for_arguments(stack: int | None = None) -> int:
    """Return the bytes execve(2) takes of arguments and environment under a limit of the stack."""
    size = _STACK if stack is None else stack
    return max(128 << 10, min(size // 4 if size >= 0 else _STACK, _STACK // 4 * 3))


def weight(texts: list[str]) -> int:
    """Return what texts take of that room: with their NUL and a pointer each."""
    return sum(len(text.encode(errors="replace")) + 1 + _POINTER for text in texts)
