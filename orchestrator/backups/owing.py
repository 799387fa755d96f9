"""Data that was on a lost machine, said in the state that takes its place: it is waited for.

The machine a backup is restored on is the lost one's node by id, name and pins, but has none of its
data. What had its home there and is not on this disk is tied to a node that left, and this one
says that it replaces that node (``Node.replaces``): so nothing begins on an empty volume or folder,
and whoever brings the data back, or says that it is lost, lets it go on.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from orchestrator.backups import contents
from orchestrator.backups.envelope import BadBackup
from orchestrator.control.mirror.records import BoundPath, Volume
from orchestrator.keys import vault
from orchestrator.keys.sealing import SealedStore
from orchestrator.store import keys
from orchestrator.store.base import Put, StoreError
from orchestrator.store.sqlite import SqliteStore
from specs.node import Node

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store.base import Store


def owe(folder: Path, node: str, kept: Path) -> tuple[str, ...]:
    """Tie what ``node`` had and this machine has not to a node that left; return what, by name.

    ``folder``: the taken apart backup, changed in place; ``kept``: where this machine's named
    volumes are. Raises BadBackup, OSError.
    """
    try:
        return asyncio.run(_owe(folder, node, kept)) if node else ()
    except (StoreError, vault.Broken) as exc:
        raise BadBackup(f"the backup's records cannot be written: {exc}") from exc


async def _owe(folder: Path, node: str, kept: Path) -> tuple[str, ...]:
    engine = await SqliteStore.open(folder / contents.STATE)
    try:
        sealer = vault.load(folder / contents.KEY, fresh=False)
        return await _tied(SealedStore(engine, sealer), node, kept)
    finally:
        await engine.close()


async def _tied(store: Store, node: str, kept: Path) -> tuple[str, ...]:
    former = f"{node}-{os.urandom(4).hex()}"
    owed: dict[str, Put] = {}
    for entry in (await store.list(keys.VOLUMES)).entries:
        volume = Volume.model_validate_json(entry.value)
        own = not volume.everywhere and not volume.options
        if volume.node == node and own and not (kept / volume.name).exists():
            moved = volume.at_home(former, volume.home)
            owed[f"volume {volume.name}"] = Put(entry.key, moved.encode())
    for entry in (await store.list(keys.BOUND_PATHS)).entries:
        bound = BoundPath.model_validate_json(entry.value)
        if bound.node == node and not os.path.lexists(bound.path):
            put = Put(entry.key, bound.at_home(former).encode())
            owed[f"path {bound.path} of {bound.stack}"] = put
    found = await store.get(keys.node(node))
    if not owed or found is None:
        return ()
    record = Node.model_validate_json(found.value).replacing(former)
    await store.txn((), (Put(found.key, record.encode()), *owed.values()))
    return tuple(sorted(owed))
