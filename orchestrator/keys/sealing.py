"""The store as the controller sees it: what tells of an environment is sealed on its way in.

Wraps any engine behind the store's own interface, so that nothing above knows of it: the mirror
decodes a record once and keeps it. Sealed are the stacks' specs (``parts``), one-offs, which hold
theirs, volumes, whose options may have the password of a share, events, in which a health check
may have said anything, and tasks and releases, which name a spec by its hash: who has a guess at
a password could try it there. For the same reason a part, known by its hash to all others, lies
under a keyed one: equal specs are still one part, but only with the cluster's key.

A sealed value carries the key it belongs to, so one cannot be put in another's place. What an
older version wrote in the clear is read, and sealed by ``seal_all`` when the store is opened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.keys.vault import Broken
from orchestrator.store import keys
from orchestrator.store.base import (
    Batch,
    Compare,
    Damaged,
    Delete,
    Put,
    Result,
    Snapshot,
    Stored,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from orchestrator.contracts import Sealer
    from orchestrator.store.base import Change, Store

SEALED = (keys.PARTS, keys.RELEASES, keys.TASKS, keys.ONEOFFS, keys.VOLUMES, keys.EVENTS)
_CLEAR = b"{"  # every record is a JSON object, and no sealed value begins like one
_AT_ONCE = 60  # records sealed in one transaction: two operations for a part
_BYTES = 1 << 20


class SealedStore:
    """A store whose engine never sees an environment."""

    def __init__(self, engine: Store, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer
        self._names: dict[str, str] = {}  # where a part lies -> its key
        self._clear: set[str] = set()  # parts that still lie under their own key

    async def get(self, key: str) -> Stored | None:
        entry = await self._engine.get(self._place(key))
        if entry is None and key.startswith(keys.PARTS) and (old := await self._engine.get(key)):
            entry = old  # nobody has listed it yet, so that it is in the clear was not known
        return None if entry is None else self._opened(entry)

    async def list(self, prefix: str) -> Snapshot:
        snapshot = await self._engine.list(_wider(prefix))
        opened = map(self._opened, snapshot.entries)
        found = sorted((e for e in opened if e.key.startswith(prefix)), key=_key)
        return Snapshot(snapshot.revision, tuple(found))

    async def txn(
        self, compares: tuple[Compare, ...] = (), writes: tuple[Put | Delete, ...] = ()
    ) -> Result:
        result = await self._engine.txn(
            tuple(Compare(self._place(one.key), one.version) for one in compares),
            tuple(self._written(one) for one in writes),
        )
        return replace(result, failed=self._name(result.failed)) if result.failed else result

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Batch]:
        async for batch in self._engine.watch(_wider(prefix), after):
            changes = tuple(self._changed(one) for one in batch.changes)
            changes = tuple(one for one in changes if one.key.startswith(prefix))
            if changes:
                yield Batch(batch.revision, changes)

    async def close(self) -> None:
        await self._engine.close()

    async def seal_all(self) -> int:
        """Seal what an older version left in the clear; return how many records that were.

        Raises StoreUnavailable; what is left then is read as it is, and sealed at the next start.
        """
        count = 0
        for prefix in SEALED:
            clear = [
                entry
                for entry in (await self._engine.list(prefix)).entries
                if entry.value.startswith(_CLEAR)
            ]
            for some in _chunks(clear):
                await self._seal(some)
                count += len(some)
        return count

    async def _seal(self, entries: Sequence[Stored]) -> None:
        writes: list[Put | Delete] = []
        for entry in entries:
            self._clear.discard(entry.key)
            put = self._put(Put(entry.key, entry.value))
            writes += [put] if put.key == entry.key else [put, Delete(entry.key)]
        compares = tuple(Compare(entry.key, entry.version) for entry in entries)
        result = await self._engine.txn(compares, tuple(writes))
        if not result.ok:
            raise StoreUnavailable(f"{result.failed} was changed while it was being sealed")

    # Names.

    def _place(self, key: str) -> str:
        """Return where the engine has what others know by ``key``."""
        if not key.startswith(keys.PARTS) or key in self._clear:
            return key
        place = keys.part(self._sealer.fingerprint(b"part\0" + key.encode()))
        self._names[place] = key
        return place

    def _name(self, place: str) -> str:
        return self._names.get(place, place)

    # Values.

    def _written(self, write: Put | Delete) -> Put | Delete:
        return self._put(write) if isinstance(write, Put) else Delete(self._place(write.key))

    def _put(self, write: Put) -> Put:
        if not write.key.startswith(SEALED):
            return write
        sealed = self._sealer.seal(write.key.encode() + b"\0" + write.value)
        return Put(self._place(write.key), sealed)

    def _opened(self, entry: Stored) -> Stored:
        if not entry.key.startswith(SEALED):
            return entry
        if entry.value.startswith(_CLEAR):
            if entry.key.startswith(keys.PARTS):
                self._clear.add(entry.key)
            return entry
        try:
            name, mark, value = self._sealer.open(entry.value).partition(b"\0")
        except Broken as exc:
            raise Damaged(
                f"the store's record {entry.key} cannot be read: {exc}; nothing was changed. Put"
                " back the key file that belongs to this state file"
            ) from exc
        key = name.decode(errors="replace")
        if not mark or self._place(key) != entry.key:
            raise Damaged(
                f"the store's record {entry.key} is another's ({key}); nothing was changed."
                " Restore a backup of the state file"
            )
        return Stored(key, value, entry.version)

    def _changed(self, change: Change) -> Change:
        if change.value is None:
            return replace(change, key=self._name(change.key))
        opened = self._opened(Stored(change.key, change.value, change.version))
        return replace(change, key=opened.key, value=opened.value)


def _wider(prefix: str) -> str:
    """Return a prefix of the places of all keys that have this one: of parts all or none."""
    return keys.PARTS if prefix.startswith(keys.PARTS) else prefix


def _chunks(entries: Iterable[Stored]) -> Iterable[list[Stored]]:
    chunk: list[Stored] = []
    size = 0
    for entry in entries:
        if chunk and (len(chunk) == _AT_ONCE or size + len(entry.value) > _BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry.value)
    if chunk:
        yield chunk


def _key(entry: Stored) -> str:
    return entry.key
