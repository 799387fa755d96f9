"""The SQLite file itself: made whole, opened with suspicion, written in whole transactions.

Used by store/sqlite.py from its one thread, and by nothing else. It never repairs
and never empties a file: what it cannot vouch for it refuses with words (Damaged),
because a store that silently lost something would make agents remove what runs.

Durability is WAL with synchronous=FULL, asserted at every open: it lost nothing in
power cuts where WAL+NORMAL and SQLite's default journal did.

Two small marks make silent loss visible. A new file is built beside its place and
renamed, so a file of no bytes in place was truncated, not new. ``open`` is 1 in the
main file while a controller has it, so a missing ``-wal`` then means lost commits.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.store.base import (
    Change,
    Compare,
    Damaged,
    Delete,
    Put,
    Result,
    Snapshot,
    Stored,
    StoreUnavailable,
)
from orchestrator.store.limits import prefix_end
from specs.kit.disk import sync
from specs.kit.failpoints import reached
from specs.kit.room import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APPLICATION_ID = 0x636F7272  # "corr", in the file's header
SCHEMA = 1

_SCHEMA_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE entries (
  key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES ('revision', 0), ('open', 0);
"""

# Schema version -> what makes the next one of it; each runs in the one migration transaction.
MIGRATIONS: dict[int, str] = {0: _SCHEMA_1}

_FULL = 2  # PRAGMA synchronous


class DiskFailed(StoreUnavailable):
    """The disk gave an error. What is in the file now only a fresh open can tell."""


@dataclass(frozen=True, slots=True)
class Transaction:
    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...]


@dataclass(slots=True)
class Outcome:
    """``changes`` is empty when a compare did not hold or nothing changed."""

    result: Result
    changes: tuple[Change, ...] = field(default=())


class StateFile:
    """An open, verified state file. Methods raise StoreUnavailable or Damaged only."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it when there is none. Raises Damaged, StoreUnavailable."""
        self.path = path
        with self._converted("opening"):
            if not path.exists():
                _create(path)
            self._db = _connect(path)
            try:
                self._verify()
                migrate(self._db, path)
                self._mark_open()
                self.revision = self._read_revision()
            except BaseException:
                self._db.close()
                raise

    def commit(self, transactions: list[Transaction]) -> list[Outcome]:
        """Apply the transactions in order with one fsync; all of them are durable on return.

        When it raises, none was acknowledged; the file may still hold them if the
        disk failed in the very moment of committing.
        """
        with self._converted("writing"):
            revision = self.revision
            self._db.execute("BEGIN IMMEDIATE")
            try:
                outcomes = []
                for transaction in transactions:
                    outcome = self._apply(transaction, revision)
                    revision = outcome.result.revision
                    outcomes.append(outcome)
                if revision != self.revision:
                    self._db.execute(
                        "UPDATE meta SET value = ? WHERE name = 'revision'", (revision,)
                    )
                reached("store.before_commit")
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            reached("store.after_commit")
            self.revision = revision
            return outcomes

    def get(self, key: str) -> Stored | None:
        with self._converted("reading"):
            row = self._db.execute(
                "SELECT key, value, version FROM entries WHERE key = ?", (key,)
            ).fetchone()
            return Stored(*row) if row else None

    def list(self, prefix: str) -> Snapshot:
        end = prefix_end(prefix)
        with self._converted("reading"):
            if end is None:
                rows = self._db.execute(
                    "SELECT key, value, version FROM entries WHERE key >= ? ORDER BY key",
                    (prefix,),
                )
            else:
                rows = self._db.execute(
                    "SELECT key, value, version FROM entries"
                    " WHERE key >= ? AND key < ? ORDER BY key",
                    (prefix, end),
                )
            return Snapshot(self.revision, tuple(Stored(*row) for row in rows))

    def backup(self, target: Path) -> None:
        """Write a consistent copy that opens as a whole file of its own."""
        with self._converted("copying"):
            self._db.execute("VACUUM INTO ?", (os.fspath(target),))
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                copy.execute("PRAGMA journal_mode = WAL")
                copy.execute("UPDATE meta SET value = 0 WHERE name = 'open'")
            finally:
                copy.close()

    def fold(self) -> None:
        """Fold the log into the file now; of what was overwritten nothing is left in either."""
        with self._converted("folding the log of"):
            reached("store.checkpoint")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Fold the log into the file and mark it as complete without it."""
        try:
            self._set("open", 0)
        except sqlite3.Error:
            self.abandon()
            return
        with self._converted("closing"):
            self._db.close()

    def abandon(self) -> None:
        """Let go of a failing file: what is in it is for the next open to judge."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        # SQLite folded the log in and deleted it, but the mark still says it is needed.
        with contextlib.suppress(OSError):
            _log_of(self.path).touch(mode=0o600)

    def _apply(self, transaction: Transaction, revision: int) -> Outcome:
        for compare in transaction.compares:
            row = self._db.execute(
                "SELECT version FROM entries WHERE key = ?", (compare.key,)
            ).fetchone()
            if (row[0] if row else 0) != compare.version:
                return Outcome(Result(ok=False, revision=revision, failed=compare.key))
        changes = []
        for write in transaction.writes:
            if isinstance(write, Put):
                self._db.execute(
                    "INSERT INTO entries VALUES (?1, ?2, ?3)"
                    " ON CONFLICT (key) DO UPDATE SET value = ?2, version = ?3",
                    (write.key, write.value, revision + 1),
                )
                changes.append(Change(write.key, write.value, revision + 1))
            elif self._db.execute("DELETE FROM entries WHERE key = ?", (write.key,)).rowcount:
                changes.append(Change(write.key, None, revision + 1))
        after = revision + 1 if changes else revision
        return Outcome(Result(ok=True, revision=after), tuple(changes))

    def _verify(self) -> None:
        mode = self._db.execute("PRAGMA journal_mode").fetchone()[0]
        level = self._db.execute("PRAGMA synchronous").fetchone()[0]
        if mode != "wal" or level != _FULL:
            raise Damaged(
                f"{self.path} is in journal mode {mode}, synchronous {level}, where only WAL and"
                " FULL keep what was acknowledged; another program changed the file"
            )
        if self._db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise Damaged(f"{self.path} is an SQLite file, but not one of corral's")
        problems = [row[0] for row in self._db.execute("PRAGMA integrity_check(5)")]
        if problems != ["ok"]:
            raise Damaged(f"{self.path} is damaged: {'; '.join(problems)}. {_RESTORE}")

    def _mark_open(self) -> None:
        self._set("open", 1)
        reached("store.checkpoint")
        # Into the main file at once: from here on a missing log is a loss, not a clean end.
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _set(self, name: str, value: int) -> None:
        self._db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))

    def _read_revision(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()
        return int(row[0])

    @contextlib.contextmanager
    def _converted(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise _converted(exc, doing, self.path) from exc
        except OSError as exc:
            raise StoreUnavailable(f"{doing} {self.path}: {exc.strerror}") from exc


_RESTORE = "Nothing was changed in it. Restore a backup, or move it away to start a new cluster"


def _create(path: Path) -> None:
    """Make an empty state file so that at ``path`` there is never half of one."""
    new = path.with_name(path.name + ".new")
    for leftover in (new, new.with_name(new.name + "-wal"), new.with_name(new.name + "-shm")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    db = sqlite3.connect(new, isolation_level=None)
    try:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        migrate(db, new)
    finally:
        db.close()  # folds the log in
    sync(new)
    reached("store.created")
    new.rename(path)
    sync(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    """Connect, refusing files that SQLite would take for new or complete and that are not."""
    if path.stat().st_size == 0:
        raise Damaged(f"{path} is empty, but corral never leaves it so: it was cut. {_RESTORE}")
    log = _log_of(path)
    log_is_there = log.exists()
    # The file must exist: a path mistake must not make a new, empty cluster.
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=0.1
    )
    try:
        # Alone in the file: a second controller gets "locked" at once, and no -shm is needed.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA cache_size = -2048")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA journal_size_limit = 4194304")
        lost = not log_is_there and _is_open(db)
    except BaseException:
        db.close()
        raise
    if lost:
        db.close()
        raise Damaged(
            f"{log} is missing: {path} was in use and its newest changes were in there."
            f" Put that file back. (If another SQLite program opened the file since and folded"
            f" it in, nothing is lost: touch {log}.) {_RESTORE}"
        )
    return db


def _is_open(db: sqlite3.Connection) -> bool:
    try:
        row = db.execute("SELECT value FROM meta WHERE name = 'open'").fetchone()
    except sqlite3.OperationalError as exc:
        if "no such table" in str(exc):  # not ours; verification says so in better words
            return False
        raise
    return bool(row and row[0])


def migrate(
    db: sqlite3.Connection,
    path: Path,
    *,
    migrations: dict[int, str] | None = None,
    schema: int = SCHEMA,
    step: Callable[[int], None] = lambda _: None,
) -> None:
    """Bring the file to the present schema in one transaction: all of it or nothing.

    ``step`` is called after each version, inside the transaction.
    """
    migrations = MIGRATIONS if migrations is None else migrations
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > schema:
        raise Damaged(
            f"{path} was written by a newer corral (schema {version}, this one knows {schema}):"
            " start that version, or restore a backup from before the upgrade"
        )
    if version == schema:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for old in range(version, schema):
            for statement in migrations[old].split(";"):
                if statement.strip():
                    db.execute(statement)
            step(old + 1)
            reached("store.mid_migration")
        db.execute(f"PRAGMA user_version = {schema}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


_REFUSED = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)


def _converted(exc: sqlite3.Error, doing: str, path: Path) -> Damaged | StoreUnavailable:
    """Return our error for SQLite's, by the primary part of its code."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return Damaged(f"{path} is damaged ({exc}). {_RESTORE}")
    match code:
        case sqlite3.SQLITE_FULL:
            why = "no space is left on its disk; free some, nothing was lost"
        case sqlite3.SQLITE_BUSY:
            why = "another process has it open; is another controller running?"
        case _ if code in _REFUSED and (room := measure(path)) and room.readonly:
            why = "its disk is read-only (dmesg may say why); nothing was lost, make it writable"
        case sqlite3.SQLITE_IOERR:
            why = f"its disk gives errors ({exc})"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            why = f"no permission ({exc})"
        case _:
            why = str(exc)
    kind = DiskFailed if code == sqlite3.SQLITE_IOERR else StoreUnavailable
    return kind(f"{doing} {path}: {why}")


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
