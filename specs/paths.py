"""Paths of a node that a container binds: which are somebody's, and which may be made.

Compose makes a folder where a bind's source is missing. That is a lie where only a program or
the kernel puts something: an empty folder is no socket. The compiler warns by this
(:mod:`specs.compile.mounts`), the scheduler chooses nodes by it, the agent refuses by it.
"""

from __future__ import annotations

import posixpath
from typing import Literal

# What an agent says of a path: there; made by corral where it was missing; absent; not told.
PathState = Literal["there", "made", "absent", "unknown"]

_KERNEL = ("/dev", "/proc", "/sys")
# Sockets by which programs steer another container engine.
_ENGINES = {
    "docker.sock": "Docker",
    "podman.sock": "Podman",
    "containerd.sock": "containerd",
    "crio.sock": "CRI-O",
}


def engine_of(source: str) -> str:
    """Return whose containers a program sees through this path; empty = nobody's."""
    return _ENGINES.get(posixpath.basename(source.rstrip("/")), "")


def never_made(source: str) -> str:
    """Return why a path that is missing is not made as a folder; empty = it may be."""
    name = posixpath.basename(source.rstrip("/"))
    engine = engine_of(source)
    if engine:
        return f"it is {engine}'s socket, and {engine} is not running there"
    if name.endswith((".sock", ".socket", "_socket")):
        return "by its name it is a socket, which only the program behind it makes"
    first = next((top for top in _KERNEL if f"{source}/".startswith(f"{top}/")), None)
    return f"what is below {first} is the kernel's" if first else ""
