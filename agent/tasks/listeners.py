"""Who listens to a task's first process, and who wants to hear how it goes.

``agent/attaching.py`` comes with a connection, the runner asks before it lets a command go that is
to be heard from its first byte on. Nothing here is kept: after a restart they come anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.tasks.record import Record


class Following:
    """One task, as somebody follows it: the newest record, and when it changed."""

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.changed = asyncio.Event()


class Listeners:
    """Listeners of this agent, by task."""

    def __init__(self) -> None:
        self._watches: dict[str, list[Following]] = {}
        self._present: dict[str, asyncio.Event] = {}

    def changed(self, record: Record) -> None:
        """Tell those who follow the task; also the last word of one that is erased then."""
        for watch in self._watches.get(record.id, ()):
            watch.record = record
            watch.changed.set()

    @contextlib.contextmanager
    def watch(self, task: str, record: Record | None) -> Iterator[Following]:
        """Follow a task from this record on."""
        found = Following(record)
        self._watches.setdefault(task, []).append(found)
        try:
            yield found
        finally:
            self._watches[task].remove(found)
            if not self._watches[task]:
                del self._watches[task]

    def arrived(self, task: str) -> asyncio.Event:
        """Return what is set once somebody listens to the task's process."""
        return self._present.setdefault(task, asyncio.Event())

    def forget(self, task: str) -> None:
        """Nobody has to listen to the task any more before it begins."""
        self._present.pop(task, None)
