"""Backups of a whole controller over SQLite with one simulated agent: made, checked, put back."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import random
import shutil
import sqlite3
import threading
from pathlib import Path
from types import MappingProxyType

import aiohttp
import pytest
from aiohttp import web

from orchestrator.backups import contents, envelope, keeping, making, owing, restoring, verifying
from orchestrator.backups.envelope import BadBackup
from orchestrator.backups.making import Backups
from orchestrator.config import ControllerConfig
from orchestrator.control.mirror.records import BoundPath, Volume
from orchestrator.errors import RequestError, Unavailable
from orchestrator.keys import ca, identity
from orchestrator.keys.sealing import SealedStore
from orchestrator.keys.vault import load as load_vault
from orchestrator.store import keys
from orchestrator.store.base import Put, StoreUnavailable
from orchestrator.store.sqlite import SqliteStore
from specs.api import BackupRow, MakeBackup, ScheduleBackups
from specs.kit.clock import SystemClock
from specs.node import Node
from specs.task import Task
from tests.fakes.agent import FakeAgent
from tests.orchestrator.test_controller import agent, all_ready, config, running
from tests.orchestrator.test_state import alive, deploy, project, refused

__all__ = ["agent", "config"]

WORDS = "tree of words"


@pytest.fixture(autouse=True)
def quick_passphrases(monkeypatch):
    monkeypatch.setattr(envelope.PassphraseKey.derive.__func__, "__defaults__", (None, (2, 8, 1)))


async def downloaded(client, path, **body):
    async with client.http.request("POST", "/v1/backups", json=body) as answer:
        assert answer.status == 200, await answer.text()
        path.write_bytes(await answer.read())
        return answer.headers["Content-Disposition"]


def verified(path, words=WORDS):
    return verifying.verify(path, lambda: words)


async def put_back(path, config, words=WORDS):
    """Restore as the command does, beside a running loop."""

    def work():
        config.state_dir.mkdir(exist_ok=True)
        with verifying.opened(path, lambda: words, config.state_dir) as (folder, found):
            return restoring.place(folder, config), found

    return await asyncio.to_thread(work)


async def test_a_backup_is_made_while_the_controller_works_and_opens(config, agent, tmp_path):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await deploy(client, "shop", "s1", 2)
        said = await downloaded(client, tmp_path / "b.backup", passphrase=WORDS)
        cluster = (await client.call("GET", "/v1/version"))["cluster"]
        assert f'filename="corral-{cluster}-' in said
        await deploy(client, "shop", "s2", 1)
        status = await client.call("GET", "/v1/backups")
        assert status["last_at"] > 0
        assert not list(config.folder.glob(".backup-*")), "nothing is left of it"
    found = await asyncio.to_thread(verified, tmp_path / "b.backup")
    assert (found.stacks, found.check.errors, found.check.findings) == (("shop",), (), ())
    assert found.head.cluster == cluster
    assert found.settings.name == found.nodes[0]


async def test_a_backup_has_no_secret_in_the_clear(config, agent, tmp_path):
    body = project("shop")
    body["services"]["web"]["environment"] = {"PASSWORD": "hunter2-canary"}
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await client.call("POST", "/v1/stacks/shop/releases", json={"key": "k", "project": body})
        await downloaded(client, tmp_path / "b", passphrase=WORDS)
        key = config.key.read_bytes()
        content = (tmp_path / "b").read_bytes()
        assert key not in content
        assert b"canary" not in content
        await downloaded(client, tmp_path / "plain", plain=True)
        assert key in (tmp_path / "plain").read_bytes(), "a plain one is what it says"
        said = json.dumps(await client.call("GET", "/v1/state/export"))
        assert "PASSWORD" in said
        assert "hunter2" not in said
        check = await client.call("GET", "/v1/state/check")
        assert (check["findings"], check["records"] > 5) == ([], True)


@pytest.mark.parametrize("body", [{}, {"passphrase": " "}, {"passphrase": "x", "plain": True}])
async def test_neither_a_passphrase_nor_plain_is_refused(config, agent, body):
    async with (
        running(config) as client,
        client.http.request("POST", "/v1/backups", json=body) as answer,
    ):
        assert answer.status == 422
        assert "passphrase" in (await answer.json())["detail"]


async def test_the_machine_is_lost_and_a_new_one_takes_over_what_runs(config, agent, tmp_path):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await deploy(client, "shop", "s1", 2)
        epoch = (await client.call("GET", "/v1/version"))["epoch"]
        await downloaded(client, tmp_path / "b", passphrase=WORDS)
        cluster = (await client.call("GET", "/v1/version"))["cluster"]
    before = alive(agent)
    shutil.rmtree(config.folder)
    aside, _ = await put_back(tmp_path / "b", config)
    assert aside is None
    assert config.restored.exists()
    assert {path.name for path in config.folder.iterdir()} >= {"state.db", "key", "restored"}
    assert config.folder.stat().st_mode & 0o777 == 0o700
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        found = await client.call("GET", "/v1/version")
        assert found["cluster"] == cluster
        assert found["epoch"] > epoch, "law: a higher epoch than any agent has seen"
        await client.until("/v1/stacks/shop/tasks", all_ready(2))
        await asyncio.sleep(0.5)
        assert alive(agent) == before, "law: the same processes"
        assert not config.restored.exists()
        await deploy(client, "shop", "s2", 2)
        assert alive(agent) == before, "the same file changes nothing"
        assert (await client.call("GET", "/v1/state/check"))["findings"] == []


VOLUMES = {
    # name -> is it on the new machine's disk, and is it waited for then
    "app_lost": (False, True),
    "app_kept": (True, False),
    "of_another": (False, False),
    "of_each": (False, False),
    "share": (False, False),
}


async def test_data_of_the_lost_machine_is_waited_for_and_no_other(config, tmp_path):
    """Law: nothing begins on an empty volume where data is expected."""
    config.folder.mkdir(parents=True)
    store = SealedStore(
        engine := await SqliteStore.open(config.database),
        load_vault(config.folder / contents.KEY, fresh=True),
    )
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.mkdir()
    more = {"of_another": {"node": "n2"}, "of_each": {"everywhere": True}}
    more["share"] = {"options": {"type": "nfs", "device": ":/x"}}
    writes = [Put(keys.node("n1"), Node(id="n1", name="one", replaces=("n0",)).encode())]
    for name in VOLUMES:
        record = Volume(**{"name": name, "node": "n1", "home": "one", **more.get(name, {})})
        writes.append(Put(keys.volume(name), record.encode()))
    for path in (there, gone):
        record = BoundPath(stack="app", path=str(path), node="n1", home="one")
        writes.append(Put(keys.bound_path("app", str(path)), record.encode()))
    tasks = {"ran": "n1", "elsewhere": "n2", "nowhere": None}
    for name, node in tasks.items():
        task = Task(
            id=name, name=name, stack="app", service="db", slot=1, release=1, spec_hash="h",
            node=node,
        )  # fmt: skip
        writes.append(Put(keys.task("app", name), task.encode()))
    await store.txn((), tuple(writes))
    await engine.close()
    kept = tmp_path / "volumes"
    for name, (here, _) in VOLUMES.items():
        if here:
            (kept / name).mkdir(parents=True)

    owed = await asyncio.to_thread(owing.owe, config.folder, "n1", kept)

    assert owed == (f"path {gone} of app", "volume app_lost")
    engine = await SqliteStore.open(config.database)
    store = SealedStore(engine, load_vault(config.folder / contents.KEY, fresh=False))
    node = Node.model_validate_json((await store.get(keys.node("n1"))).value)
    former, *rest = node.replaces
    assert rest == ["n0"]
    for name, (_, waits) in VOLUMES.items():
        volume = Volume.model_validate_json((await store.get(keys.volume(name))).value)
        assert (volume.node == former) is waits, name
        assert volume.home == "one"
    for path in (there, gone):
        entry = await store.get(keys.bound_path("app", str(path)))
        assert BoundPath.model_validate_json(entry.value).node == (
            "n1" if path == there else former
        )
    await engine.close()


async def test_what_nodes_know_better_is_asked_about(config, agent, tmp_path):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await deploy(client, "shop", "s1", 1)
        await downloaded(client, tmp_path / "b", passphrase=WORDS)
        await deploy(client, "new", "n1", 1)
        await deploy(client, "shop", "s2", 3)
    before = alive(agent)
    shutil.rmtree(config.folder)
    await put_back(tmp_path / "b", config)
    async with running(config) as client:
        state = await client.until("/v1/state", lambda a: a.get("behind"))
        assert any("new is not known here" in line for line in state["newer"])
        assert any("shop is older here" in line for line in state["newer"])
        body = {"key": "x", "project": project("shop")}
        await refused(client, "POST", "/v1/stacks/shop/releases", json=body)
        assert [s["name"] for s in (await client.call("GET", "/v1/stacks"))["stacks"]] == ["shop"]
        await downloaded(client, tmp_path / "again", passphrase=WORDS)  # it changes nothing
        await client.call("POST", "/v1/state/adopt")
        await client.until("/v1/stacks/shop/tasks", all_ready(3))
        await client.until("/v1/stacks/new/tasks", all_ready(1))
        assert alive(agent) == before, "law: the same processes"


async def test_an_agent_that_starts_late_is_waited_for_after_a_restore(config, tmp_path):
    async with FakeAgent(config.agent_socket, heartbeat=0.1) as first:
        async with running(config) as client:
            await client.until("/v1/nodes", lambda a: a["nodes"])
            await deploy(client, "shop", "s1", 1)
            await downloaded(client, tmp_path / "b", passphrase=WORDS)
            await deploy(client, "shop", "s2", 2)
        simulated = first
        shutil.rmtree(config.folder)
        await put_back(tmp_path / "b", config)
        hidden = config.agent_socket.with_suffix(".away")
        config.agent_socket.rename(hidden)
        async with running(config) as client:
            await asyncio.sleep(0.5)
            hidden.rename(config.agent_socket)
            state = await client.until("/v1/state", lambda a: a.get("behind"))
            assert any("shop is older here" in line for line in state["newer"])
        assert len(alive(simulated)) == 2


# The file.


@pytest.fixture
async def backup(tmp_path):
    """Return a plain backup of a small state, and its pieces in a folder."""
    config = ControllerConfig(state_dir=tmp_path / "source", run_dir=tmp_path / "run1")
    backups, engine = await controller(config)
    async with backups.made(MakeBackup(plain=True)) as (path, _):
        shutil.copy(path, tmp_path / "b.backup")
    await engine.close()
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    envelope.read(tmp_path / "b.backup", str, pieces)
    return tmp_path / "b.backup", pieces


async def controller(config, clock=None):
    """Return the part that makes backups, over a real store, without a controller around it."""
    config.folder.mkdir(parents=True, exist_ok=True)
    config.run_dir.mkdir(exist_ok=True)
    sealer = load_vault(config.key, fresh=True)
    engine = await SqliteStore.open(config.database)
    store = SealedStore(engine, sealer)
    clock = clock or SystemClock()
    record = await identity.load(store, clock=clock, rng=random.Random(1), routes=())
    await ca.load(store, sealer, cluster=record.id, clock=clock)
    backups = Backups(
        engine=engine,
        store=store,
        config=config,
        cluster=Nobody(),
        identity=lambda: record,
        sealer=sealer,
        clock=clock,
    )
    await backups.open()
    return backups, engine


class Nobody:
    """A mirror without nodes."""

    revision = 1
    nodes = MappingProxyType({})


def remade(pieces, path, **head):
    """Write the pieces of a folder as a backup again."""
    first = envelope.Head(**{"cluster": "c", "made_at": 1.0, **head})
    listed = [(piece.name, piece) for piece in sorted(pieces.iterdir())]
    with path.open("wb") as out:
        envelope.write(out, first, listed, None)


CASES = {
    "no state": (lambda p: (p / "state.db").unlink(), "has no state.db"),
    "no key": (lambda p: (p / "key").unlink(), "has no key"),
    "another key": (lambda p: (p / "key").write_bytes(os.urandom(32)), "does not open"),
    "half a key": (lambda p: (p / "key").write_bytes(b"x"), "is not a cluster key"),
    "cut state": (lambda p: os.truncate(p / "state.db", 5000), "does not open as a state"),
    "empty state": (lambda p: os.truncate(p / "state.db", 0), "does not open as a state"),
    "unknown piece": (lambda p: (p / "more").write_bytes(b"x"), "has more in it"),
    "broken settings": (lambda p: (p / "settings").write_bytes(b"{"), "settings cannot be read"),
    "another cluster": (lambda _: None, "says cluster c, and holds c"),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_no_whole_backup_is_refused_and_touches_nothing(backup, tmp_path, case):
    _, pieces = backup
    change, words = CASES[case]
    change(pieces)
    head = {} if case == "another cluster" else {"cluster": envelope.peek(backup[0]).cluster}
    remade(pieces, tmp_path / "bad", **head)
    target = ControllerConfig(state_dir=tmp_path / "target", run_dir=tmp_path / "run2")
    if case == "another key":
        found = await asyncio.to_thread(verified, tmp_path / "bad")
        assert any(words in one.what for one in found.check.errors), "its authority is sealed"
        return
    with pytest.raises(BadBackup, match=words):
        await put_back(tmp_path / "bad", target)
    assert list(target.state_dir.iterdir()) == [], "law: nothing is touched"


async def test_a_store_of_a_newer_schema_is_refused_by_name(backup, tmp_path):
    path, pieces = backup
    with sqlite3.connect(pieces / "state.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    remade(pieces, tmp_path / "bad", cluster=envelope.peek(path).cluster)
    with pytest.raises(BadBackup, match="written by a newer corral"):
        await asyncio.to_thread(verified, tmp_path / "bad")


async def test_a_restore_over_a_running_controller_is_refused(backup, config, agent):
    async with running(config):
        before = sorted(path.name for path in config.state_dir.iterdir())
        with pytest.raises(BadBackup, match="a controller runs here"):
            await put_back(backup[0], config)
        assert sorted(path.name for path in config.state_dir.iterdir()) == before


async def test_what_was_there_is_kept_beside_it(backup, tmp_path):
    target = ControllerConfig(state_dir=tmp_path / "target", run_dir=tmp_path / "run2")
    target.folder.mkdir(parents=True)
    (target.folder / "state.db").write_bytes(b"mine")
    assert restoring.occupied(target)
    left = target.state_dir / f"{verifying.APART}killed"
    left.mkdir()
    (left / "key").write_bytes(b"x")
    verifying.sweep(target.state_dir)
    assert not left.exists()
    aside, found = await put_back(backup[0], target)
    assert (aside / "state.db").read_bytes() == b"mine"
    assert aside.parent == target.state_dir
    assert (target.folder / "key").stat().st_mode & 0o777 == 0o600
    assert not (target.folder / "settings").exists()
    assert found.check.findings == ()


async def test_a_disk_that_fails_leaves_what_was_there(backup, tmp_path, monkeypatch):
    target = ControllerConfig(state_dir=tmp_path / "target", run_dir=tmp_path / "run2")
    target.folder.mkdir(parents=True)
    (target.folder / "state.db").write_bytes(b"mine")
    rename = type(target.folder).rename

    def failing(self, to):
        if self.name.startswith(".restore-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return rename(self, to)

    monkeypatch.setattr(type(target.folder), "rename", failing)
    with pytest.raises(BadBackup, match="disk reports an error"):
        await put_back(backup[0], target)
    assert (target.folder / "state.db").read_bytes() == b"mine"
    assert [path.name for path in target.state_dir.iterdir()] == ["controller"]


async def test_a_file_system_without_exchanges_is_written_all_the_same(
    backup, tmp_path, monkeypatch
):
    def cannot(one, other):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(other))

    monkeypatch.setattr(restoring, "exchange", cannot)
    target = ControllerConfig(state_dir=tmp_path / "target", run_dir=tmp_path / "run2")
    target.folder.mkdir(parents=True)
    (target.folder / "state.db").write_bytes(b"mine")
    aside, _ = await put_back(backup[0], target)
    assert (aside / "state.db").read_bytes() == b"mine"
    assert (target.folder / "key").exists()


class Killed(BaseException):
    """Nothing runs after a kill: nobody catches it."""


@pytest.mark.parametrize("there", [True, False])
async def test_killed_at_any_step_there_is_one_state_or_the_other(
    backup, tmp_path, monkeypatch, there
):
    """Law: `controller/` is the former one, or the backup's, whole; what was there is kept."""
    rename, exchange = Path.rename, restoring.exchange
    steps = 0

    def counted(call):
        def stepped(*arguments):
            nonlocal steps
            done = call(*arguments)
            steps -= 1
            if steps == 0:
                raise Killed
            return done

        return stepped

    monkeypatch.setattr(Path, "rename", counted(rename))
    monkeypatch.setattr(restoring, "exchange", counted(exchange))

    def restored(target):
        with verifying._apart(target.state_dir) as folder:
            envelope.read(backup[0], lambda: WORDS, folder)
            restoring.place(folder, target)

    for number in range(1, 20):
        target = ControllerConfig(state_dir=tmp_path / f"t{number}", run_dir=tmp_path / "run2")
        target.state_dir.mkdir()
        if there:
            target.folder.mkdir()
            (target.folder / "state.db").write_bytes(b"mine")
        steps = number
        try:
            await asyncio.to_thread(restored, target)
        except Killed:
            killed = True
        else:
            killed = False
        verifying.sweep(target.state_dir)  # as the next one does
        states = {path.name: path for path in target.state_dir.iterdir()}
        mine = [n for n, p in states.items() if (p / "state.db").read_bytes() == b"mine"]
        assert len(mine) == there, "law: what was there is never deleted"
        whole = {p.name for p in states.get("controller", Path("/nowhere")).glob("*")}
        assert whole >= {"state.db", "key", "restored"} or mine == ["controller"] or not there
        if not killed:
            break
    assert number > 2
    assert whole >= {"state.db", "key", "restored"}


async def test_what_a_killed_verify_left_goes_with_the_next_and_what_is_at_work_stays(
    backup, tmp_path, monkeypatch
):
    monkeypatch.setattr(verifying.tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"{verifying.APART}killed"
    left.mkdir()
    (left / "key").write_bytes(b"x")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{verifying.APART}link").symlink_to(elsewhere)
    with verifying._apart(tmp_path) as work:
        (work / "key").write_bytes(b"x")
        await asyncio.to_thread(verified, backup[0])
        assert not left.exists()
        assert (work / "key").exists(), "another one's work is not taken away"
    assert sorted(p.name for p in tmp_path.glob(f"{verifying.APART}*")) == [".restore-link"]
    assert elsewhere.exists()


# The schedule.


class Clock(SystemClock):
    """Wall time as the test says."""

    now = 1_800_000_000.0  # 2027-01-15T08:00:00Z

    def wall(self):
        return self.now


HOUR = 3600.0


@pytest.fixture
async def arranged(tmp_path):
    config = ControllerConfig(state_dir=tmp_path / "s", run_dir=tmp_path / "run")
    clock = Clock()
    backups, engine = await controller(config, clock)
    yield backups, clock, config, tmp_path / "to"
    await engine.close()


def wish(folder, **more):
    given = {"cron": "0 * * * *", "to": str(folder), "keep": 2, "passphrase": WORDS, **more}
    return ScheduleBackups(**given)


async def test_a_backup_is_made_when_it_is_due_and_missed_ones_once(arranged):
    backups, clock, config, folder = arranged
    await backups.arrange(wish(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not await backups.step(), "what was due before it was arranged is not"
    clock.now += HOUR
    assert await backups.step()
    assert not await backups.step()
    clock.now += 100 * HOUR + 60
    assert await backups.step(), "a hundred missed ones are caught up"
    assert not await backups.step(), "by one"
    first, second = keeping.rows(folder)
    assert first.made_at > second.made_at
    assert {row.scheduled for row in (first, second)} == {True}
    assert os.stat(first.file).st_mode & 0o777 == 0o600
    found = await asyncio.to_thread(verified, Path(first.file))
    assert found.check.errors == ()
    assert not list(config.folder.glob(".backup-*"))


async def test_the_passphrase_is_nowhere(arranged, tmp_path):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder, passphrase="hunter2-canary"))
    clock.now += HOUR
    assert await backups.step()
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"canary" not in path.read_bytes(), path


async def test_only_its_own_oldest_go(arranged):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    folder.joinpath("notes.backup").write_text("somebody's")
    async with backups.made(MakeBackup(plain=True)) as (path, name):
        shutil.copy(path, folder / name)
    other = envelope.Head(cluster="c-other", made_at=5.0, scheduled=True)
    with (folder / "other.backup").open("wb") as out:
        envelope.write(out, other, [], None)
    (folder / f".{backups._identity().id}-abcdefabcdef.backup").write_text("of one that was killed")
    (folder / ".c-other-abcdefabcdef.backup").write_text("another cluster is at it")
    for _ in range(4):
        clock.now += HOUR
        assert await backups.step()
    names = {path.name for path in folder.iterdir()}
    assert {"notes.backup", name, "other.backup", ".c-other-abcdefabcdef.backup"} < names
    assert len(names) == 6, "law: and the two newest of its own"
    rows = keeping.rows(folder)
    assert [row.made_at for row in rows if row.scheduled and row.cluster != "c-other"] == [
        clock.now,
        clock.now - HOUR,
    ]
    assert any(row.trouble for row in rows)


def test_which_ones_are_too_many():
    def row(file, at, **more):
        return BackupRow(file=file, made_at=at, **{"cluster": "c", "scheduled": True, **more})

    rows = [
        row("old", 1),
        row("new", 3),
        row("mid", 2),
        row("hand", 0, scheduled=False),
        row("other", 0, cluster="d"),
        row("broken", 0, trouble="it is cut"),
    ]
    assert keeping.surplus(rows, "c", 2, now=3) == ["old"]
    assert keeping.surplus(rows, "c", 0, now=3) == ["mid", "old"], "one always stays"
    assert keeping.surplus(rows, "c", 2, now=2) == ["new"], "a clock was set back since"
    assert keeping.surplus(rows, "c", 1, now=1) == ["new", "mid"], "never what was just made"


def test_the_newest_of_a_full_folder_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "MOST", 3)
    for number in range(9):
        (tmp_path / f"a-{number}.txt").write_text("somebody's")
        (tmp_path / keeping.file_name(f"c{9 - number}", 1e9 + number)).write_text("a backup")
    assert [
        Path(row.file).name for row in sorted(keeping.rows(tmp_path), key=lambda r: r.file)
    ] == [keeping.file_name(f"c{9 - number}", 1e9 + number) for number in (8, 7, 6)]


async def test_a_failure_is_told_and_tried_again_later(arranged):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    clock.now += HOUR
    shutil.rmtree(folder)
    folder.write_text("a file is in the way")
    assert not await backups.step()
    assert "the backup that was due was not made" in backups.warning
    status = await backups.status()
    assert status.failure
    assert status.warning
    folder.unlink()
    folder.mkdir()
    assert not await backups.step(), "not at once"
    clock.now += making.FIRST_AGAIN
    assert await backups.step()
    assert backups.warning == ""
    assert (await backups.status()).last_at == clock.now


async def test_a_disk_that_is_not_mounted_is_not_written_beside(arranged, monkeypatch):
    backups, clock, _, folder = arranged
    real = making._mount_of
    monkeypatch.setattr(making, "_mount_of", lambda path: "/mnt/nas")
    await backups.arrange(wish(folder))
    clock.now += HOUR
    monkeypatch.setattr(making, "_mount_of", real)
    assert not await backups.step()
    assert "was on the disk mounted at /mnt/nas" in backups.warning
    assert list(folder.iterdir()) == []
    folder.rmdir()
    clock.now += HOUR
    assert not await backups.step()
    assert "is its disk mounted?" in backups.warning
    assert not folder.exists(), "law: it is not made where the disk is away"


class FullDisk:
    """The disk of a path is full from the n-th write on."""

    def __init__(self, monkeypatch, after):
        self.left = after
        real = envelope._Blocks._block

        def block(this, data, *, last):
            if self.left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= 1
            real(this, data, last=last)

        monkeypatch.setattr(envelope._Blocks, "_block", block)


async def test_a_full_disk_leaves_no_half_file(arranged, monkeypatch):
    backups, clock, config, folder = arranged
    await backups.arrange(wish(folder))
    clock.now += HOUR
    FullDisk(monkeypatch, 0)
    assert not await backups.step()
    assert "no space is left" in backups.warning
    assert list(folder.iterdir()) == []
    assert not list(config.folder.glob(".backup-*"))
    with pytest.raises(Unavailable, match="no space"):
        async with backups.made(MakeBackup(plain=True)):
            pytest.fail("there is none")


async def test_a_store_that_cannot_copy_itself_is_a_failure_with_words(arranged, monkeypatch):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    clock.now += HOUR

    async def full(_target):
        raise StoreUnavailable("copying state.db: no space is left on its disk")

    monkeypatch.setattr(backups._engine, "backup", full)
    assert not await backups.step()
    assert "no space is left on its disk" in backups.warning


async def test_a_schedule_survives_a_restart_and_ends_when_asked(arranged):
    backups, clock, config, folder = arranged
    await backups.arrange(wish(folder))
    (config.folder / ".backup-killed").mkdir()
    again = Backups(
        engine=backups._engine,
        store=backups._store,
        config=config,
        cluster=Nobody(),
        identity=backups._identity,
        sealer=backups._sealer,
        clock=clock,
    )
    await again.open()
    assert not list(config.folder.glob(".backup-*")), "what a killed one left goes"
    clock.now += HOUR
    assert await again.step()
    status = await again.status()
    assert (status.cron, status.keep, status.encrypted) == ("0 * * * *", 2, True)
    assert status.next_at == clock.now + HOUR
    status = await again.arrange(ScheduleBackups())
    assert status.cron == ""
    clock.now += HOUR
    assert not await again.step()
    assert len(keeping.rows(folder)) == 1, "what there is stays"


async def test_a_superseded_controller_makes_none(arranged):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    clock.now += HOUR
    backups._stale = lambda: "a newer one has spoken"
    assert not await backups.step()
    assert list(folder.iterdir()) == []
    assert backups.warning == "", "lists say already that it is superseded"
    backups._stale = str
    assert await backups.step()


@pytest.mark.parametrize("keep", [1, 2])
async def test_a_clock_set_back_does_not_silence_it(arranged, keep):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder, keep=keep))
    clock.now += 1000 * HOUR
    assert await backups.step()
    clock.now -= 900 * HOUR
    for _ in range(3):
        clock.now += HOUR
        assert await backups.step(), "what is of the future does not count"
        assert clock.now in {row.made_at for row in keeping.rows(folder)}, "law: the new one stays"


async def test_a_slow_reader_holds_up_nobody(arranged):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    async with backups.made(MakeBackup(plain=True)) as (path, _):
        clock.now += HOUR
        async with asyncio.timeout(30.0):
            assert await backups.step()
        assert envelope.peek(path).cluster == backups._identity().id


async def test_an_old_one_that_cannot_go_is_no_reason_to_make_more(arranged, monkeypatch, caplog):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder, keep=1))
    unlink, stays = Path.unlink, set()

    def failing(self, missing_ok=False):
        if self.name in stays:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self))
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", failing)
    for _ in range(4):
        clock.now += HOUR
        assert await backups.step()
        assert not await backups.step(), "law: one for each time that is due"
        assert backups.warning == ""
        stays = stays or {path.name for path in folder.iterdir()}
    assert [row.made_at for row in keeping.rows(folder)] == [clock.now, clock.now - 3 * HOUR]
    assert "an old backup stays" in caplog.text


async def test_what_nobody_got_was_not_made(config, agent, tmp_path, monkeypatch, caplog):
    async def gone(self, data):
        raise ConnectionResetError("Cannot write to closing transport")

    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        with monkeypatch.context() as patched:
            patched.setattr(web.StreamResponse, "write", gone)
            with pytest.raises(aiohttp.ClientError):
                await downloaded(client, tmp_path / "b", plain=True)
        assert (await client.call("GET", "/v1/backups"))["last_at"] == 0
        assert "request failed" not in caplog.text
        assert not list(config.folder.glob(".backup-*"))
        await downloaded(client, tmp_path / "b", plain=True)
        assert (await client.call("GET", "/v1/backups"))["last_at"] > 0


async def test_a_disk_that_does_not_answer_is_told(arranged, monkeypatch):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    asked, answers = asyncio.Event(), threading.Event()
    loop, there = asyncio.get_running_loop(), making._still_there

    def hung(*arguments):
        loop.call_soon_threadsafe(asked.set)
        assert answers.wait(60.0)
        there(*arguments)

    monkeypatch.setattr(making, "_still_there", hung)
    monkeypatch.setattr(making, "BUSY", 0.05)
    monkeypatch.setattr(making, "SLOW", 0.0)
    clock.now += HOUR
    step = asyncio.create_task(backups.step())
    try:
        await asked.wait()
        assert f"does {folder} answer?" in backups.warning
        with pytest.raises(Unavailable, match="another backup is being made"):
            async with backups.made(MakeBackup(plain=True)):
                pass
    finally:
        answers.set()
    assert await step
    assert backups.warning == ""
    async with backups.made(MakeBackup(plain=True)) as (path, _):
        assert path.exists()


async def test_a_disk_that_does_not_answer_holds_up_no_list_and_one_thread(arranged, monkeypatch):
    backups, _, _, folder = arranged
    await backups.arrange(wish(folder))
    answers, asked = threading.Event(), []

    def hung(_folder):
        asked.append(1)
        assert answers.wait(60.0)
        return []

    monkeypatch.setattr(keeping, "rows", hung)
    monkeypatch.setattr(making, "LISTING", 0.05)
    try:
        for _ in range(3):
            found = await backups.status()
            assert f"{folder} does not answer" in found.warning
            assert found.files == ()
            assert found.to == str(folder)
        assert len(asked) == 1, "law: a dead disk takes one thread, however often it is asked"
    finally:
        answers.set()
    monkeypatch.undo()
    await backups.listed()
    assert "does not answer" not in (await backups.status()).warning


async def test_a_key_that_does_not_open_is_a_failure_with_words(arranged):
    backups, clock, _, folder = arranged
    await backups.arrange(wish(folder))
    sealed = base64.b64decode(backups._schedule["key"])
    backups._schedule["key"] = base64.b64encode(sealed[:-1] + bytes([sealed[-1] ^ 1])).decode()
    clock.now += HOUR
    assert not await backups.step()
    assert "the backup that was due was not made" in backups.warning


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cron": "0 0 30 2 *"}, "never comes"),
        ({"to": "there"}, "absolute folder"),
        ({"to": ""}, "absolute folder"),
        ({"to": "SELF"}, "the controller's own folder"),
        ({"keep": 0}, "--keep 0"),
        ({"keep": 10_000}, "--keep 10000"),
        ({"passphrase": ""}, "passphrase is empty"),
        ({"plain": True}, "exclude each other"),
        ({"to": "/proc/nowhere"}, "cannot be written"),
    ],
)
async def test_what_is_no_schedule_is_refused(arranged, change, words):
    backups, _, config, folder = arranged
    if change.get("to") == "SELF":
        change = {"to": str(config.folder / "inside")}
    with pytest.raises(RequestError, match=words):
        await backups.arrange(wish(folder, **change))
    assert (await backups.status()).cron == ""


async def test_a_failure_is_told_beside_lists(config, agent, tmp_path):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"] and a["nodes"][0]["status"] == "ready")
        for path in ("/v1/nodes", "/v1/stacks"):
            assert (await client.call("GET", path))["warnings"] == []
        body = wish(tmp_path / "to", cron="* * * * *").model_dump()
        await client.call("PUT", "/v1/backups/schedule", json=body)
    note = {"failure": "no space is left on the disk", "made_at": 1.0}
    (config.folder / making.NOTE).write_text(json.dumps(note))
    (tmp_path / "to").rmdir()
    (tmp_path / "to").write_text("in the way")
    async with running(config) as client:
        for path in ("/v1/nodes", "/v1/stacks"):
            found = await client.until(path, lambda a: a["warnings"])
            assert "was not made" in found["warnings"][0]


def test_the_settings_name_the_machine(monkeypatch):
    found = contents.settings_of((), {"CORRAL_HEARTBEAT": "1", "PATH": "/bin", "SECRET": "x"})
    assert found.environment == {"CORRAL_HEARTBEAT": "1"}


def test_an_address_of_ones_own_is_told_from_anothers():
    assert restoring.is_own("127.0.0.1")
    assert not restoring.is_own("192.0.2.77")
    assert not restoring.is_own("not an address")
