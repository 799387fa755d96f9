"""Where everything of a lab lives, as data.

A lab named NAME has one tmpfs on ``BASE/NAME`` (records, host file systems, namespace files), one
directory on the machine's disk ``DISKS/NAME`` (the hosts' /var/lib/corral: overlayfs cannot be
stacked on the hosts' overlay root) and one control group ``corral-lab/NAME`` in every hierarchy.
These three are found by name alone, so ``down`` needs no record of a lab whose making was
interrupted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

CGROUP = "corral-lab"
DISKS = Path("/var/lib/corral-lab")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
SUBNET = "10.77.0"
SUBNET6 = "fd77:"
PREFIX6 = 64
GATEWAY = f"{SUBNET}.254"
CLIENT = "client"


class LabError(Exception):
    """The lab cannot do what was asked; the message says why, for people."""


def base() -> Path:
    """Return the directory all labs of this user are under."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # A login's runtime directory is often mounted nodev, where a host could have no /dev.
    return (
        Path("/run/corral-lab") if not runtime or os.geteuid() == 0 else Path(runtime, "corral-lab")
    )


@dataclass(frozen=True)
class Layout:
    """The paths of one lab."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        """Return the layout of the lab ``name``; refuse names that could not be paths or links."""
        if not NAME.fullmatch(name):
            raise LabError(f"lab name {name!r}: use lower-case letters, digits and '-', at most 41")
        return cls(name, base() / name)

    @property
    def record(self) -> Path:
        return self.root / "lab.json"

    @property
    def lock(self) -> Path:
        return self.root.parent / f"{self.name}.lock"

    @property
    def disks(self) -> Path:
        return DISKS / self.name

    @property
    def switch(self) -> Path:
        """The network namespace that holds the bridge."""
        return self.root / "switch"

    @property
    def key(self) -> Path:
        """The operator's private SSH key; every host's root accepts it."""
        return self.root / "id_ed25519"

    def image(self, name: str) -> Path:
        """Return the file that is a host's own disk, where it has one."""
        return self.disks / f"{name}.ext4"

    def host(self, name: str) -> Path:
        return self.root / "hosts" / name

    def cgroup(self, host: str = "") -> str:
        """Return the control group's path inside each hierarchy."""
        return f"{CGROUP}/{self.name}" + (f"/{host}" if host else "")


@dataclass(frozen=True)
class HostAddress:
    """Where a host is on the lab's bridge."""

    host: str
    ipv4: str
    ipv6: str
    mac: str

    @classmethod
    def of(cls, host: str, number: int) -> HostAddress:
        last = 10 + number
        return cls(host, f"{SUBNET}.{last}", f"{SUBNET6}:{last:x}", f"02:77:00:00:00:{last:02x}")


def addresses(nodes: int, *, client: bool = True) -> list[HostAddress]:
    """Return the hosts of a lab: n1, n2, ... and the client."""
    hosts = [HostAddress.of(f"n{number}", number) for number in range(1, nodes + 1)]
    return [*hosts, HostAddress.of(CLIENT, 190)] if client else hosts
