"""The restore test: a backup is taken apart in a folder of its own, and looked at. Changes nothing.

Every digest is checked, the store is opened as a controller would, and `state check` goes through
its records with the key that is beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.backups import contents, envelope
from orchestrator.backups.envelope import BadBackup, Head
from orchestrator.control import checking
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.errors import RequestError
from orchestrator.keys import identity, vault
from orchestrator.keys.sealing import SealedStore
from orchestrator.store import keys
from orchestrator.store.base import StoreError
from orchestrator.store.sqlite import SqliteStore
from specs.kit.clock import SystemClock
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.backups.contents import Settings
    from specs.api import StateCheck


APART = ".restore-"  # of folders in which one is taken apart
TRIES = 8


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup that opens. ``check`` may hold errors; counts are of records, for people."""

    head: Head
    settings: Settings
    check: StateCheck
    stacks: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()  # those with their data on the controller's own machine


@contextlib.contextmanager
def opened(
    path: Path, passphrase: Callable[[], str], where: Path
) -> Iterator[tuple[Path, Verified]]:
    """Yield a closed folder in ``where`` with the pieces, all checked; it is gone afterwards.

    Unless it was renamed. What a killed one left in ``where`` goes first. Raises BadBackup with the
    reason.
    """
    try:
        sweep(where)
        with _apart(where) as folder:
            head = envelope.read(path, passphrase, folder)
            yield folder, _looked_at(folder, head, path)
    except OSError as exc:
        raise BadBackup(f"{exc.filename or path}: {in_words(exc)}") from exc


@contextlib.contextmanager
def _apart(where: Path) -> Iterator[Path]:
    """Make a folder that is held as long as the block lasts, and goes with it."""
    for _ in range(TRIES):
        made = tempfile.TemporaryDirectory(prefix=APART, dir=where, ignore_cleanup_errors=True)
        with made as name, _held(Path(name)) as held:
            if held:
                yield Path(name)
                return
    raise BadBackup(f"no folder can be made in {where}: others remove it at once")


def sweep(where: Path) -> None:
    """Take away what killed ones of ours left there: it has keys in it. Held ones are at work."""
    for left in where.glob(f"{APART}*"):
        with contextlib.suppress(OSError), _held(left) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder; False where another process does, it is not ours, or has gone meanwhile."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        found = os.fstat(fd)
        yield found.st_uid == os.geteuid() and found.st_nlink > 0
    finally:
        os.close(fd)


def verify(path: Path, passphrase: Callable[[], str]) -> Verified:
    """Return what a backup holds. Raises BadBackup."""
    with opened(path, passphrase, Path(tempfile.gettempdir())) as (_, found):
        return found


def _looked_at(folder: Path, head: Head, path: Path) -> Verified:
    for name in contents.NEEDED:
        if not (folder / name).exists():
            raise BadBackup(f"{path} has no {name} in it: it is no whole backup")
    for piece in folder.iterdir():
        if piece.name not in contents.KNOWN:
            raise BadBackup(f"{path} has {piece.name} in it, which this version does not know")
    try:
        settings = contents.read_settings(folder)
        # The newest schema is known by opening it, in this copy.
        return asyncio.run(_read(folder, head, settings, path))
    except (StoreError, RequestError, vault.Broken) as exc:
        hint = exc.hint if isinstance(exc, RequestError) else ""
        said = str(exc).replace(f"{folder}/", f"{path}: ")
        raise BadBackup(f"{path} does not open as a state: {said}", hint=hint) from exc
    except (ValueError, TypeError) as exc:
        raise BadBackup(f"{path} is damaged: its settings cannot be read ({exc})") from exc


async def _read(folder: Path, head: Head, settings: Settings, path: Path) -> Verified:
    sealer = vault.load(folder / contents.KEY, fresh=False)
    engine = await SqliteStore.open(folder / contents.STATE)
    try:
        store, clock = SealedStore(engine, sealer), SystemClock()
        entry = await store.get(keys.CLUSTER)
        record = identity.decode(entry.value) if entry is not None else identity.ClusterRecord()
        if record.id != head.cluster:
            raise BadBackup(f"{path} says cluster {head.cluster}, and holds {record.id or 'none'}")
        check = checking.check(await store.list("/"), sealer, wall=clock.wall())
        if check.errors:
            return Verified(head, settings, check)
        cluster = await Cluster.open(store, clock)
        if (
            any(node.address for node in cluster.nodes.values())
            and not (folder / contents.SSH_KEY).exists()
        ):
            raise BadBackup(f"{path} has nodes and no ssh_key to reach them with")
        home = [
            v.name for v in cluster.volumes.values() if settings.node and v.node == settings.node
        ]
        return Verified(
            head,
            settings,
            check,
            stacks=tuple(sorted(cluster.stacks)),
            nodes=tuple(sorted(node.name for node in cluster.nodes.values())),
            volumes=tuple(sorted(home)),
        )
    finally:
        await engine.close()
