"""Backups of a working controller: on request, and by a schedule.

The store's own thread writes the copy between two transactions; everything else happens in a
thread beside the loop. A backup on request is streamed to who asked (api/backups.py); those
of the schedule are written on this machine, under a name beginning with a dot, synced, renamed.

The schedule lies in the store, so that a backup has it too. It needs to encrypt without anybody
there to ask: kept is not the passphrase but the key scrypt made of it, sealed by the vault. How
the last one went lies beside the state (``backups.json``), because a full store is one of the
reasons to fail. The loop is level-triggered: one is due when the newest that was made is older
than the schedule's last minute, so that any number of missed ones is caught up by one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.backups import contents, envelope, keeping
from orchestrator.errors import Invalid, RequestError, Unavailable
from orchestrator.keys.vault import Broken
from orchestrator.store import keys
from orchestrator.store.base import Compare, Delete, Put, StoreError
from specs.api import BackupStatus
from specs.kit import versions
from specs.kit.amounts import span
from specs.kit.cron import Cron
from specs.kit.disk import make_folder, sync, write_file
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached
from specs.kit.metrics import gauge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from orchestrator.config import ControllerConfig
    from orchestrator.contracts import Mirror, Sealer
    from orchestrator.keys.identity import ClusterRecord
    from orchestrator.store.base import Store
    from specs.api import BackupRow, MakeBackup, ScheduleBackups
    from specs.kit.clock import Clock
    from specs.kit.metrics import Family

log = logging.getLogger(__name__)

LOOK = 20.0  # seconds between two looks at the clock
FIRST_AGAIN = 60.0  # seconds after a failure, doubled up to
LONGEST_AGAIN = 3600.0
BUSY = 30.0  # seconds to wait for another one
SLOW = 3600.0  # seconds after which one that is due and not done yet is told
LISTING = 10.0  # seconds the folder's disk has to say what is in it
SCRATCH = ".backup-"
NOTE = "backups.json"


class SelfCopying(Protocol):
    """An engine that copies itself while it works."""

    async def backup(self, target: Path) -> None: ...


class Backups:
    """Makes backups; ``run`` follows the schedule until cancelled."""

    def __init__(
        self,
        *,
        engine: SelfCopying,
        store: Store,
        config: ControllerConfig,
        cluster: Mirror,
        identity: Callable[[], ClusterRecord],
        sealer: Sealer,
        clock: Clock,
        stale: Callable[[], str] = str,
    ) -> None:
        self._stale = stale  # why this state is not the cluster's any more, "" = it is
        self._engine = engine
        self._store = store
        self._config = config
        self._cluster = cluster
        self._identity = identity
        self._sealer = sealer
        self._clock = clock
        self._one = asyncio.Lock()  # each needs the room of the state twice
        self._changed = asyncio.Event()
        self._schedule: dict[str, Any] = {}
        self._note: dict[str, Any] = {}
        self._failures = 0
        self._again = 0.0  # when a failed one is tried again, wall
        self._listing: tuple[str, asyncio.Task[list[BackupRow]]] | None = None
        self._began: float | None = None  # when the one that is due now was begun, monotonic

    async def open(self) -> None:
        """Read what was arranged, and take away what a killed one left."""
        for left in self._config.folder.glob(f"{SCRATCH}*"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self._config.folder / NOTE).read_bytes())
            self._note = found if isinstance(found, dict) else {}
        entry = await self._store.get(keys.BACKUP)
        self._schedule = json.loads(entry.value) if entry is not None else {}

    # On request.

    @contextlib.asynccontextmanager
    async def made(self, request: MakeBackup) -> AsyncIterator[tuple[Path, str]]:
        """Make one; yield the whole file and what to call it. It is gone afterwards."""
        if request.plain and request.passphrase:
            raise Invalid(detail="a passphrase and --plain exclude each other")
        key = None if request.plain else await derived(request.passphrase)
        with self._scratch() as scratch:
            path = scratch / "out"
            async with self._alone():
                name = await self._write(path, scratch, key, scheduled=False)
                await asyncio.to_thread((scratch / contents.STATE).unlink)
            # Who asked may be as slow as he likes: the schedule does not wait for him.
            yield path, name
        self._noted(made_at=self._clock.wall())

    # By schedule.

    async def arrange(self, request: ScheduleBackups) -> BackupStatus:
        """Keep a schedule, or with an empty one make no more. Raises Invalid, Unavailable."""
        record: dict[str, Any] = {}
        if request.cron:
            record = await self._arranged(request)
        for _ in range(16):
            entry = await self._store.get(keys.BACKUP)
            compare = Compare(keys.BACKUP, entry.version if entry is not None else 0)
            data = json.dumps(record).encode()
            write = Put(keys.BACKUP, data) if record else Delete(keys.BACKUP)
            if (await self._store.txn((compare,), (write,))).ok:
                break
        else:
            raise Unavailable("the schedule changes all the time; try again")
        self._schedule, self._failures, self._again = record, 0, 0.0
        self._noted(failure="")
        self._changed.set()
        return await self.status()

    async def _arranged(self, request: ScheduleBackups) -> dict[str, Any]:
        try:
            Cron.parse(request.cron)
        except ValueError as exc:
            raise Invalid(detail=str(exc), hint="corral backup --schedule '0 3 * * *' ...") from exc
        folder = Path(request.to)
        if not request.to or not folder.is_absolute():
            raise Invalid(
                detail="a schedule needs an absolute folder on the controller's machine",
                hint="--to DIR: another disk, or what another machine lends this one",
            )
        if await asyncio.to_thread(_within, folder, self._config.folder):
            raise Invalid(
                detail=f"{folder} is in the controller's own folder, which is what gets lost",
                hint="--to DIR: another disk, or what another machine lends this one",
            )
        if not 1 <= request.keep <= keeping.MOST // 2:
            raise Invalid(detail=f"--keep {request.keep} is not from 1 to {keeping.MOST // 2}")
        if request.plain and request.passphrase:
            raise Invalid(detail="a passphrase and --plain exclude each other")
        key = None if request.plain else await derived(request.passphrase)
        try:
            mount = await asyncio.to_thread(_usable, folder)
        except OSError as exc:
            raise Unavailable(
                f"{folder} cannot be written: {in_words(exc)}", hint="--to another folder"
            ) from exc
        return {
            "cron": request.cron,
            "to": request.to,
            "mount": mount,
            "keep": request.keep,
            "set_at": self._clock.wall(),
            "key": None if key is None else self._sealed(key),
        }

    async def run(self) -> None:
        """Make what is due, until cancelled."""
        while True:
            self._changed.clear()
            await self.step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()

    async def step(self) -> bool:
        """Make one if it is due; return whether one was made. Raises nothing but bugs."""
        now, schedule = self._clock.wall(), self._schedule
        # Of a controller that was superseded: they would push the good ones out of the folder.
        if not schedule or now < self._again or self._stale():
            return False
        latest = Cron.parse(schedule["cron"]).before(now)
        # A clock that was set back must not silence the schedule: what is of the future is not.
        since = [float(schedule["set_at"]), float(self._note.get("scheduled_at", 0.0))]
        if latest is None or latest <= max((at for at in since if at <= now), default=0.0):
            return False
        self._began = self._clock.monotonic()
        try:
            await self._scheduled(schedule)
        except (RequestError, StoreError, Broken, OSError, ValueError, KeyError) as exc:
            self._failures += 1
            pause = min(FIRST_AGAIN * 2 ** (self._failures - 1), LONGEST_AGAIN)
            self._again = now + pause
            why = in_words(exc) if isinstance(exc, OSError) else str(exc)
            log.warning("no backup was made: %s", why, extra={"to": schedule["to"]})
            self._noted(failure=why)
            return False
        finally:
            self._began = None
        self._failures, self._again = 0, 0.0
        self._noted(scheduled_at=now, made_at=now, failure="")
        return True

    async def _scheduled(self, schedule: dict[str, Any]) -> None:
        folder = Path(schedule["to"])
        key = self._opened(schedule["key"]) if schedule["key"] else None
        async with self._one:
            with self._scratch() as scratch:
                await asyncio.to_thread(_still_there, folder, str(schedule.get("mount", "")))
                mine = f".{self._identity().id}-{os.urandom(6).hex()}{keeping.SUFFIX}"
                part = folder / mine
                try:
                    name = await self._write(part, scratch, key, scheduled=True)
                    await asyncio.to_thread(_into_place, part, folder / name)
                finally:
                    # Beside the loop as everything there: the disk may be another machine's.
                    await asyncio.to_thread(part.unlink, missing_ok=True)
            cluster, keep = self._identity().id, int(schedule["keep"])
            await asyncio.to_thread(_prune, folder, cluster, keep, self._clock.wall())

    async def _write(
        self, path: Path, scratch: Path, key: envelope.PassphraseKey | None, *, scheduled: bool
    ) -> str:
        """Write a backup, synced; return what to call it. Raises Unavailable, StoreError."""
        copy = scratch / contents.STATE
        identity, revision = self._identity(), self._cluster.revision
        await self._engine.backup(copy)
        reached("backup.mid")
        settings = contents.settings_of(self._cluster.nodes.values())
        head = envelope.Head(
            cluster=identity.id,
            made_at=self._clock.wall(),
            corral=versions.installed(),
            host=settings.host,
            epoch=identity.epoch,
            revision=revision,
            scheduled=scheduled,
        )

        def write() -> None:
            pieces = contents.gather(self._config.folder, copy, settings, scratch)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                envelope.write(out, head, pieces, key)
                out.flush()
                os.fsync(out.fileno())

        try:
            await asyncio.to_thread(write)
        except OSError as exc:
            raise Unavailable(
                f"{exc.filename or path.parent}: {in_words(exc)}", hint="nothing of it was left"
            ) from exc
        return keeping.file_name(identity.id, head.made_at)

    async def status(self) -> BackupStatus:
        """Return what is arranged, how it goes, and which files there are."""
        folder, silent = str(self._schedule.get("to", "")), ""
        found: list[BackupRow] = []
        if folder:
            try:
                async with asyncio.timeout(LISTING):
                    found = await self.listed()
            except TimeoutError:
                silent = f"{folder} does not answer: is its disk there? which there are is not said"
        cron = str(self._schedule.get("cron", ""))
        return BackupStatus(
            cron=cron,
            to=folder,
            keep=int(self._schedule.get("keep", 0)),
            encrypted=bool(self._schedule.get("key")),
            next_at=Cron.parse(cron).after(self._clock.wall()) if cron else 0.0,
            last_at=float(self._note.get("made_at", 0.0)),
            failure=str(self._note.get("failure", "")) if cron else "",
            warning="; ".join(filter(None, (self.warning, silent))),
            files=tuple(found),
        )

    async def listed(self) -> list[BackupRow]:
        """Return the files of the schedule's folder; all who ask meanwhile wait for one look.

        A disk that does not answer lets no thread go: it has one of ours, and no more.
        """
        folder = str(self._schedule.get("to", ""))
        if self._listing is None or self._listing[1].done() or self._listing[0] != folder:
            work = asyncio.to_thread(keeping.rows, Path(folder))
            self._listing = folder, asyncio.create_task(work, name="backups-list")
        try:
            return await asyncio.shield(self._listing[1])
        except OSError:
            return []

    @property
    def warning(self) -> str:
        """Return what lists say beside their rows; empty = all is well."""
        failure = str(self._note.get("failure", ""))
        if self._began is not None and self._clock.monotonic() - self._began > SLOW:
            # No deadline: a disk that does not answer lets no thread go, and each try takes one.
            lasted = span(self._clock.monotonic() - self._began)
            failure = f"it is not done after {lasted}; does {self._schedule.get('to')} answer?"
        if not failure or not self._schedule:
            return ""
        return f"the backup that was due was not made: {failure} (corral backup ls)"

    def figures(self) -> list[Family]:
        """Return when the last one was made, and whether one is missing."""
        made = float(self._note.get("made_at", 0.0))
        return [
            gauge("corral_backup_made_seconds", "When the newest backup was made, 0 = never", made),
            gauge("corral_backup_missing", "One that was due was not made", bool(self.warning)),
        ]

    # What it keeps.

    def _noted(self, **facts: Any) -> None:
        self._note = {**self._note, **facts}
        try:
            write_file(self._config.folder / NOTE, json.dumps(self._note).encode())
        except OSError as exc:  # a full disk: known until the next start
            log.warning("how a backup went cannot be noted: %s", in_words(exc))

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Wait for another one that is being made. Raises Unavailable where it does not end."""
        try:
            async with asyncio.timeout(BUSY):
                await self._one.acquire()
        except TimeoutError:
            to = self._schedule.get("to", "")
            raise Unavailable(
                f"another backup is being made, and was not done after {BUSY:g} s",
                hint=f"does the disk of {to} answer?" if to else "try again",
            ) from None
        try:
            yield
        finally:
            self._one.release()

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        try:
            made = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=self._config.folder))
        except OSError as exc:
            raise Unavailable(f"{self._config.folder}: {in_words(exc)}") from exc
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _sealed(self, key: envelope.PassphraseKey) -> str:
        told = {"salt": _text(key.salt), "key": _text(key.key), "cost": key.cost}
        return _text(self._sealer.seal(json.dumps(told).encode()))

    def _opened(self, sealed: str) -> envelope.PassphraseKey:
        told = json.loads(self._sealer.open(base64.b64decode(sealed)))
        n, r, p = told["cost"]
        salt, key = base64.b64decode(told["salt"]), base64.b64decode(told["key"])
        return envelope.PassphraseKey(salt, key, (n, r, p))


async def derived(passphrase: str) -> envelope.PassphraseKey:
    """Return a passphrase's key. Raises Invalid where there is none."""
    try:
        return await asyncio.to_thread(envelope.PassphraseKey.derive, passphrase)
    except envelope.BadBackup as exc:
        raise Invalid(detail=str(exc), hint=exc.hint) from exc


def _within(folder: Path, other: Path) -> bool:
    return folder.resolve().is_relative_to(other.resolve())


def _usable(folder: Path) -> str:
    """Make the folder where it is missing, and write to it; return where its disk is mounted."""
    make_folder(folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"corral")
        file.flush()
        os.fsync(file.fileno())
    return _mount_of(folder)


def _still_there(folder: Path, mount: str) -> None:
    """Refuse a folder whose disk is away: what is written there would be on the one that is lost.

    Raises Unavailable.
    """
    if not folder.is_dir():
        raise Unavailable(f"{folder} is not there any more: is its disk mounted?")
    if mount and (now := _mount_of(folder)) != mount:
        raise Unavailable(f"{folder} was on the disk mounted at {mount}, and is on that of {now}")


def _mount_of(folder: Path) -> str:
    return str(next(one for one in (folder, *folder.parents) if one.is_mount()))


def _into_place(part: Path, path: Path) -> None:
    reached("backup.before_rename")
    part.rename(path)
    reached("backup.after_rename")
    sync(path.parent)


def _prune(folder: Path, cluster: str, keep: int, now: float) -> None:
    """Take away our own oldest, and what a killed one left.

    What cannot be taken away is no reason to make another: it is noted in the log.
    """
    try:
        old = [Path(file) for file in keeping.surplus(keeping.rows(folder), cluster, keep, now=now)]
        left = [*folder.glob(f".{cluster}-????????????{keeping.SUFFIX}")]
    except OSError as exc:
        log.warning("old backups stay: %s", in_words(exc), extra={"to": str(folder)})
        return
    for path in (*old, *left):
        try:
            path.unlink(missing_ok=True)
            log.info("an old backup is removed", extra={"file": str(path)})
        except OSError as exc:
            log.warning("an old backup stays: %s", in_words(exc), extra={"file": str(path)})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
