"""The store: versioned keys, compare-and-swap transactions, prefix lists, watches.

The shape is etcd's. SQLite is the embedded default, memory serves tests and
``--ephemeral``, etcd comes for several controllers; all pass one conformance
suite (tests/orchestrator/store) and enforce the same limits.

Revisions are one counter for the whole store; every committed transaction that
changes something raises it by one. Deleting is a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_OPERATIONS = 128  # in one transaction, compares not counted
MAX_VALUE = 1024 * 1024  # bytes
MAX_TRANSACTION = 1536 * 1024  # bytes of keys and values


class StoreError(Exception):
    """Root of what a store raises."""


class TooLarge(StoreError):
    """The transaction breaks a limit; nothing was written. Ours to fix, not to retry."""


class Compacted(StoreError):
    """The watch's revision is no longer kept: list again and watch from there."""


class StoreUnavailable(StoreError):
    """The store cannot answer now (disk full, closed, no quorum). Retry later."""


class Damaged(StoreError):
    """The state file is not what we wrote. Never repaired or emptied silently."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A key's present value. ``version`` is the revision of its last change."""

    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The entries under a prefix, in key order, as of ``revision``."""

    revision: int
    entries: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds when the key's version equals ``version``; 0 = the key must not exist."""

    key: str
    version: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Result:
    """``ok`` False = a compare did not hold (``failed`` names it) and nothing was written."""

    ok: bool
    revision: int
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One key's change in a watch; ``value`` None = deleted."""

    key: str
    value: bytes | None
    version: int


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes of one transaction under the watched prefix."""

    revision: int
    changes: tuple[Change, ...] = field(default=())


class Store(Protocol):
    """What the controller keeps its state in. All keys start with ``/``."""

    async def get(self, key: str) -> Stored | None:
        """Return the entry, or None."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """Return all entries whose key starts with ``prefix``."""
        ...

    async def txn(
        self, compares: tuple[Compare, ...] = (), writes: tuple[Put | Delete, ...] = ()
    ) -> Result:
        """Write everything if every compare holds; durable when this returns.

        Raises TooLarge, StoreUnavailable.
        """
        ...

    def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        """Yield every change under ``prefix`` after revision ``after``, in order, once.

        Raises Compacted when those revisions are gone.
        """
        ...

    async def close(self) -> None:
        """Finish writes under way and let go of the files."""
        ...
