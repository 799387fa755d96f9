"""The cluster's SSH key: the controller's half stays in its state folder, nodes get the public one.

On a node it is installed so that it can open the agent's socket and do nothing else
(``install.py``). Made once, at the controller's first start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncssh

from orchestrator.errors import Unavailable
from specs.kit.disk import create_file

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path) -> asyncssh.SSHKey:
    """Return the key in ``path``; make it when there is none."""
    if not path.exists():
        _make(path)
    try:
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise Unavailable(
            f"the cluster's SSH key {path} cannot be read: {error}",
            hint="restore it from a backup; without it every node has to be added again",
        ) from error


def _make(path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="corral")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Created, not replaced: of two controllers that start at once the first one's key stays.
    create_file(path, key.export_private_key("openssh"), mode=0o600)


def public(key: asyncssh.SSHKey) -> str:
    """Return the public half as a line of authorized_keys, without options."""
    return key.export_public_key("openssh").decode().strip()
