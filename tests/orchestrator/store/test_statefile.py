"""The SQLite file: what survives, what is refused, what a full or failing disk does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest

from orchestrator.store import statefile
from orchestrator.store.base import Compacted, Compare, Damaged, Delete, Put, StoreUnavailable
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.statefile import DiskFailed, StateFile, Transaction
from specs.kit.room import Room


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def write(file, key, value=b"x"):
    (outcome,) = file.commit([Transaction((), (Put(key, value),))])
    return outcome.result


def fill(path, count=3):
    file = StateFile(path)
    for n in range(count):
        write(file, f"/{n}", b"%d" % n)
    return file


def test_a_closed_file_is_whole_without_its_log(path):
    fill(path).close()

    assert sorted(p.name for p in path.parent.iterdir()) == ["state.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file = StateFile(path)
    assert file.revision == 3
    assert [e.value for e in file.list("/").entries] == [b"0", b"1", b"2"]
    file.close()


def test_revisions_go_on_after_a_restart_even_when_everything_was_deleted(path):
    file = fill(path)
    file.commit([Transaction((), (Delete("/0"), Delete("/1"), Delete("/2")))])
    file.close()

    file = StateFile(path)
    assert write(file, "/a").revision == 5
    file.close()


def test_durability_settings_are_asserted(path):
    fill(path).close()
    file = StateFile(path)
    assert file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert file._db.execute("PRAGMA synchronous").fetchone() == (2,)
    file.close()

    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    with pytest.raises(Damaged, match="journal mode delete"):
        StateFile(path)


def test_a_group_is_one_commit_and_each_transaction_keeps_its_own_outcome(path):
    file = StateFile(path)
    outcomes = file.commit(
        [
            Transaction((Compare("/a", 0),), (Put("/a", b"1"),)),
            Transaction((Compare("/a", 0),), (Put("/a", b"2"),)),
            Transaction((Compare("/a", 1),), (Put("/a", b"3"),)),
            Transaction((), (Delete("/nothing"),)),
        ]
    )
    assert [(o.result.ok, o.result.revision) for o in outcomes] == [
        (True, 1),
        (False, 1),
        (True, 2),
        (True, 2),
    ]
    assert file.get("/a").value == b"3"
    file.close()


def test_a_second_controller_is_told_who_is_in_the_way(path):
    file = StateFile(path)
    with pytest.raises(StoreUnavailable, match="another controller"):
        StateFile(path)
    file.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrator.store.statefile import StateFile, Transaction
from orchestrator.store.base import Put
file = StateFile(Path(sys.argv[1]))
for n in range(50):
    file.commit([Transaction((), (Put(f"/{n}", b"v" * 100), Put("/last", b"%d" % n)))])
    print(n, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_survives_sigkill(path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == -9, run.stderr
    acknowledged = int(run.stdout.split()[-1])

    file = StateFile(path)
    assert int(file.get("/last").value) >= acknowledged
    assert file.revision == acknowledged + 1
    file.close()


@pytest.fixture
def killed(path):
    """A file as SIGKILL leaves it: the log not folded in."""
    subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, check=False)
    assert path.with_name("state.db-wal").stat().st_size
    return path


def test_a_missing_log_is_a_loss_and_refused(killed):
    killed.with_name("state.db-wal").unlink()
    before = killed.read_bytes()
    with pytest.raises(Damaged, match="-wal is missing"):
        StateFile(killed)
    assert killed.read_bytes() == before


def test_the_way_out_when_another_tool_folded_the_log_in(killed):
    db = sqlite3.connect(killed)
    db.execute("SELECT count(*) FROM entries").fetchone()
    db.close()
    log = killed.with_name("state.db-wal")
    with pytest.raises(Damaged, match=f"touch {log}"):
        StateFile(killed)
    log.touch()
    file = StateFile(killed)
    assert file.get("/last").value == b"49"
    file.close()


def test_half_a_log_loses_only_its_torn_end(killed):
    log = killed.with_name("state.db-wal")
    os.truncate(log, log.stat().st_size - 1000)
    file = StateFile(killed)
    last = int(file.get("/last").value)
    assert last == 48
    assert file.revision == last + 1
    file.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: os.truncate(p, 0), "is empty"),
        (lambda p: os.truncate(p, 5000), "damaged"),
        (lambda p: p.write_bytes(b"not a database" * 1000), "damaged"),
        (lambda p: overwrite(p, 4096 * 2, os.urandom(4096)), "damaged"),
        (lambda p: overwrite(p, 18, b"\x09\x09"), "state.db"),
    ],
    ids=["empty", "cut", "other", "page", "header"],
)
def test_a_damaged_file_is_refused_and_left_alone(path, spoil, words):
    file = StateFile(path)
    for n in range(40):
        write(file, f"/{n}", os.urandom(500))
    file.close()
    spoil(path)
    before = path.read_bytes()

    with pytest.raises((Damaged, StoreUnavailable), match=words):
        StateFile(path)
    assert path.read_bytes() == before


def overwrite(path, place, data):
    with path.open("r+b") as out:
        out.seek(place)
        out.write(data)


def test_another_programs_database_is_refused(path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(Damaged, match="not one of corral's"):
        StateFile(path)


def test_a_newer_schema_is_refused_with_both_numbers(path):
    fill(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Damaged, match="schema 7, this one knows 1"):
        StateFile(path)


def test_a_half_made_new_file_is_made_again(path):
    path.with_name("state.db.new").write_bytes(b"half")
    StateFile(path).close()
    assert [p.name for p in path.parent.iterdir()] == ["state.db"]


def test_a_migration_is_all_or_nothing(path):
    fill(path).close()
    db = sqlite3.connect(path, isolation_level=None)
    migrations = {1: "CREATE TABLE two (x) STRICT", 2: "CREATE TABLE three (x INTEGER) STRICT"}
    with pytest.raises(sqlite3.Error):  # a STRICT column needs a type
        statefile.migrate(db, path, migrations=migrations, schema=3)
    assert tables(db) == {"meta", "entries"}

    def interrupt(version):
        if version == 3:
            raise KeyboardInterrupt

    migrations[1] = "CREATE TABLE two (x TEXT) STRICT"
    with pytest.raises(KeyboardInterrupt):
        statefile.migrate(db, path, migrations=migrations, schema=3, step=interrupt)
    assert tables(db) == {"meta", "entries"}

    statefile.migrate(db, path, migrations=migrations, schema=3)
    assert tables(db) == {"meta", "entries", "two", "three"}
    assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.close()


def tables(db):
    return {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_full_disk_refuses_with_words_and_keeps_everything(path):
    file = fill(path)
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count = {pages + 2}")

    with pytest.raises(StoreUnavailable, match="no space is left"):
        write(file, "/big", bytes(100_000))
    assert write(file, "/small").revision == 4
    assert file.get("/big") is None
    file.close()


async def test_a_transaction_too_big_for_the_disk_does_not_refuse_its_group(path):
    store = await SqliteStore.open(path)
    await store._call(lambda f: f._db.execute("PRAGMA max_page_count = 20").fetchall())
    async with asyncio.TaskGroup() as group:
        block = group.create_task(store._call(lambda _: __import__("time").sleep(0.02)))
        small = [group.create_task(store.txn(writes=(Put(f"/{n}", b"x"),))) for n in range(3)]
        big = group.create_task(expect_unavailable(store.txn(writes=(Put("/b", bytes(200_000)),))))
    assert block.done()
    assert all(task.result().ok for task in small)
    assert big.result()
    assert len((await store.list("/")).entries) == 3
    await store.close()


async def expect_unavailable(call):
    with pytest.raises(StoreUnavailable):
        await call
    return True


async def test_after_a_disk_error_the_file_is_opened_afresh(path, monkeypatch):
    store = await SqliteStore.open(path)
    await store.txn(writes=(Put("/a", b"1"),))
    commit = StateFile.commit
    broken = [True]

    def failing(self, transactions):
        outcomes = commit(self, transactions)  # it did reach the disk, as fsync errors may
        if broken and broken.pop():
            raise DiskFailed("writing state.db: its disk gives errors")
        return outcomes

    monkeypatch.setattr(StateFile, "commit", failing)
    watch = store.watch("/", 1)
    with pytest.raises(StoreUnavailable, match="disk gives errors"):
        await store.txn(writes=(Put("/b", b"2"),))

    assert (await store.get("/b")).version == 2, "the truth is what the file says"
    with pytest.raises(Compacted):
        await anext(watch)
    assert (await store.txn(writes=(Put("/c", b"3"),))).revision == 3
    await store.close()


async def test_a_backup_opens_as_a_cluster_of_its_own(path, tmp_path):
    store = await SqliteStore.open(path)
    await store.txn(writes=(Put("/a", b"1"),))
    copy = tmp_path / "copy.db"
    await store.backup(copy)
    await store.txn(writes=(Put("/a", b"2"),))

    restored = await SqliteStore.open(copy)
    assert (await restored.get("/a")).value == b"1"
    await restored.close()
    with pytest.raises(StoreUnavailable):
        await store.backup(copy)
    await store.close()


async def test_a_file_in_a_missing_folder_is_unavailable_and_says_which(tmp_path):
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await SqliteStore.open(tmp_path / "nowhere" / "state.db")


async def test_concurrent_transactions_share_commits(path, monkeypatch):
    groups = []
    commit = StateFile.commit
    monkeypatch.setattr(
        StateFile, "commit", lambda self, t: (groups.append(len(t)), commit(self, t))[1]
    )
    store = await SqliteStore.open(path)
    async with asyncio.TaskGroup() as group:
        for n in range(200):
            group.create_task(store.txn(writes=(Put(f"/{n}", b"x"),)))
    assert sum(groups) == 200
    assert len(groups) < 50, groups
    await store.close()


async def test_a_cancelled_writer_leaves_the_store_sound(path):
    store = await SqliteStore.open(path)
    task = asyncio.create_task(store.txn(writes=(Put("/a", b"1"),)))
    await asyncio.sleep(0)
    task.cancel()
    assert (await store.txn(writes=(Put("/b", b"2"),))).revision == 2
    await store.close()


def test_deleted_values_are_not_left_in_the_file(path):
    file = StateFile(path)
    write(file, "/secret", b"canary" * 2000)
    file.commit([Transaction((), (Delete("/secret"),))])
    file.close()
    assert b"canary" not in path.read_bytes()


def test_a_copy_of_the_running_file_alone_is_refused(path, tmp_path):
    file = fill(path)
    copy = tmp_path / "copied.db"
    shutil.copy(path, copy)
    with pytest.raises(Damaged, match="missing"):
        StateFile(copy)
    file.close()


@pytest.mark.parametrize(
    ("code", "readonly", "words"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, True, "its disk is read-only"),
        (sqlite3.SQLITE_IOERR_WRITE, False, "its disk gives errors"),
        (sqlite3.SQLITE_READONLY, True, "its disk is read-only"),
        (sqlite3.SQLITE_READONLY, False, "no permission"),
        (sqlite3.SQLITE_CANTOPEN, True, "its disk is read-only"),
        (sqlite3.SQLITE_FULL, True, "no space is left"),
    ],
)
def test_a_read_only_disk_is_told_as_one(path, monkeypatch, code, readonly, words):
    file = fill(path)
    monkeypatch.setattr(statefile, "measure", lambda _: Room(1, 1, readonly=readonly))
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    with pytest.raises(StoreUnavailable, match=words), file._converted("writing"):
        raise error
    assert file.revision == 3
    file.close()
