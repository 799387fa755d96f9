"""Follow the logs of what runs: keep each file conmon fills, and count what came too fast.

A thread of its own: a container may fill a hundred files a second, and deleting large ones
takes the disk a while; neither is the event loop's business. The kernel queues a notice for each
file conmon begins, so that those which were replaced before we came are counted, not guessed.
Without notices (a kernel's limit) it looks four times a second.
"""

from __future__ import annotations

import logging
import os
import select
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from agent.linux import calls
from agent.runtime import logs, losses
from agent.runtime.conmon import pid_in, reopen_log
from specs.kit.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from specs.stack import LogConfig

log = logging.getLogger(__name__)

TICK: Final = 0.25  # seconds after which every log is looked at
REST: Final = 0.002  # between two looks: many files at once cost little more than one
BEGIN_SECONDS: Final = 60.0  # between a run's creation and its beginning, at most
TELL_EVERY: Final = 10.0  # the daemon's log, of one container that floods
# Both ends of each rename: the kernel makes one of two notices that follow each other and are
# the same, but not of these, which take turns.
_RENAMES: Final = 0x40 | 0x80
_OVERFLOW: Final = 0x4000
_HEADER: Final = struct.Struct("iIII")


@dataclass(frozen=True)
class Followed:
    """One run whose log is followed."""

    task: str
    run: int
    directory: Path
    bundle: Path
    limits: LogConfig


class _Log(logs.Count):
    """What is known of one run's log."""

    def __init__(self, what: Followed, hear: Callable[[], None], *, sure: bool) -> None:
        self.what = what
        self.watch = -1
        self.name = os.fsencode(logs.path_of(what.directory, what.run).name)
        self.begun = 0  # files conmon began, of which the kernel told
        self.known = 0  # those of them that were kept or told as lost
        self.sure = sure  # whether these two tell all
        # One that an agent of an earlier version started fills its file without end.
        self.endless = _log_size_max(what.bundle) > 2 * logs.file_size(what.limits)
        self.lost = 0
        self.told = 0.0
        self.losses = losses.Losses()
        self.said = ""  # what the disk did not take, until it stands in the log
        self._hear = hear

    @override
    def missed(self) -> int:
        self._hear()
        if self.sure and self.watch >= 0:
            return max(self.begun - self.known - 1, 0)
        return 0 if self.endless else logs.UNKNOWN

    @override
    def gap(self) -> str:
        return self.said

    @override
    def kept(self, missed: int) -> None:
        self.said = ""
        if missed == logs.UNKNOWN:
            self.sure, self.known = True, self.begun
        else:
            self.known += 1 + missed


class Rotation:
    """Keeps the logs of all that runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[tuple[str, int], Followed] = {}
        self._begun: dict[tuple[str, int], tuple[Followed, float]] = {}  # until wanted, or then
        self._logs: dict[tuple[str, int], _Log] = {}
        self._owed: list[_Log] = []  # of runs that ended while the disk took nothing
        self._clock = SystemClock()
        self._ended = threading.Event()
        try:
            self._fd = calls.inotify_open()
        except OSError:
            self._fd = -1
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def begin(self, what: Followed) -> None:
        """Follow a run that has been created and prints nothing yet: every file is counted."""
        key = (what.task, what.run)
        with self._lock:
            self._begun[key] = (what, self._clock.monotonic() + BEGIN_SECONDS)
            if key not in self._logs:
                self._logs[key] = one = _Log(what, self._hear, sure=True)
                one.watch = self._watch(what.directory)

    def follow(self, wanted: Iterable[Followed]) -> None:
        """Say which runs' logs are to be kept from now on; the others get a last look."""
        with self._lock:
            self._wanted = {(one.task, one.run): one for one in wanted}

    def close(self) -> None:
        """End the thread; the logs go on by themselves."""
        self._ended.set()
        self._thread.join()
        if self._fd >= 0:
            os.close(self._fd)

    def _run(self) -> None:
        due = 0.0
        while not self._ended.wait(REST):
            left = max(due - self._clock.monotonic(), 0.0)
            if self._fd < 0:
                self._ended.wait(left)
            elif select.select([self._fd], [], [], left)[0]:
                self._hear()
            every = self._clock.monotonic() >= due
            if every:
                due = self._clock.monotonic() + TICK
                self._take_over()
            for one in list(self._logs.values()):
                if every:
                    self._look_at_disk(one)
                if every or one.begun > one.known:
                    self._look(one)

    def _take_over(self) -> None:
        """Begin with the runs that are new, end with those that are over."""
        new = []
        with self._lock:
            wanted, now = self._wanted, self._clock.monotonic()
            for key, (_, until) in list(self._begun.items()):
                if key in wanted or now > until:
                    del self._begun[key]
            gone = self._logs.keys() - wanted.keys() - self._begun.keys()
            over = [self._logs.pop(key) for key in gone]
            for key, what in wanted.items():
                if key not in self._logs:
                    self._logs[key] = one = _Log(what, self._hear, sure=False)
                    one.watch = self._watch(what.directory)
                    new.append(one)
            watches = {one.watch for one in self._logs.values()}
        self._hear(*over)
        owed, self._owed = self._owed, []
        for one in owed:
            self._end(one)
        for one in over:
            one.told = 0.0  # nothing comes after this
            self._look_at_disk(one)
            self._look(one)
            self._end(one)
            if one.watch >= 0 and one.watch not in watches:
                self._forget(one.watch)
        for one in new:
            self._look(one)
            # What was printed while no agent ran is told by now; the rest is counted.
            one.sure = True

    def _watch(self, directory: Path) -> int:
        try:
            return calls.inotify_watch(self._fd, str(directory), _RENAMES) if self._fd >= 0 else -1
        except OSError:
            return -1

    def _forget(self, watch: int) -> None:
        try:
            calls.inotify_forget(self._fd, watch)
        except OSError:
            return  # the directory went, and its watch with it

    def _hear(self, *more: _Log) -> None:
        """Count the files that were begun."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                return
            heard = {(one.watch, one.name): one for one in (*list(self._logs.values()), *more)}
            at = 0
            while at < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, at)
                at += _HEADER.size + length
                one = heard.get((watch, data[at - length : at].rstrip(b"\0")))
                if one is not None:
                    one.begun += 1
                elif mask & _OVERFLOW:
                    for each in heard.values():
                        each.sure = False

    def losing(self, task: str) -> str:
        """Return that output of a task is being lost right now, in words; "" = it is not."""
        for key, one in list(self._logs.items()):
            if key[0] == task and one.losses.bytes:
                return logs.refusing(one.losses.bytes, one.losses.since)
        return ""

    def _look_at_disk(self, one: _Log) -> None:
        what = one.what
        refused = losses.refuses(what.directory)
        seen = None
        if refused or one.losses.bytes:
            seen = losses.flow(what.bundle, logs.path_of(what.directory, what.run))
        one.said = one.losses.look(seen, refused=refused, wall=self._clock.wall()) or one.said
        if one.said:
            reopen_log(what.bundle)  # it is said before the file that begins now

    def _look(self, one: _Log) -> None:
        what, size = one.what, logs.file_size(one.what.limits)
        try:
            if one.endless and logs.path_of(what.directory, what.run).stat().st_size >= size:
                reopen_log(what.bundle)
            new, lost = logs.settle(what.directory, what.run, one, size)
            if new:
                logs.prune(what.directory, what.limits)
        except FileNotFoundError:
            return  # the task is being erased
        except OSError as error:
            self._tell(one, "a log's full files cannot be kept", why=str(error))
            return
        one.lost += lost
        if one.lost:
            self._tell(one, "output was dropped: faster than its log can be kept", lost=one.lost)

    def _end(self, one: _Log) -> None:
        """Say at the end of a run's log what it lacks."""
        what = one.what
        if one.losses.bytes:
            one.said = logs.refused(one.losses.bytes, one.losses.since, self._clock.wall())
        if one.said:
            try:
                logs.end_with(what.directory, what.run, one.said)
            except OSError as error:
                self._owed.append(one)
                self._tell(one, "it cannot be said yet what a log lacks", why=str(error))

    def _tell(self, one: _Log, message: str, **more: object) -> None:
        now = self._clock.monotonic()
        if now - one.told >= TELL_EVERY or not one.told:
            log.warning(message, extra={"task": one.what.task, **more})
            one.told, one.lost = now, 0


def _log_size_max(bundle: Path) -> int:
    """Return where the task's conmon begins its log anew; 0 where there is none to ask."""
    try:
        words = Path(f"/proc/{pid_in(bundle / 'conmon.pid')}/cmdline").read_bytes().split(b"\0")
        return int(words[words.index(b"--log-size-max") + 1])
    except (OSError, ValueError, IndexError):
        return 0
