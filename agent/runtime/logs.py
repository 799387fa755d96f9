"""Keep and read what containers print.

conmon writes ``NUMBER.log`` of each run in k8s-file form. Rotation renames it to
``NUMBER.SEQUENCE.log`` and tells conmon to reopen by name, which loses no line;
conmon's own size limit truncates and is only a backstop. The newest ``max_files``
full files are kept, over all runs of the task.

conmon counts every byte since its start and, at the limit, throws away the current
file; the counter knows nothing of our rotations. So the limit is far away: it bounds
the disk while no agent runs, and rarely costs lines when one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from agent.runtime.conmon import reopen_log
from specs.wire import LogLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from agent.linux.inotify import Inotify
    from specs.stack import LogConfig

BACKSTOP = 100  # conmon truncates each time it has written this many times the rotation size
FILES_MAX = 100  # of a task that crashes for ever with little output
LOOK_AGAIN = 2.0  # seconds after which a follower looks without having been woken
COARSE = 0.05  # seconds a file's time may be behind the clock
CHUNK = 256 * 1024
LINE_MAX = 1 << 20  # a line without end is shown in pieces of this size
_NAME = re.compile(r"(\d{6})(?:\.(\d{6}))?\.log")
_CURRENT = 10**9


class Piece(NamedTuple):
    """One log file; sorts in the order of writing."""

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
    return sorted(found)


def newest_write(directory: Path) -> float:
    """Return when the task printed last; no line written until now has a later time."""
    latest = 0.0
    for piece in pieces(directory):
        with contextlib.suppress(FileNotFoundError):
            latest = max(latest, Path(piece.path).stat().st_mtime)
    return latest + COARSE


def rotate(directory: Path, bundle: Path, run: int, limits: LogConfig) -> bool:
    """Rotate the run's log when it is full; True when it was. Safe to repeat after a crash."""
    current = path_of(directory, run)
    try:
        size = current.stat().st_size
    except FileNotFoundError:
        # Killed between rename and reopen: conmon still writes to the renamed file.
        return reopen_log(bundle)
    if size < limits.max_size:
        return False
    last = max(
        (p.sequence for p in pieces(directory) if p.run == run and p.sequence != _CURRENT),
        default=0,
    )
    current.rename(directory / f"{run:06d}.{last + 1:06d}.log")
    reopen_log(bundle)
    prune(directory, limits)
    return True


def prune(directory: Path, limits: LogConfig) -> None:
    """Delete the oldest files beyond what is to be kept."""
    room = limits.max_size * max(limits.max_files - 1, 0)
    kept = 0
    for place, piece in enumerate(reversed(pieces(directory))):
        if place == 0:
            continue  # the one being written
        with contextlib.suppress(FileNotFoundError):
            path = Path(piece.path)
            room -= path.stat().st_size
            kept += 1
            if room < 0 or kept >= FILES_MAX:
                path.unlink()


def parse(line: bytes, run: int) -> tuple[LogLine, bool] | None:
    """Return a line of k8s-file form and whether it is complete; None = damaged."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    try:
        moment = datetime.fromisoformat(parts[0].decode("ascii")).timestamp()
    except ValueError:
        return None
    stream: Literal["stdout", "stderr"] = "stdout" if parts[1] == b"stdout" else "stderr"
    text = parts[3].decode(errors="replace") if len(parts) > 3 else ""
    return LogLine(time=moment, stream=stream, line=text, run=run), parts[2] == b"F"


class Assembler:
    """Joins the pieces conmon splits long lines into, per stream."""

    def __init__(self, run: int) -> None:
        self.run = run
        self._partial: dict[str, LogLine] = {}
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """Yield the complete lines that ``data`` finishes."""
        data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        for raw in lines:
            parsed = parse(raw, self.run)
            if parsed is None:
                continue
            line, whole = parsed
            before = self._partial.pop(line.stream, None)
            if before is not None:
                line = before.with_line(before.line + line.line)
            if whole or len(line.line) >= LINE_MAX:
                yield line.with_line(line.line.removesuffix("\r"))
            else:
                self._partial[line.stream] = line

    @property
    def unfinished(self) -> int:
        """Return how many lines have begun and not ended."""
        return len(self._partial)

    @property
    def streams(self) -> set[str]:
        """Return the streams with a line that has begun and not ended."""
        return set(self._partial)

    def flush(self) -> Iterator[LogLine]:
        """Yield what was never finished: output without a newline at its end."""
        yield from self._partial.values()
        self._partial.clear()


def last_lines(directory: Path, count: int, since: float | None = None) -> list[LogLine]:
    """Return the newest ``count`` lines. Blocks on files of at most the rotation size each."""
    found: list[LogLine] = []
    for piece in reversed(pieces(directory)):
        if len(found) >= count:
            break
        found = [*_lines_of(piece, count - len(found)), *found]
        if since is not None and found and found[0].time < since:
            break
    if since is not None:
        found = [line for line in found if line.time >= since]
    return found[-count:] if count else []


def _lines_of(piece: Piece, count: int) -> list[LogLine]:
    try:
        with Path(piece.path).open("rb") as file:
            lines, assembler, _ = end_lines(file.fileno(), count, piece.run)
    except FileNotFoundError:
        return []
    return [*lines, *assembler.flush()]


def end_lines(fd: int, count: int, run: int) -> tuple[list[LogLine], Assembler, int]:
    """Return at least the last ``count`` lines there are, the unfinished rest, the file's size.

    Reads backwards as far as is needed: a container may print faster than a file is read whole.
    """
    size = os.fstat(fd).st_size
    window = CHUNK
    while True:
        start = max(0, size - window)
        data = os.pread(fd, size - start, start)
        assembler = Assembler(run)
        if start == 0:
            return list(assembler.feed(data)), assembler, size
        # The first line of each stream may have begun before the window.
        begun: set[str] = set()
        lines = []
        for line in assembler.feed(data[data.find(b"\n") + 1 :]):
            if line.stream in begun:
                lines.append(line)
            begun.add(line.stream)
        if len(lines) >= count and assembler.streams <= begun:
            return lines, assembler, size
        window *= 4


class Reader:
    """Reads one task's logs from the oldest file on, over rotations and runs."""

    def __init__(self, directory: Path, inotify: Inotify) -> None:
        self._directory = directory
        self._inotify = inotify

    async def read(
        self,
        *,
        tail: int | None,
        since: float | None,
        follow: bool,
        over: Callable[[], bool],
    ) -> AsyncGenerator[LogLine, None]:
        """Yield lines; with ``follow`` until ``over`` says that no more can come."""
        position = _Position(self._directory)
        # Without follow the end is now: a container may print faster than anybody reads.
        end = None if follow else newest_write(self._directory)
        if tail is not None:
            # Where reading goes on is fixed before the tail is read: nothing is lost in between;
            # what was printed meanwhile is part of the tail and skipped below by position.
            lines = await asyncio.to_thread(position.tail, tail, since)
            for line in lines:
                yield line
            if not follow:
                for line in position.flush():
                    yield line
                return
        with self._inotify.watch(self._directory) as changed:
            while True:
                changed.clear()
                finished = over()
                async for line in self._drain(position, since):
                    if end is not None and line.time > end:
                        return
                    yield line
                if not follow or finished:
                    for line in position.flush():
                        yield line
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await changed.wait()

    @staticmethod
    async def _drain(position: _Position, since: float | None) -> AsyncGenerator[LogLine, None]:
        while True:
            lines = position.more()
            if lines is None:
                return
            for line in lines:
                if since is None or line.time >= since:
                    yield line
            await asyncio.sleep(0)


class _Position:
    """How far reading has come: the piece, the open file, the unfinished line."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._run = 0
        self._assembler = Assembler(0)

    def tail(self, count: int, since: float | None) -> list[LogLine]:
        """Return the last lines and go to the end of everything."""
        found = pieces(self._directory)
        if not found:
            return []
        earlier = found[:-1]
        newest = found[-1]
        self._enter(newest)
        lines = self._end(count)
        # An unfinished line is shown when it is finished: it has its place in the count.
        count = max(count - self._assembler.unfinished, 0)
        for piece in reversed(earlier):
            if len(lines) >= count:
                break
            lines = [*_lines_of(piece, count - len(lines)), *lines]
        if since is not None:
            lines = [line for line in lines if line.time >= since]
        return lines[-count:] if count else []

    def _end(self, count: int) -> list[LogLine]:
        """Return at least the last ``count`` lines of the open file and go to its end of now."""
        if self._fd < 0:
            return []
        lines, self._assembler, size = end_lines(self._fd, count, self._run)
        os.lseek(self._fd, size, os.SEEK_SET)
        return lines

    def more(self) -> list[LogLine] | None:
        """Return the next lines, maybe none yet of a long one; None = at the end for now."""
        if self._fd < 0:
            found = pieces(self._directory)
            if not found:
                return None
            self._enter(found[0])
        lines = self._read()
        if lines is not None:
            return lines
        following = self._next()
        if following is None:
            return None
        # Between the last read and the rename more may have been written: once more to the end.
        lines = self._read()
        if lines is not None:
            return lines
        flushed = list(self._assembler.flush()) if following.run != self._run else []
        self._enter(following)
        return flushed

    def _read(self) -> list[LogLine] | None:
        data = os.read(self._fd, CHUNK)
        return list(self._assembler.feed(data)) if data else None

    def _next(self) -> Piece | None:
        """Return the piece after the open one; None when that is the newest."""
        inode = os.fstat(self._fd).st_ino
        found = pieces(self._directory)
        for place, piece in enumerate(found):
            with contextlib.suppress(FileNotFoundError):
                if Path(piece.path).stat().st_ino == inode:
                    return found[place + 1] if place + 1 < len(found) else None
        # Ours was pruned while we were behind: go on with the oldest there is, and not with the
        # beginning of a line whose end is gone.
        self._assembler = Assembler(self._run)
        return found[0] if found else None

    def _enter(self, piece: Piece) -> None:
        try:
            fd = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self.close()
        self._fd = fd
        if piece.run != self._run:
            self._run = piece.run
            self._assembler = Assembler(piece.run)

    def flush(self) -> list[LogLine]:
        """Return the unfinished line, when no more will come."""
        return list(self._assembler.flush())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
