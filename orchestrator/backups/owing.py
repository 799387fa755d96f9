"""Data that was on a lost machine, said in the state that takes its place: it is waited for.

The machine a backup is restored on is the lost one's node by id, name and pins, but has none of its
data and runs none of its containers. So both are given to a node that left, and this one says that
it replaces that node (``Node.replaces``): what ran there is replaced by the rules for any lost
node, and nothing begins on an empty volume or folder until somebody brings the data back, or says
that it is lost.
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
from specs.oneoff import OneOff
from specs.task import Task

AT_ONCE = 60  # records of a transaction; nobody reads the copy before all are written

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store.base import Store


def owe(folder: Path, node: str, kept: Path) -> tuple[str, ...]:
    """Give what ``node`` ran, and had where this machine has not, to a node that left.

    Return what of it is waited for, by name. ``folder``: the taken apart backup, changed in place;
    ``kept``: where this machine's named volumes are. Raises BadBackup, OSError.
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
    if found is None:
        return ()
    record = Node.model_validate_json(found.value).replacing(former)
    writes = [Put(found.key, record.encode()), *owed.values()]
    for entry in (await store.list(keys.TASKS)).entries:
        task = Task.model_validate_json(entry.value)
        if task.node == node:
            writes.append(Put(entry.key, task.left_with(former).encode()))
    for entry in (await store.list(keys.ONEOFFS)).entries:
        one = OneOff.model_validate_json(entry.value)
        if one.task.node == node:
            writes.append(Put(entry.key, one.with_task(one.task.left_with(former)).encode()))
    for at in range(0, len(writes), AT_ONCE):
        await store.txn((), tuple(writes[at : at + AT_ONCE]))
    return tuple(sorted(owed))
