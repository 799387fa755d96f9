"""The store in memory: the reference the other engines are checked against.

Serves tests and ``--ephemeral``; nothing outlives the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.store.base import (
    Change,
    Compare,
    Delete,
    Put,
    Result,
    Snapshot,
    Stored,
    StoreUnavailable,
)
from orchestrator.store.limits import check
from orchestrator.store.log import KEEP_BATCHES, ChangeLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.store.base import Batch


class MemoryStore:
    """A dictionary with revisions. Nothing here awaits, so every call is atomic."""

    def __init__(self, *, keep: int = KEEP_BATCHES) -> None:
        self._entries: dict[str, Stored] = {}
        self._log = ChangeLog(0, batches=keep)
        self._closed = False

    async def get(self, key: str) -> Stored | None:
        self._check_open()
        return self._entries.get(key)

    async def list(self, prefix: str) -> Snapshot:
        self._check_open()
        found = sorted((e for e in self._entries.values() if e.key.startswith(prefix)), key=_key)
        return Snapshot(self._log.revision, tuple(found))

    async def txn(
        self, compares: tuple[Compare, ...] = (), writes: tuple[Put | Delete, ...] = ()
    ) -> Result:
        check(compares, writes)
        self._check_open()
        for compare in compares:
            entry = self._entries.get(compare.key)
            if (entry.version if entry else 0) != compare.version:
                return Result(ok=False, revision=self._log.revision, failed=compare.key)
        revision = self._log.revision + 1
        changes = []
        for write in writes:
            if isinstance(write, Put):
                self._entries[write.key] = Stored(write.key, write.value, revision)
                changes.append(Change(write.key, write.value, revision))
            elif self._entries.pop(write.key, None) is not None:
                changes.append(Change(write.key, None, revision))
        if changes:
            self._log.append(tuple(changes))
        return Result(ok=True, revision=self._log.revision)

    def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        return self._log.watch(prefix, after)

    def compact(self) -> None:
        """Forget the change log, as time would."""
        self._log.compact()

    async def close(self) -> None:
        self._closed = True
        self._log.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


def _key(entry: Stored) -> str:
    return entry.key
