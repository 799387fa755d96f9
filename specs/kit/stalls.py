"""Notice when an event loop does not come round, and say what held it up.

While a daemon's loop works on one thing it hears nobody: no agent's report, no controller's
question, no beat. So nothing on it may take more than ``LIMIT``. A thread looks from beside:
the loop's selector notes when a turn begins and ends, the thread takes the stack of a turn
that lasts, and one line in the log says how long and where.

Only what is the loop's own fault counts, so that a busy machine raises no alarm: the CPU time
of the loop's own thread, and the time in which it was seen asleep outside its selector (a
blocking call). A thread that waits for a processor, or a process that was frozen, is neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping
    from types import FrameType

log = logging.getLogger(__name__)
T = TypeVar("T")

LIMIT: Final = 0.05  # seconds of one turn
LOOK: Final = 0.05
TELL_AGAIN: Final = 5.0  # a line at most so often, about the worst since the last
STUCK: Final = 2.0  # a turn that does not end is told before its end
DEPTH: Final = 12  # frames of the stack, innermost last
MESSAGE: Final = "the event loop was held up"


class _Turns(selectors.EpollSelector):
    """The loop's selector; notes when the loop's turns begin and end, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0  # odd while the loop works, even while it waits
        self.began_cpu = 0.0
        self.longest: tuple[int, float] = (0, 0.0)  # of the turns since the thread looked: CPU

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.turn % 2:
            used = time.thread_time() - self.began_cpu
            if used > self.longest[1]:
                self.longest = (self.turn, used)
            self.turn += 1
        try:
            return super().select(timeout)
        finally:
            self.began_cpu = time.thread_time()
            self.turn += 1


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop whose turns can be watched."""

    def __init__(self) -> None:
        self.turns = _Turns()
        super().__init__(self.turns)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a daemon's main function, like ``asyncio.run``, on a loop that can be watched."""
    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        return runner.run(main)


@dataclass(frozen=True, slots=True)
class Stall:
    """One turn of the loop that took too long."""

    cpu: float  # seconds the loop's thread computed
    blocked: float  # seconds it was seen asleep in some call
    stack: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return max(self.cpu, self.blocked)

    def facts(self, more: int) -> Mapping[str, object]:
        """Return what the log line says beside its message."""
        return {
            "cpu": round(self.cpu, 3),
            "blocked": round(self.blocked, 3),
            "stack": " < ".join(reversed(self.stack)),
            "others": more,
        }


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch the running loop for as long as the block runs; only a WatchedLoop can be."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, WatchedLoop):
        yield
        return
    loop.turns.began_cpu = time.thread_time()  # what this turn did before is not looked at
    watch = Watch(loop.turns, threading.get_ident(), threading.get_native_id())
    thread = threading.Thread(target=watch.run, name="stalls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.end()
        thread.join()


class Watch:
    """The thread that looks."""

    def __init__(self, turns: _Turns, ident: int, native: int) -> None:
        self._turns = turns
        self._ident = ident
        self._clock = time.pthread_getcpuclockid(ident)
        self._native = str(native)
        self._ended = threading.Event()
        self._turn = 0  # the one looked at last, if it was at work
        self._looked = 0.0
        self._blocked = 0.0
        self._stack: tuple[str, ...] = ()
        self._told_turn = 0  # of which was told before its end
        self._told = -TELL_AGAIN
        self._worst: Stall | None = None
        self._others = 0

    def end(self) -> None:
        """Let the thread end."""
        self._ended.set()

    def run(self) -> None:
        """Look until told to end."""
        while not self._ended.wait(LOOK):
            self.look(time.monotonic())
        self.look(time.monotonic(), last=True)

    def look(self, now: float, *, last: bool = False) -> None:
        """Look once."""
        turns = self._turns
        turn, began_cpu = turns.turn, turns.began_cpu
        (ended, used), turns.longest = turns.longest, (0, 0.0)
        blocked = self._blocked if self._turn and turn != self._turn else 0.0
        if used > LIMIT or blocked > LIMIT:
            known = ended == self._turn or used <= LIMIT
            self._note(Stall(used, blocked, self._stack if known else ()))
        if turn % 2:
            self._look_at(turn, began_cpu, now)
        else:
            self._turn, self._blocked = 0, 0.0
        self._looked = now
        if self._worst is not None and (last or now - self._told >= TELL_AGAIN):
            log.warning(MESSAGE, extra=self._worst.facts(self._others))
            self._told, self._worst, self._others = now, None, 0

    def _look_at(self, turn: int, began_cpu: float, now: float) -> None:
        """Look at a turn under way."""
        stack, asleep = self._where(), self._asleep()
        if self._turns.turn != turn:
            return  # what was seen may be the next one's
        if turn != self._turn:
            self._turn, self._blocked = turn, 0.0
        elif asleep:
            # What we slept through ourselves (a frozen process, no processor) is nobody's call.
            self._blocked += min(now - self._looked, 2 * LOOK)
        self._stack = stack
        cpu = time.clock_gettime(self._clock) - began_cpu
        if max(cpu, self._blocked) > STUCK and self._told_turn != turn:
            self._told_turn = turn
            self._note(Stall(cpu, self._blocked, stack))

    def _asleep(self) -> bool:
        """Say whether the loop's thread sleeps in a call of its own.

        Not so where another thread of ours is at work, or would be if it got a processor: then
        it may merely wait for the interpreter's lock.
        """
        if _state(self._native) not in "SD":
            return False
        own = str(threading.get_native_id())
        try:
            with os.scandir("/proc/self/task") as entries:
                others = {entry.name for entry in entries} - {own, self._native}
        except OSError:
            return False
        return all(_state(other) != "R" for other in others)

    def _where(self) -> tuple[str, ...]:
        """Return what the loop's thread is doing, innermost last."""
        frame: FrameType | None = sys._current_frames().get(self._ident)  # noqa: SLF001 - the only way to see another thread
        found: list[str] = []
        while frame is not None and len(found) < DEPTH:
            code = frame.f_code
            found.append(f"{code.co_qualname} ({_short(code.co_filename)}:{frame.f_lineno})")
            frame = frame.f_back
        return tuple(reversed(found))

    def _note(self, stall: Stall) -> None:
        if self._worst is None:
            self._worst = stall
            return
        self._others += 1
        if stall.seconds > self._worst.seconds:
            self._worst = stall


def _state(thread: str) -> str:
    """Return what a thread of ours does, as a letter of proc(5); "X" when it has gone."""
    try:
        fd = os.open(f"/proc/self/task/{thread}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "X"
    try:
        return os.read(fd, 512).rpartition(b") ")[2][:1].decode()
    except OSError:
        return "X"
    finally:
        os.close(fd)


def _short(path: str) -> str:
    return "/".join(path.rsplit("/", 2)[1:])
