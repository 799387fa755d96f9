"""Keep what containers print: the files of their logs. Reading them is logreading.py's.

conmon writes ``NUMBER.log`` of each run in k8s-file form. Rotation renames it to
``NUMBER.SEQUENCE.log`` and tells conmon to reopen by name, which loses no line;
conmon's own size limit truncates and is only a backstop. The newest ``max_files``
full files are kept, over all runs of the task.

conmon counts every byte since its start and, at the limit, throws away the current
file; the counter knows nothing of our rotations. So the limit is far away: it bounds
the disk while no agent runs, and rarely costs lines when one does.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.runtime.conmon import reopen_log

if TYPE_CHECKING:
    from specs.stack import LogConfig

BACKSTOP = 100  # conmon truncates each time it has written this many times the rotation size,
BACKSTOP_MIN = 256 << 20  # and not before this
FILES_MAX = 100  # of a task that crashes for ever with little output
_NAME = re.compile(r"(\d{6})(?:\.(\d{6}))?\.log")
_CURRENT = 10**9


class Piece(NamedTuple):
    """One log file; sorts in the order of writing. ``sequence`` counts within the run, from 1."""

    run: int
    sequence: int
    path: str


def path_of(directory: Path, run: int) -> Path:
    """Return the file conmon writes for a run."""
    return directory / f"{run:06d}.log"


def pieces(directory: Path) -> list[Piece]:
    """Return the task's log files, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match:
                sequence = int(match[2]) if match[2] else _CURRENT
                found.append(Piece(int(match[1]), sequence, entry.path))
    found.sort()
    # What is being written has the number it will get: a place in it is not moved by a rotation.
    for i, piece in enumerate(found):
        if piece.sequence == _CURRENT:
            before = found[i - 1] if i else None
            last = before.sequence if before is not None and before.run == piece.run else 0
            found[i] = piece._replace(sequence=last + 1)
    return found


def rotate(directory: Path, bundle: Path, run: int, limits: LogConfig) -> bool:
    """Rotate the run's log when it is full; True when it was. Safe to repeat after a crash."""
    current = path_of(directory, run)
    try:
        size = current.stat().st_size
    except FileNotFoundError:
        # Killed between rename and reopen: conmon still writes to the renamed file.
        return reopen_log(bundle)
    if size < _shares(limits)[0]:
        return False
    sequence = max((p.sequence for p in pieces(directory) if p.run == run), default=1)
    current.rename(directory / f"{run:06d}.{sequence:06d}.log")
    reopen_log(bundle)
    prune(directory, limits)
    return True


def _shares(limits: LogConfig) -> tuple[int, int]:
    """Return when a file is full, and how much the full ones may hold.

    One file alone is two halves: else each rotation would take what was just written.
    """
    if limits.max_files > 1:
        return limits.max_size, limits.max_size * (limits.max_files - 1)
    return limits.max_size // 2, limits.max_size // 2


def prune(directory: Path, limits: LogConfig) -> None:
    """Delete the oldest files beyond what is to be kept; the newest full one always stays."""
    room = _shares(limits)[1]
    kept = 0
    for place, piece in enumerate(reversed(pieces(directory))):
        path = Path(piece.path)
        if place == 0 and path == path_of(directory, piece.run):
            continue  # the one being written; after a rename conmon makes it a moment later
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            room -= size
            kept += size > 0
            if (room < 0 and kept > 1) or place >= FILES_MAX:
                path.unlink()
