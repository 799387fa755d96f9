"""What a task has of its partner: the network it lives in, and what belongs to that.

The partner's own bundle says where its namespace is kept and which files it was given, so a chain
of partners needs no looking along: the one in the middle has what the first one has. The network's
namespace outlives the runs of its task (``agent/network/namespaces.py``), so the partner may crash
and be restarted in place without the other being told. Namespaces of processes and memory end with
the process they were made for: a run that joined them is ended, too, and begins anew beside the
partner's next run, whatever its restart policy says, as the end was not its own. A new partner is
a new task, and so is the other then: the controller sees to that
(``orchestrator/control/planning/pairs.py``).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.tasks.record import Phase
from agent.vocabulary import BoundMount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.tasks.record import Record
    from agent.vocabulary import Process
    from specs.stack import TaskSpec

LOOK = 0.05  # seconds between two looks whether a partner is there
PARTED = 0.5  # seconds between two looks whether the process of a partner still is
SETTLES = 1.0  # seconds in which a partner's end is known that killed who shared its processes
SHM: Final = "/dev/shm"
_FILES: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True)
class Lent:
    """A partner's network: as ``runtime.bundle.Inputs`` has it of a task of its own."""

    netns: str | None  # None = the node's own
    hostname: str
    etc: Mapping[str, str]


def there(partner: Record | None) -> bool:
    """Say whether a partner has what the other takes of it."""
    return partner is not None and partner.prepared and not (partner.erased or partner.tidied)


def takes(spec: TaskSpec) -> bool:
    """Say whether a task takes what its partner is prepared with: its network, its /dev/shm."""
    return "partner" in (spec.network_mode, spec.ipc)


def joins(spec: TaskSpec) -> tuple[str, ...]:
    """Return the namespaces that a run takes of a process of its partner: they end with that."""
    return tuple(kind for kind in ("pid", "ipc") if getattr(spec, kind) == "partner")


def process_of(partner: Record | None) -> Process | None:
    """Return the partner's process that a run may join."""
    running = partner is not None and partner.phase is Phase.RUNNING and not partner.stopping
    return partner.process if partner is not None and running else None


def beside(record: Record, partner: Record | None) -> bool:
    """Say whether the partner's process is there whose namespaces a run has joined."""
    if record.beside is None:
        return True
    return partner is not None and partner.process == record.beside


def joined(config: Mapping[str, Any], kinds: tuple[str, ...], process: Process) -> dict[str, Any]:
    """Return an OCI configuration that joins these namespaces of a process."""
    namespaces = [
        {**one, "path": f"/proc/{process.pid}/ns/{one['type']}"} if one["type"] in kinds else one
        for one in config["linux"]["namespaces"]
    ]
    return {**config, "linux": {**config["linux"], "namespaces": namespaces}}


def memory(config: Mapping[str, Any]) -> BoundMount | None:
    """Return the mount of a partner's shared memory, by its bundle; None where it lends none."""
    for mount in config["mounts"]:
        if mount["destination"] == SHM and mount["type"] == "bind":
            return BoundMount(mount["source"], SHM, "bind", tuple(mount["options"]))
    return None


def lent(config: Mapping[str, Any]) -> Lent:
    """Return what a partner's OCI configuration says of its network."""
    namespaces = {one["type"]: one.get("path", "") for one in config["linux"]["namespaces"]}
    return Lent(
        namespaces.get("network"),
        config.get("hostname") or socket.gethostname(),
        {m["destination"]: m["source"] for m in config["mounts"] if m["destination"] in _FILES},
    )
