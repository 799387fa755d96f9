"""Write one task's records in order, beside the event loop where a disk may keep us waiting.

A record of this boot goes to a tmpfs at once. One that a reboot must not undo goes to a disk, and
a busy disk takes a tenth of a second for what it does in a millisecond else: a thread waits for
it. The law is the journal's all the same: what was decided is told, and acted upon, only after it
is written. So others see the record *before* (:attr:`RecordFile.told`) until it is, the runner
waits (:meth:`RecordFile.written`) before it goes on, and what is decided meanwhile is written
afterwards, as one.

Tasks do not wait for each other: a few threads write at once, and the file system makes one
commit of what they ask it for at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.tasks.journal import Journal
    from agent.tasks.record import Record

log = logging.getLogger(__name__)


class _Write(NamedTuple):
    record: Record
    disk: bool
    durable: bool


class RecordFile:
    """What is written of one task."""

    def __init__(self, record: Record, journal: Journal, changed: Callable[[Record], None]) -> None:
        self._journal = journal
        self._changed = changed  # told of a record once it is written
        self.newest = record
        self._safe = record  # the last one that was written, while another is
        self._next: _Write | None = None  # what is written after that one
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.owed = False  # the disk had no room for one
        self._lasting = False  # what is owed was to outlive a power cut

    @property
    def told(self) -> Record:
        """Return the newest record that others may see."""
        return self._safe if self._busy else self.newest

    def note(self, record: Record) -> None:
        """Take note of a record that differs in what no file has to say."""
        self.newest = record
        if not self._busy:
            self._changed(record)

    def put(self, record: Record, *, disk: bool, durable: bool) -> None:
        """Write a record; ``disk`` and ``durable`` as in the journal."""
        before, self.newest = self.newest, record
        if self._busy:
            after = self._next
            more = (after.disk, after.durable) if after else (False, False)
            self._next = _Write(record, disk or more[0], durable or more[1])
        elif disk or durable:
            self._safe, self._busy = before, True
            self._idle.clear()
            self._begin(_Write(record, disk, durable))
        else:
            with self._told(record, owes=False):
                self._journal.put(record)
            self._changed(record)

    async def written(self) -> bool:
        """Wait until everything is; say whether there was anything to wait for."""
        if self._idle.is_set():
            return False
        while not self._idle.is_set():
            await self._idle.wait()
        return True

    def _begin(self, write: _Write) -> None:
        # Who writes what is owed does it as certainly as it was to be written.
        write = write._replace(durable=write.durable or self._lasting)
        future = self._journal.put_beside(write.record, durable=write.durable, disk=write.disk)
        future.add_done_callback(partial(self._done, write))

    def _done(self, write: _Write, future: asyncio.Future[None]) -> None:
        record = write.record
        if future.cancelled():
            return  # the loop ends
        with self._told(record, owes=True):
            self._lasting = write.durable
            future.result()
            self.owed = self._lasting = False
        self._safe = record
        after, self._next = self._next, None
        if after is not None:
            self._changed(record)
            self._begin(after)
            return
        self._busy = False
        self._idle.set()
        self._changed(self.newest)

    @contextlib.contextmanager
    def _told(self, record: Record, *, owes: bool) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Full disk: what is in memory stays true, and is written when there is room.
            if not self.owed:
                said = {"task": record.id, "why": str(error)}
                log.warning("a record cannot be written", extra=said)
            self.owed = self.owed or owes
        except Exception:  # a bug: the task must not wait for it for ever
            log.exception("a record cannot be written", extra={"task": record.id})
