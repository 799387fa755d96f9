"""Read what containers print, from the files logs.py keeps.

Every line has a place: run, file of the run, offset of its end there. Places rise and stay
as they are over rotations, so that a reader whose connection broke goes on exactly behind
what it has.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from agent.runtime.logs import pieces
from specs.wire import LogLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from agent.linux.inotify import Inotify
    from agent.runtime.logs import Piece

LOOK_AGAIN = 2.0  # seconds after which a follower looks without having been woken
COARSE = 0.05  # seconds a file's time may be behind the clock
CHUNK = 256 * 1024
READ = 16 * 1024  # at a time on the event loop: some hundred lines, each costs some 20 us
TURN = 256  # lines after which others have their turn on the loop
WINDOW = 16 * 1024  # of the end of a log that is read first
LINE_MAX = 1 << 20  # a line without end is shown in pieces of this size
Place = tuple[int, int, int]


class Entry(NamedTuple):
    """One line of k8s-file form; ``whole``: it ends a line of output; ``gap``: some is missing."""

    time: float
    stream: Literal["stdout", "stderr"]
    body: bytes
    whole: bool
    gap: bool = False


def newest_write(directory: Path) -> float:
    """Return when the task printed last; no line written until now has a later time."""
    latest = 0.0
    for piece in pieces(directory):
        with contextlib.suppress(FileNotFoundError):
            latest = max(latest, Path(piece.path).stat().st_mtime)
    return latest + COARSE


def parse(line: bytes) -> Entry | None:
    """Return a line of k8s-file form; None = damaged."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    try:
        moment = datetime.fromisoformat(parts[0].decode("ascii")).timestamp()
    except ValueError:
        return None
    stream: Literal["stdout", "stderr"] = "stdout" if parts[1] == b"stdout" else "stderr"
    body = parts[3] if len(parts) > 3 else b""
    return Entry(moment, stream, body, parts[2] in (b"F", b"G"), parts[2] == b"G")


class Assembler:
    """Joins the pieces conmon splits lines into, per stream, and says where each line ended.

    Bytes are joined first and decoded then: a character may be written in two pieces.
    A line has the time of its last piece, so that times rise with places.
    """

    def __init__(self, run: int) -> None:
        self.run = run
        self._sequence = 1
        self._offset = 0  # in the file, of what was taken
        self._latest = 0.0
        self._partial: dict[Literal["stdout", "stderr"], bytearray] = {}
        self._rest = b""

    def go_on(self, sequence: int, offset: int = 0) -> None:
        """Go on in the run's next file."""
        self._sequence, self._offset, self._rest = sequence, offset, b""

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """Yield the complete lines that ``data`` finishes."""
        data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        for raw in lines:
            entry = parse(raw)
            if entry is not None and entry.gap:  # the rest of what had begun is lost
                yield from self.flush()
            self._offset += len(raw) + 1
            if entry is None:
                continue
            self._latest = entry.time
            body: bytes | bytearray = entry.body
            if entry.stream in self._partial:
                body = self._partial.pop(entry.stream)
                body += entry.body
            if entry.whole:
                yield self._line(entry.stream, body.decode(errors="replace").removesuffix("\r"))
            elif len(body) >= LINE_MAX:
                decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
                text = decoder.decode(body)
                if begun := decoder.getstate()[0]:
                    self._partial[entry.stream] = bytearray(begun)
                yield self._line(entry.stream, text)
            else:
                self._partial[entry.stream] = bytearray(body)

    def _line(self, stream: Literal["stdout", "stderr"], text: str, beyond: int = 0) -> LogLine:
        place = (self.run, self._sequence, self._offset + beyond)
        return LogLine(time=self._latest, stream=stream, line=text, run=self.run, place=place)

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
        for i, stream in enumerate(sorted(self._partial)):
            body = self._partial.pop(stream)
            yield self._line(stream, body.decode(errors="replace"), 1 + i)


class _File(NamedTuple):
    """An open log file and its size when it was opened."""

    piece: Piece
    fd: int
    size: int


def last_lines(directory: Path, count: int, most: int | None = None) -> list[LogLine]:
    """Return the newest ``count`` lines, fewer where they are not in the last ``most`` bytes.

    Blocks; without ``most`` on all files of a run, where a line has its end far from its beginning.
    """
    return _last(pieces(directory), count, most) if count else []


def _last(found: list[Piece], count: int, most: int | None = None) -> list[LogLine]:
    """Return the last lines of these files, what was never finished among them."""
    lines: list[LogLine] = []
    while found and len(lines) < count:
        run = found[-1].run
        with _opened([piece for piece in found if piece.run == run]) as files:
            if files:
                ended, assembler = _end(files, count - len(lines), most)
                lines = [*ended, *assembler.flush(), *lines]
        found = [piece for piece in found if piece.run < run]
    return lines[-count:]


@contextlib.contextmanager
def _opened(found: list[Piece]) -> Iterator[list[_File]]:
    """Open the files that are still there, of these that follow each other."""
    with contextlib.ExitStack() as stack:
        files = []
        for piece in found:
            try:
                file = stack.enter_context(Path(piece.path).open("rb", buffering=0))
            except FileNotFoundError:
                continue  # pruned meanwhile
            fd = file.fileno()
            files.append(_File(piece, fd, os.fstat(fd).st_size))
        yield files


def _end(
    files: list[_File], count: int, most: int | None = None
) -> tuple[list[LogLine], Assembler]:
    """Return at least the last ``count`` lines of one run's files and the unfinished rest.

    Reads backwards as far as is needed: a container may print faster than a file is read
    whole. A line may begin in one file and end in the next.
    """
    window = min(WINDOW, CHUNK)
    while True:
        first, left = len(files) - 1, window
        while first > 0 and left > files[first].size:
            left -= files[first].size
            first -= 1
        start = max(0, files[first].size - left)
        whole = first == 0 and start == 0
        assembler = Assembler(files[0].piece.run)
        # The first line of each stream may have begun before the window.
        begun: set[str] = set()
        lines = []
        for file in files[first:]:
            data = os.pread(file.fd, file.size - start, start)
            skip = data.find(b"\n") + 1 if start else 0
            assembler.go_on(file.piece.sequence, start + skip)
            for line in assembler.feed(data[skip:]):
                if whole or line.stream in begun:
                    lines.append(line)
                begun.add(line.stream)
            start = 0
        if whole or (len(lines) >= count and assembler.streams <= begun):
            return lines, assembler
        if most is not None and window >= most:
            return lines, assembler
        window *= 4


async def closing_words(
    lines: AsyncGenerator[LogLine, None], losing: Callable[[], str]
) -> AsyncGenerator[LogLine, None]:
    """Yield lines, and behind the last one, at its place, what there is to say of lost output."""
    last = LogLine(time=datetime.now().astimezone().timestamp(), stream="stderr", line="")
    async with contextlib.aclosing(lines):
        async for line in lines:
            yield line
            last = line
    if said := losing():
        yield last.model_copy(update={"stream": "stderr", "line": said})


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
        after: Place | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """Yield lines; with ``follow`` until ``over`` says that no more can come.

        ``after``: only lines behind this place.
        """
        position = _Position(self._directory, after)
        # Without follow the end is now: a container may print faster than anybody reads.
        end = None if follow else newest_write(self._directory)
        if tail is not None:
            # Where reading goes on is fixed before the tail is read: nothing is lost in between;
            # what was printed meanwhile is part of the tail and skipped below by position.
            lines = await asyncio.to_thread(position.tail, tail, since)
            for at, line in enumerate(lines, 1):
                yield line
                if at % TURN == 0:
                    await asyncio.sleep(0)
            if not follow:
                for line in position.flush():
                    yield line
                return
        with self._inotify.watch(self._directory) as changed:
            while True:
                changed.clear()
                finished = over()
                # What conmon has just begun is read when it has its number: a moment later.
                position.live = follow and not finished
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

    def __init__(self, directory: Path, after: Place | None = None) -> None:
        self._directory = directory
        self._after = after
        self._fd = -1
        self._run = 0
        self._sequence = 0
        self._assembler = Assembler(0)
        self.live = False  # somebody numbers the files; what is not numbered yet is left alone

    def tail(self, count: int, since: float | None) -> list[LogLine]:
        """Return the last lines and go to the end of everything."""
        while True:
            found = pieces(self._directory)
            if not found:
                return []
            if self._enter(found[-1]):
                break
        newest = found[-1]
        size = os.fstat(self._fd).st_size
        earlier = [piece for piece in found[:-1] if piece.run == newest.run]
        with _opened(earlier) as files:
            lines, self._assembler = _end([*files, _File(newest, self._fd, size)], count)
        os.lseek(self._fd, size, os.SEEK_SET)
        # An unfinished line is shown when it is finished: it has its place in the count.
        count = max(count - self._assembler.unfinished, 0)
        if len(lines) < count:
            before = [piece for piece in found if piece.run < newest.run]
            lines = [*_last(before, count - len(lines)), *lines]
        if since is not None:
            lines = [line for line in lines if line.time >= since]
        return lines[-count:] if count else []

    def more(self) -> list[LogLine] | None:
        """Return the next lines, maybe none yet of a long one; None = at the end for now."""
        if self._fd < 0:
            found = pieces(self._directory, settled=self.live)
            if self._after is not None:
                # From the run's beginning: a line behind the place may have begun anywhere.
                run = self._after[0]
                found = [piece for piece in found if piece.run >= run]
            if not found:
                return None
            if not self._enter(found[0]):
                return []
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
        flushed = self.flush() if following.run != self._run else []
        self._enter(following)
        return flushed

    def _read(self) -> list[LogLine] | None:
        data = os.read(self._fd, READ)
        return self._behind(self._assembler.feed(data)) if data else None

    def _behind(self, lines: Iterator[LogLine]) -> list[LogLine]:
        after = self._after
        return [line for line in lines if after is None or line.place > after]

    def _next(self) -> Piece | None:
        """Return the piece after the open one; None when that is the newest."""
        found = pieces(self._directory, settled=self.live)
        at = self._index(found)
        if at is not None:
            return found[at + 1] if at + 1 < len(found) else None
        # Ours was pruned while we were behind, or replaced before it had its number: go on with
        # the oldest there is behind it, and not with the beginning of a line whose end is gone.
        found = [piece for piece in found if piece[:2] >= (self._run, self._sequence)]
        if found:
            self._assembler = Assembler(self._run)
        return found[0] if found else None

    def _index(self, found: list[Piece]) -> int | None:
        """Return which of the files is the open one."""
        inode = os.fstat(self._fd).st_ino
        for i, piece in enumerate(found):
            with contextlib.suppress(FileNotFoundError):
                if Path(piece.path).stat().st_ino == inode:
                    return i
        return None

    def _enter(self, piece: Piece) -> bool:
        """Open the file, unless it was renamed or pruned since it was listed."""
        before = self._fd
        try:
            self._fd = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        found = pieces(self._directory)
        at = self._index(found)
        if at is not None and found[at][:2] != piece[:2]:
            # By its name it is a newer one: between the two would be a gap.
            os.close(self._fd)
            self._fd = before
            return False
        if before >= 0:
            os.close(before)
        if piece.run != self._run:
            self._run = piece.run
            self._assembler = Assembler(piece.run)
        self._sequence = piece.sequence
        self._assembler.go_on(piece.sequence)
        return True

    def flush(self) -> list[LogLine]:
        """Return the unfinished line, when no more will come."""
        return self._behind(self._assembler.flush())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
