"""What belongs to a controller's state, and what a machine has to be told of its settings.

========== ==========================================================================
state.db   a consistent copy of the store: cluster, stacks, releases, tasks, nodes with
           their pinned host keys, the authority and its sealed key
key        opens what is sealed in it
ssh_key    lets the controller in to the nodes' agents; not there in a cluster of one
settings   which machine this was, and what its environment asked for
========== ==========================================================================

Not in it: what containers have (volumes, images, logs), files sent from laptops, and the
operators' own keys. All of it is read while the controller works.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from specs.kit.disk import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from specs.node import Node

STATE, KEY, SSH_KEY, SETTINGS = "state.db", "key", "ssh_key", "settings"
NEEDED = (STATE, KEY, SETTINGS)
KNOWN = (*NEEDED, SSH_KEY)
ENVIRONMENT = ("CORRAL_HEARTBEAT", "CORRAL_AGENT_PATIENCE")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the machine a backup was made on: which node it was, and what it was told."""

    node: str = ""  # the id of the controller's own node; "" = it was none
    name: str = ""
    host: str = ""
    underlay: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def settings_of(nodes: Iterable[Node], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return what is true of this machine."""
    home = next((node for node in nodes if not node.address), None)
    return Settings(
        node=home.id if home is not None else "",
        name=home.name if home is not None else "",
        host=socket.gethostname(),
        underlay=home.underlay if home is not None else "",
        environment={name: environment[name] for name in ENVIRONMENT if environment.get(name)},
    )


def gather(folder: Path, copy: Path, settings: Settings, scratch: Path) -> list[tuple[str, Path]]:
    """Return the pieces: the store's ``copy``, the files beside the store, and the settings."""
    told = scratch / SETTINGS
    write_file(told, json.dumps(asdict(settings)).encode(), durable=False)
    pieces = [(STATE, copy), (KEY, folder / KEY), (SETTINGS, told)]
    if (folder / SSH_KEY).exists():
        pieces.append((SSH_KEY, folder / SSH_KEY))
    return pieces


def read_settings(folder: Path) -> Settings:
    """Return the settings of a backup that was taken apart. Raises ValueError, OSError."""
    found: dict[str, Any] = json.loads((folder / SETTINGS).read_bytes())
    known = Settings.__dataclass_fields__
    return Settings(**{name: value for name, value in found.items() if name in known})
