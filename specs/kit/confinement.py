"""Whether this machine's kernel has AppArmor; the agent and ``corral lint`` ask. Only reads."""

from __future__ import annotations

ENABLED = "/sys/module/apparmor/parameters/enabled"

# Seccomp sees the address family of socket(2), but not of socketcall(2), which old 32-bit
# programs use: where AppArmor is missing nothing keeps these from AF_ALG and AF_VSOCK.
MISSING = (
    "no AppArmor in this kernel: capabilities, seccomp and masked paths alone confine containers,"
    " and 32-bit programs reach AF_ALG and AF_VSOCK sockets; boot a kernel that has it, with"
    " apparmor=1 security=apparmor where it is off"
)


def has_apparmor(path: str = ENABLED) -> bool:
    """Say whether AppArmor is there and on."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - the CLI's too
            return file.read(1) == "Y"
    except OSError:
        return False
