"""Keep what containers print: the files of their logs. Reading them is logreading.py's.

conmon writes ``NUMBER.log`` of each run in k8s-file form and begins it anew whenever it is full:
it puts another file in its place (``--log-size-max``). So the disk is safe at any rate, whether
an agent runs or not, and no container waits for us. What we add is that the full files stay:
each is linked as ``NUMBER.SEQUENCE.log`` while it is being written, and so outlives its name.
The newest ``max_files`` are kept, over all runs of the task.

rotation.py calls ``settle`` at each new file. Where it came too late for some, they are gone;
then a file of one line in between says how much. Files of output have odd numbers, such notes
the even ones.
"""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from specs.kit import disk
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from specs.stack import LogConfig

FILES_MAX = 100  # of a task that crashes for ever with little output
UNKNOWN = -1
_NAME = re.compile(r"(\d{6})(?:\.(\d{6}))?\.log")
_MIB = 1 << 20


class Piece(NamedTuple):
    """One log file; sorts in the order of writing. ``sequence`` counts within the run, from 1."""

    run: int
    sequence: int
    path: str


def path_of(directory: Path, run: int) -> Path:
    """Return the file conmon writes for a run."""
    return directory / f"{run:06d}.log"


def piece_of(directory: Path, run: int, sequence: int) -> Path:
    """Return the name under which a file stays."""
    return directory / f"{run:06d}.{sequence:06d}.log"


def pieces(directory: Path, *, settled: bool = False) -> list[Piece]:
    """Return the task's log files, oldest first.

    ``settled``: without a file conmon has begun and nobody has given its number yet; whether
    something is missing before it is not known.
    """
    found: list[Piece] = []
    inodes: dict[int, set[int]] = {}
    currents: list[tuple[int, str, int]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match and match[2]:
                found.append(Piece(int(match[1]), int(match[2]), entry.path))
                inodes.setdefault(int(match[1]), set()).add(entry.inode())
            elif match:
                currents.append((int(match[1]), entry.path, entry.inode()))
    for run, path, inode in currents:
        numbered = inodes.get(run, set())
        if inode not in numbered and not (settled and numbered):
            found.append(Piece(run, _following(_last(found, run)), path))
    found.sort()
    return found


def _last(found: list[Piece], run: int) -> int:
    return max((piece.sequence for piece in found if piece.run == run), default=0)


def _following(sequence: int) -> int:
    """Return the number of the next file of output: odd, with room for a note before it."""
    return sequence + 1 + sequence % 2


def file_size(limits: LogConfig) -> int:
    """Return how large one file becomes.

    One file alone is two halves: else each new one would take what was just written.
    """
    return limits.max_size if limits.max_files > 1 else max(limits.max_size // 2, 1)


class Count:
    """Counts the files conmon begins in a log's place; this one: of a log never too fast."""

    def missed(self) -> int:
        """Return how many were begun and replaced before the one that is being kept now.

        UNKNOWN where nobody counted.
        """
        return 0

    def gap(self) -> str:
        """Return what is to be said before the file that is being kept now; "" = nothing."""
        return ""

    def kept(self, missed: int) -> None:
        """Note that one more file is kept, and that so many before it are told as lost."""


def settle(directory: Path, run: int, count: Count, size: int) -> tuple[bool, int]:
    """Make the run's current file stay, under its number; return whether it is new, and the loss.

    That is the bytes of the files of ``size`` that were replaced before they could be kept, as
    far as they were counted. Safe to repeat.
    """
    current, link = path_of(directory, run), directory / f".{run:06d}.link"
    found = [piece for piece in pieces(directory, settled=True) if piece.run == run]
    if found and found[-1].path == str(current):  # the first of its run
        found = []
    known = _inode(Path(found[-1].path)) if found else 0
    sequence = _following(found[-1].sequence) if found else 1
    if _inode(current) in (0, known):
        return False, 0
    link.unlink(missing_ok=True)
    try:
        os.link(current, link)
    except FileNotFoundError:
        return False, 0
    inode, missed, lost = _inode(link), count.missed(), 0
    if _inode(current) != inode:
        missed = 0  # replaced meanwhile: what was counted may lie behind it; it is told then
    gap = count.gap()
    told = [gap] if gap else []
    if missed and sequence > 1:
        told.append(words(missed * size))
        lost = max(missed, 0) * size
    if told:
        _note(piece_of(directory, run, sequence - 1), link, told)
    count.kept(missed)
    reached("log.rotate_mid")
    link.rename(piece_of(directory, run, sequence))
    return True, lost


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def end_with(directory: Path, run: int, text: str) -> None:
    """Say behind all there is of a run, which has ended, what is missing there. Raises OSError."""
    found = [piece for piece in pieces(directory) if piece.run == run]
    if found:
        _note(
            piece_of(directory, run, found[-1].sequence + 1), Path(found[-1].path), [text], now=True
        )


def _note(path: Path, following: Path, told: list[str], *, now: bool = False) -> None:
    """Say in the log what is missing there; the time is that of the line behind it, or ``now``."""
    with following.open("rb") as file:
        moment = file.read(64).partition(b" ")[0].decode("ascii", "replace")
    try:
        datetime.fromisoformat("" if now else moment)
    except ValueError:
        moment = datetime.now(UTC).isoformat()
    lines = "".join(f"{moment} stderr G {text}\n" for text in told)
    disk.write_file(path, lines.encode(), durable=False)


def words(lost: int) -> str:
    """Return what a log says where output is missing; ``lost`` below 0: nobody counted."""
    if lost < 0:
        return "corral: output may be missing here: it was printed while corral's agent was away"
    return (
        f"corral: about {_amount(lost)} of output are missing here: they were printed faster than"
        " the log's files could be kept (logging.options: a larger max-size)"
    )


def refused(lost: int, since: float, until: float) -> str:
    """Return what a log says where the disk took nothing from ``since`` to ``until`` (wall)."""
    return (
        f"corral: about {_amount(lost)} of output are missing here: the node's disk took nothing"
        f" from {_moment(since)} to {_moment(until)} (UTC)"
    )


def refusing(lost: int, since: float) -> str:
    """Return what is said at the end of a log for as long as the disk takes nothing."""
    return (
        f"corral: output is being lost since {_moment(since)} (UTC), about {_amount(lost)} by now:"
        " the node's disk takes nothing"
    )


def _amount(lost: int) -> str:
    return f"{lost / _MIB:.1f} MiB" if lost >= _MIB else f"{max(lost >> 10, 1)} KiB"


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S")


def prune(directory: Path, limits: LogConfig) -> None:
    """Delete the oldest files beyond what is to be kept; the newest two of output always stay."""
    room = file_size(limits) * max(limits.max_files - 1, 1)
    kept = 0
    for place, piece in enumerate(reversed(pieces(directory))):
        if place == 0:
            continue  # the one being written
        path = Path(piece.path)
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            room -= size
            kept += size > 0 and piece.sequence % 2
            if (room < 0 and kept > 1) or place >= FILES_MAX:
                own = path_of(directory, piece.run)
                if own != path and _inode(own) == _inode(path):
                    own.unlink()
                path.unlink()
