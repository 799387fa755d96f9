"""Lines of many tasks in the order of their times, as they come.

Used by api/logs.py. Each source is read by its own task into a short queue, so a
slow reader slows the agents down instead of filling memory. Without following, a
line goes out when every source has shown its next one: the order is exact. While
following, most sources are silent, so a line waits PATIENCE for an earlier one and
then goes out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from specs.api import StackLogLine
    from specs.kit.clock import Clock

PATIENCE = 0.1
QUEUE = 256  # lines of one source held at most


@dataclass(eq=False)
class MergeSource:
    """One task's lines, read ahead a little. ``waiting`` holds (arrival, line)."""

    waiting: deque[tuple[float, StackLogLine]] = field(default_factory=deque)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False


class LogMerge:
    """Add sources at any time; iterate ``lines()`` once. Readers run in ``group``."""

    def __init__(self, group: asyncio.TaskGroup, clock: Clock, *, follow: bool) -> None:
        self._group = group
        self._clock = clock
        self._follow = follow
        self._sources: set[MergeSource] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        self.growing = follow  # whether more sources may come; cleared by finish()

    def add(self, lines: AsyncGenerator[StackLogLine, None], *, name: str) -> None:
        source = MergeSource()
        self._sources.add(source)
        task = self._group.create_task(self._read(source, lines), name=f"logs-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def finish(self) -> None:
        """Say that no source will be added any more."""
        self.growing = False
        self._stirred.set()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def lines(self) -> AsyncGenerator[StackLogLine, None]:
        """Yield until every source has ended and none can come."""
        while True:
            self._stirred.clear()
            self._sources = {s for s in self._sources if s.waiting or not s.ended}
            heads = [s for s in self._sources if s.waiting]
            if not heads:
                if not self._sources and not self.growing:
                    return
                await self._stirred.wait()
                continue
            due = self._due(heads)
            if due > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due):
                        await self._stirred.wait()
                continue
            # Ties keep the order of arrival, so that one task's lines never swap.
            first = min(heads, key=lambda s: (s.waiting[0][1].time, s.waiting[0][0]))
            _, line = first.waiting.popleft()
            first.room.set()
            yield line

    def _due(self, heads: list[MergeSource]) -> float:
        """Return the seconds until a line may go out although some source is silent."""
        if len(heads) == len(self._sources):
            return 0.0
        if not self._follow:
            return 3600.0  # until stirred: every source ends or shows a line
        oldest = min(s.waiting[0][0] for s in heads)
        return oldest + PATIENCE - self._clock.monotonic()

    async def _read(self, source: MergeSource, lines: AsyncGenerator[StackLogLine, None]) -> None:
        try:
            # Closed at once when the reader goes: behind it is a connection to an agent.
            async with contextlib.aclosing(lines):
                async for line in lines:
                    while len(source.waiting) >= QUEUE:
                        source.room.clear()
                        await source.room.wait()
                    source.waiting.append((self._clock.monotonic(), line))
                    self._stirred.set()
        finally:
            source.ended = True
            self._stirred.set()
