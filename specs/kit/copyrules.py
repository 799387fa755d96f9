"""Where what is copied comes to stand: Docker's rules of `cp`, as one table (pure).

Asked on the side where something is written: by the agent's child inside the container, by the
command line on its own machine. What is copied is called by the last part of its path; a path
that ends in ``/.`` means what is in the folder, not the folder.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

_NAMELESS = frozenset({b"", b".", b".."})


class CopyRefused(Exception):
    """It is not copied; the message is for users."""


class Source(NamedTuple):
    """What is copied. ``contents``: what is in the folder only."""

    name: bytes
    directory: bool
    contents: bool = False


class Spot(NamedTuple):
    """What stands at the place named; ``slash`` = the name ends with one."""

    directory: bool = False
    file: bool = False
    slash: bool = False


class Landing(NamedTuple):
    """Where entries go. ``inside``: below the place itself, else beside it, called ``name``.

    ``top`` is the first part that every name in the archive has and that ``name`` replaces;
    None = the names begin below it.
    """

    inside: bool
    name: bytes = b""
    top: bytes | None = None


def named(path: bytes) -> tuple[bytes, bool, bool]:
    """Return the last part of a path, whether only the contents are meant, and the slash."""
    name = path.rstrip(b"/").rpartition(b"/")[2]
    if name in _NAMELESS:  # also "/", "." and ".."
        return b".", True, True
    return name, False, path.endswith(b"/")


def land(source: Source, spot: Spot, *, name: bytes) -> Landing:
    """Say where the source comes to stand. ``name``: the last part of the place's path.

    Raises CopyRefused with Docker's reasons.
    """
    top = None if source.contents else source.name
    if spot.directory:
        return (
            Landing(inside=True)
            if source.contents
            else Landing(inside=True, name=source.name, top=top)
        )
    if spot.file:
        if source.directory:
            raise CopyRefused("a folder cannot be copied over a file")
        if spot.slash:
            raise CopyRefused("it ends with a slash and is a file, not a folder")
        return Landing(inside=False, name=name, top=top)
    if spot.slash and not source.directory:
        raise CopyRefused("there is no such folder, and a file is not copied to make one")
    return Landing(inside=False, name=name, top=top)


def land_stream(spot: Spot) -> Landing:
    """Say where the entries of an archive from standard input go: into a folder that is there."""
    if not spot.directory:
        raise CopyRefused("an archive can only be copied into a folder that is there")
    return Landing(inside=True)


def may_replace(there: int, comes: int, *, same: bool) -> bool:
    """Say whether what comes takes the place of what has its name, by their modes.

    A file or a link is replaced by anything, as ever. A pipe, a socket or a device is somebody's
    way to somebody else: only another pipe, or the very device (``same``), stands for it. A
    folder the kernel keeps.
    """
    kind = stat.S_IFMT(there)
    if kind in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
        return True
    return kind == stat.S_IFMT(comes) and kind != stat.S_IFSOCK and same
