"""Files of a machine outside the cluster, sent to the controller's: folders by their content.

A laptop's build contexts and read-only binds. A file is a list of chunks by digest; the client
asks which chunks are missing, sends those, and then the tree. Each tree is a folder of its own
that never changes, so what runs keeps what it was started with, and equal trees are one.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from pydantic import Field

from specs.api import ClientMachine
from specs.base import Model

CHUNK = 4 * 1024 * 1024  # bytes
DIGEST = r"^[0-9a-f]{64}$"
MOST_ENTRIES = 100_000


_TREE = re.compile(r"(/.*/sent/trees/[0-9a-f]{32})(?:/.*)?")


def leaves_tree(path: str) -> bool:
    """Say whether a path of a tree that was sent leads out of it, through a link in it."""
    found = _TREE.fullmatch(path)
    if found is None:
        return False
    tree, place = os.path.realpath(found[1]), os.path.realpath(path)
    return not f"{place}/".startswith(f"{tree}/")


class SentEntry(Model):
    """One file, folder or link of a tree; ``path`` is relative and has no ``..``."""

    path: str = Field(min_length=1, max_length=4096)
    kind: Literal["file", "folder", "link"] = "file"
    mode: int = Field(default=0o644, ge=0, le=0o777)
    target: str = ""  # of a link
    chunks: tuple[str, ...] = ()  # SHA-256 of each part, in order


class SentTree(Model):
    entries: tuple[SentEntry, ...] = Field(max_length=MOST_ENTRIES)


class AskChunks(Model):
    """A question: which of these are not there."""

    chunks: tuple[str, ...]


class MissingChunks(Model):
    missing: tuple[str, ...]


class PutChunks(Model):
    """Digest -> content in base64."""

    chunks: dict[str, str]


class SentFolder(Model):
    """Where the tree lies, and on which machine."""

    path: str
    client: ClientMachine
