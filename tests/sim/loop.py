"""The one event loop of a simulated cluster: virtual time, and processes that can be killed.

Time stands still while anything is ready to run, and jumps to the next timer when nothing is.
There are no sockets and no threads: what product code gives to a thread runs here, at once or as
late as the disk of its machine is slow. So the order of everything follows from the seed.

Whoever runs belongs to a :class:`Process` (by context, which tasks and callbacks inherit). Killing
one takes effect at that instant: its code may unwind, but no effect of it happens any more, since
every part of the simulated world asks :func:`alive` first.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
from asyncio import taskgroups
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPIN = 200_000  # turns of the loop without time moving: somebody runs in circles
MANY = 100  # timers, beyond which those that were cancelled are thrown away
_UNSET = object()


class Killed(BaseException):
    """What code of a killed process gets instead of an effect."""


class Spinning(Exception):
    """The loop turned and turned, and no time passed."""


class Process:
    """A controller, an agent or a user. ``host`` is the machine it is on, where it is on one."""

    def __init__(self, name: str, host: Any = None) -> None:
        self.name = name
        self.host = host
        self.dead = False
        self.root: asyncio.Task[Any] | None = None

    def begin(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine as this process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        loop = asyncio.get_running_loop()
        return loop.create_task(work, name=self.name, context=context)

    def kill(self) -> None:
        """End it as by SIGKILL."""
        self.dead = True
        if self.root is not None:
            self.root.cancel()


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def alive() -> None:
    """Raise Killed where the process that runs is dead."""
    process = PROCESS.get()
    if process is not None and process.dead:
        raise Killed


class OrderedSet(dict):  # type: ignore[type-arg]
    """A set that iterates in the order of insertion, not by addresses that differ in each run."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__(dict.fromkeys(items))

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class _Jump(selectors.BaseSelector):
    """A selector without sockets: waiting is moving the time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        raise AssertionError("the simulation has no sockets")

    def unregister(self, fileobj: Any) -> Any:
        raise AssertionError("the simulation has no sockets")

    def get_map(self) -> Any:
        return {}

    def select(self, timeout: float | None = None) -> list[Any]:
        self._loop.advance(timeout)
        return []


class _Soon(asyncio.Handle):
    """A callback, made without asking whether the loop is being debugged."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any = None) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None


class _Later(asyncio.TimerHandle):
    """The same at a time."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Any, args: Any, loop: Any, context: Any = None
    ) -> None:
        _Soon.__init__(self, callback, args, loop, context)  # type: ignore[arg-type] - the same slots
        self._when = when
        self._scheduled = False

    def __lt__(self, other: Any) -> bool:
        found: bool = self._when < other._when
        return found

    def cancel(self) -> None:
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)
            self._cancelled = True
            self._callback = self._args = None


class SimLoop(asyncio.BaseEventLoop):
    """Virtual seconds; ``slow`` says how long a thread's work takes for a process.

    It does in the same order what asyncio's loop does, without what is for sockets, threads and
    debugging: a tenth of what a seed cost.
    """

    def __init__(self, slow: Callable[[Process | None], float] = lambda _: 0.0) -> None:
        super().__init__()
        self._now = 0.0
        self._turns = 0
        self._selector = _Jump(self)
        self._clock_resolution = 1e-9
        self._slow = slow
        self.set_exception_handler(lambda _loop, context: self.strange(context))
        self.strange: Callable[[dict[str, Any]], None] = lambda _: None
        self._saved_set: Any = _UNSET

    def time(self) -> float:
        return self._now

    def advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise Spinning("nothing is ready and nothing will ever be")
        if timeout > 0:
            self._now += timeout
            self._turns = 0
        else:
            self._turns += 1
            if self._turns > SPIN:
                raise Spinning(f"{SPIN} turns at {self._now:.3f} s")

    # The loop.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> _Soon:
        handle = _Soon(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> _Later:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> _Later:
        timer = _Later(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def _run_once(self) -> None:
        """Run what is ready, or move the time to what is due next."""
        ready, scheduled = self._ready, self._scheduled
        if len(scheduled) > MANY and self._timer_cancelled_count / len(scheduled) > 0.5:
            self._scheduled = scheduled = [one for one in scheduled if not one._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if ready or self._stopping:
            self.advance(0)
        elif scheduled:
            self.advance(max(0.0, scheduled[0]._when - self._now))
        else:
            self.advance(None)
        end = self._now + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                name = getattr(handle._callback, "__qualname__", "")
                self.strange({"message": f"in {name}", "exception": error})

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future: asyncio.Future[Any] = self.create_future()
        process = PROCESS.get()
        delay = self._slow(process)
        if process is None or delay <= 0:
            self._work(process, future, func, args)
        else:
            self.call_later(delay, self._work, process, future, func, args)
        return future

    def _work(self, process: Process | None, future: Any, func: Any, args: Any) -> None:
        """Do a thread's work, unless it died with its process; who waits for it may have gone."""
        if process is not None and process.dead:
            return
        try:
            result = func(*args)
        except Killed:
            return
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
            return
        if not future.done():
            future.set_result(result)


def ordered_groups() -> Iterator[None]:
    """Have task groups cancel in the order of creation, while the generator is suspended."""
    taskgroups.set = OrderedSet  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del taskgroups.set  # type: ignore[attr-defined]
