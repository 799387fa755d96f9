"""The embedded default: one SQLite file behind the store's interface.

The loop hands whole transactions to one writer thread (store/writer.py) and gets
finished results back; SQLite is never touched from the loop. Watches read the
in-memory change log, which is appended before a writer is told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from orchestrator.store.base import StoreUnavailable
from orchestrator.store.limits import check
from orchestrator.store.log import KEEP_BATCHES, ChangeLog
from orchestrator.store.statefile import StateFile, Transaction
from orchestrator.store.writer import Call, Write, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.store.base import Batch, Compare, Delete, Put, Result, Snapshot, Stored

T = TypeVar("T")


class SqliteStore:
    """Make with ``await SqliteStore.open(path)``."""

    def __init__(self, path: Path, *, keep: int = KEEP_BATCHES) -> None:
        self._log = ChangeLog(0, batches=keep)
        self._writer = Writer(path, self._log)
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, keep: int = KEEP_BATCHES) -> SqliteStore:
        """Open or make the state file. Raises Damaged, StoreUnavailable."""
        store = cls(path, keep=keep)
        try:
            await store._call(lambda file: file.revision)
        except BaseException:
            await store.close()
            raise
        return store

    async def get(self, key: str) -> Stored | None:
        return await self._call(lambda file: file.get(key))

    async def list(self, prefix: str) -> Snapshot:
        return await self._call(lambda file: file.list(prefix))

    async def txn(
        self, compares: tuple[Compare, ...] = (), writes: tuple[Put | Delete, ...] = ()
    ) -> Result:
        check(compares, writes)
        self._check_open()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._writer.put(Write(Transaction(compares, writes), future))
        return await future

    def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        return self._log.watch(prefix, after)

    def compact(self) -> None:
        """Forget the change log, as time would."""
        self._log.compact()

    async def backup(self, target: Path) -> None:
        """Write a consistent copy to ``target``, which must not exist."""
        await self._call(lambda file: file.backup(target))

    async def fold(self) -> None:
        """Take what was overwritten off the disk, where the change log of the file has it yet."""
        await self._call(StateFile.fold)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._writer.stop()
            self._log.close()

    async def _call(self, function: Callable[[StateFile], T]) -> T:
        self._check_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.put(Call(function, future))
        return await future

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
