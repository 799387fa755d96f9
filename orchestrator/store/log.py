"""The change log of an engine that lives in this process, and the watches that read it.

Kept in memory and bounded: watchers are parts of the controller, so they end
with the log. A watcher holds only its position; one that falls behind what is
kept gets Compacted and lists again, so a stuck reader costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from orchestrator.store.base import Batch, Change, Compacted, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEEP_BATCHES = 4096
KEEP_BYTES = 8 * 1024 * 1024


class ChangeLog:
    """Batches after revision ``compacted``, oldest first. Used from the event loop only."""

    def __init__(
        self, revision: int, *, batches: int = KEEP_BATCHES, size: int = KEEP_BYTES
    ) -> None:
        self._keep_batches = batches
        self._keep_bytes = size
        self._closed = False
        self._grown = asyncio.Event()
        self.restart(revision)

    def restart(self, revision: int) -> None:
        """Forget everything: watches from before ``revision`` must list again."""
        self.compacted = revision
        self.revision = revision
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._wake()

    def append(self, changes: tuple[Change, ...]) -> None:
        """Add the changes of one committed transaction; all carry the same version."""
        batch = Batch(changes[0].version, changes)
        self._batches.append(batch)
        self.revision = batch.revision
        self._bytes += _size(batch)
        while len(self._batches) > self._keep_batches or self._bytes > self._keep_bytes:
            oldest = self._batches.popleft()
            self._bytes -= _size(oldest)
            self.compacted = oldest.revision
        self._wake()

    def compact(self) -> None:
        """Drop what is kept; only watches that are up to date go on."""
        self.restart(self.revision)

    def close(self) -> None:
        """End every watch with StoreUnavailable."""
        self._closed = True
        self._wake()

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        """Yield batches after revision ``after``, cut down to ``prefix``, in order, once."""
        position = after
        while True:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if not self.compacted <= position <= self.revision:
                raise Compacted(
                    f"revision {position} is not kept any more"
                    f" ({self.compacted} to {self.revision} are): list again"
                )
            if position == self.revision:
                await self._grown.wait()
                continue
            # Revisions are consecutive, so a batch's place follows from its number.
            batch = self._batches[position - self.compacted]
            position = batch.revision
            changes = tuple(c for c in batch.changes if c.key.startswith(prefix))
            if changes:
                yield Batch(batch.revision, changes)

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


def _size(batch: Batch) -> int:
    return sum(len(c.key) + len(c.value or b"") for c in batch.changes)
