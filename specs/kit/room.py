"""Has a disk room for anything new, and if not, why: bytes, inodes, or it is read-only.

A disk can have room for bytes and none for another file: the error number is the same, and what
helps is not. Standard library only.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

FLOOR = 64 << 20  # bytes below which nothing new is begun; of a small disk a twentieth
FLOOR_FILES = 1024  # inodes likewise
SHARE = 20
IMAGES = 256 << 20  # bytes that an image leaves free; with less none is fetched
ARCHIVES = 256 << 20  # bytes that a volume's archive, or its move, leaves free on a node's disk
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class RoomWatch:
    """Whether anything new fits at some places, which can be written to.

    Once it did not, twice the floors are asked for.
    """

    def __init__(self, *places: Path) -> None:
        self._places = places
        self.lack = ""  # what is short, in words
        self.cramped = ""  # why no image fits at the first of them, where nothing is short

    def look(self) -> None:
        """Measure anew."""
        slack, found = 2.0 if self.lack else 1.0, ""
        for place in self._places:
            room = measure(place)
            if room is not None and not found:
                found = shortage(room, str(place), slack=slack)
        self.lack = found
        first = measure(self._places[0])
        slack = 1.25 if self.cramped else 1.0
        cramp = cramped(first, str(self._places[0]), slack=slack) if first is not None else ""
        self.cramped = "" if found else cramp


class Room(NamedTuple):
    """What is free, and what there is in all; 0 files in all = they are not counted there.

    ``readonly``: nothing can be written, however much is free.
    """

    free: int
    total: int
    free_files: int = 0
    files: int = 0
    readonly: bool = False


def lacks_room(error: OSError) -> bool:
    """Say whether a write failed because nothing more fits."""
    return error.errno in NO_ROOM


def measure(path: Path) -> Room | None:
    """Return how much room there is where a file or folder is, or would be; None = not known."""
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        unit = found.f_frsize
        return Room(
            found.f_bavail * unit,
            found.f_blocks * unit,
            found.f_favail,
            found.f_files,
            bool(found.f_flag & os.ST_RDONLY),
        )
    return None


def shortage(room: Room, place: str, *, slack: float = 1.0) -> str:
    """Return what is short there, in words; "" = there is room. ``slack``: of the floors (pure)."""
    if room.readonly:
        return f"{place} is read-only: a fault of the disk (dmesg)? mount it writable again"
    if room.free < min(FLOOR, room.total // SHARE) * slack:
        free, total = room.free >> 20, room.total >> 20
        return f"no room is left: {place} has {free} of {total} MiB free; free some"
    if room.files and room.free_files < min(FLOOR_FILES, room.files // SHARE) * slack:
        return (
            f"no more files fit: {place} has {room.free_files} of {room.files} inodes free (df -i);"
            " delete some files"
        )
    return ""


def cramped(room: Room, place: str, *, slack: float = 1.0) -> str:
    """Return why no further image fits there, in words that stay; "" = some do (pure)."""
    if room.free >= IMAGES * slack:
        return ""
    return (
        f"no image fits in {place} ({room.total >> 20} MiB in all): less than"
        f" {IMAGES >> 20} MiB are free; those that are there run"
    )
