"""The thread that owns the state file: takes transactions in order, commits them in groups.

store/sqlite.py puts work in and gets called back on the loop. Transactions that
arrive while the disk is busy share the next fsync; each is still all or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.store.base import StoreError
from orchestrator.store.statefile import DiskFailed, StateFile, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.store.base import Result
    from orchestrator.store.log import ChangeLog

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP = 256  # transactions committed together at most


@dataclass(frozen=True, slots=True)
class Write:
    transaction: Transaction
    future: asyncio.Future[Result]


@dataclass(frozen=True, slots=True)
class Call:
    function: Callable[[StateFile], Any]
    future: asyncio.Future[Any]


class Writer:
    """One thread, one file. ``put`` from the loop; results arrive there as well."""

    def __init__(self, path: Path, changes: ChangeLog) -> None:
        self._path = path
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Write | Call | None] = queue.SimpleQueue()
        self._file: StateFile | None = None
        # A daemon thread: SQLite survives being cut off anywhere, an exit that hangs helps nobody.
        self._thread = threading.Thread(target=self._run, name="corral-store", daemon=True)
        self._thread.start()

    def put(self, item: Write | Call) -> None:
        self._queue.put(item)

    async def stop(self) -> None:
        """Finish what was put in, fold the log into the file, end the thread."""
        self._queue.put(None)
        # Joined off the loop: the thread's last results come back through the loop.
        await self._loop.run_in_executor(None, self._thread.join)

    # The thread's side.

    def _run(self) -> None:
        item: Write | Call | None
        following: list[Write | Call | None] = []
        while True:
            item = following.pop() if following else self._queue.get()
            if item is None:
                break
            if isinstance(item, Call):
                self._answer(item)
            else:
                group = [item]
                following = self._gather(group)
                self._commit(group)
        if self._file is not None:
            with contextlib.suppress(StoreError):
                self._file.close()

    def _gather(self, group: list[Write]) -> list[Write | Call | None]:
        """Add what already waits to the group; return the first item that does not belong."""
        while len(group) < GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return []
            if not isinstance(item, Write):
                return [item]  # a read sees the writes before it, the end comes after them
            group.append(item)
        return []

    def _answer(self, call: Call) -> None:
        try:
            value = call.function(self._opened())
        except Exception as exc:  # noqa: BLE001 - handed to whoever asked, not swallowed
            self._drop_failed(exc)
            self._tell(_fail, call.future, exc)
        else:
            self._tell(_settle, call.future, value)

    def _commit(self, group: list[Write]) -> None:
        try:
            outcomes = self._opened().commit([write.transaction for write in group])
        except Exception as exc:  # noqa: BLE001 - handed to whoever asked, not swallowed
            self._drop_failed(exc)
            if len(group) > 1 and not isinstance(exc, DiskFailed):
                # One that is too big for what is left of the disk must not refuse the others.
                # (After a failed disk nobody knows what was written: not tried a second time.)
                for write in group:
                    self._commit([write])
                return
            for write in group:
                self._tell(_fail, write.future, exc)
        else:
            self._tell(
                self._committed,
                [outcome.changes for outcome in outcomes if outcome.changes],
                [(write.future, out.result) for write, out in zip(group, outcomes, strict=True)],
            )

    def _opened(self) -> StateFile:
        if self._file is None:
            self._file = StateFile(self._path)
            self._tell(self._reopened, self._file.revision)
        return self._file

    def _drop_failed(self, exc: Exception) -> None:
        """Let go of a file whose disk failed: only a fresh, verified open knows what is in it."""
        if isinstance(exc, DiskFailed) and self._file is not None:
            log.warning("%s; opening the file afresh", exc)
            self._file.abandon()
            self._file = None

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        # The loop may be gone when a process is torn down around us; then nobody waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    # The loop's side.

    def _committed(
        self,
        changes: Sequence[tuple[Any, ...]],
        results: Sequence[tuple[asyncio.Future[Result], Result]],
    ) -> None:
        # STRICTLY BEFORE the writers are told: who reads its own write finds it in the log.
        for each in changes:
            self._changes.append(each)
        for future, result in results:
            _settle(future, result)

    def _reopened(self, revision: int) -> None:
        # A commit whose outcome nobody knew may have happened after all: list again.
        if revision != self._changes.revision:
            self._changes.restart(revision)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():  # cancelled by who asked; the write stands
        future.set_result(value)


def _fail(future: asyncio.Future[Any], exc: Exception) -> None:
    if not future.done():
        future.set_exception(exc)
