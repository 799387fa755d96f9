"""What a task has of its partner: the network it lives in, and what belongs to that.

The partner's own bundle says where its namespace is kept and which files it was given, so a chain
of partners needs no looking along: the one in the middle has what the first one has. The namespace
outlives the runs of its task (``agent/network/namespaces.py``), so the partner may crash and be
restarted in place without the other being told. A new partner is a new task, and so is the other
then: the controller sees to that (``orchestrator/control/planning/pairs.py``).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.tasks.record import Record

LOOK = 0.05  # seconds between two looks whether a partner is there
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


def lent(config: Mapping[str, Any]) -> Lent:
    """Return what a partner's OCI configuration says of its network."""
    namespaces = {one["type"]: one.get("path", "") for one in config["linux"]["namespaces"]}
    return Lent(
        namespaces.get("network"),
        config.get("hostname") or socket.gethostname(),
        {m["destination"]: m["source"] for m in config["mounts"] if m["destination"] in _FILES},
    )
