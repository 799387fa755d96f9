"""What tells of an environment is sealed in the store: in every file of it, history included."""

from __future__ import annotations

import asyncio
import random

import pytest

from orchestrator.keys.sealing import SEALED, SealedStore
from orchestrator.keys.vault import Vault
from orchestrator.store import keys
from orchestrator.store.base import Compare, Damaged, Delete, Put
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.test_controller import agent, all_ready, config, running
from tests.orchestrator.test_state import project

__all__ = ["agent", "config"]

KEY = bytes(range(32))
CANARY = "hunter2-canary"
NAMES = [f"{prefix}{name}" for prefix in (*SEALED, keys.NODES, keys.CONTENTS) for name in "abc"]
PREFIXES = ("", "/", *SEALED, keys.NODES, "/parts/a", "/tasks/a", "/x")


def sealed(engine=None, key=KEY):
    return SealedStore(engine or MemoryStore(), Vault(key))


KINDS = {
    # what lies there -> may it tell of an environment, a password of a share, a hash of them
    keys.PARTS: True,
    keys.RELEASES: True,
    keys.TASKS: True,
    keys.ONEOFFS: True,  # the service as `run -e` made it
    keys.VOLUMES: True,  # driver_opts: o: password=...
    keys.EVENTS: True,  # what a health check said last
    keys.STACKS: False,
    keys.SCHEDULES: False,  # when, and how it ended: what runs is in one-offs and events
    keys.NODES: False,
    keys.NETWORKS: False,
    keys.BLOCKS: False,
    keys.RESTING: False,
    keys.VIPS: False,
    keys.CONTENTS: False,  # sealed one by one
    keys.BOUND_PATHS: False,
    keys.IDEMPOTENCY: False,
    keys.CLUSTER: False,
    keys.AUTHORITY: False,  # its key is sealed
    keys.BACKUP: False,  # the key it encrypts with is sealed
}


def test_which_records_are_sealed():
    known = {v for name, v in vars(keys).items() if name.isupper() and v.startswith("/")}
    assert known == set(KINDS), "law: whoever adds a kind says whether it has secrets"
    assert set(SEALED) == {kind for kind, secret in KINDS.items() if secret}


async def collected(store, prefix, after, revision):
    found = []
    async for batch in store.watch(prefix, after):
        found.append(batch)
        if batch.revision >= revision:
            return found
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_it_answers_as_the_engine_it_wraps(seed):
    rng = random.Random(seed)
    plain, ours = MemoryStore(), sealed()
    for number in range(60):
        chosen = rng.sample(NAMES, rng.randint(1, 4))
        versions = {e.key: e.version for e in (await plain.list("/")).entries}
        compares = tuple(
            Compare(key, versions.get(key, 0) if rng.random() < 0.8 else 0)
            for key in rng.sample(NAMES, rng.randint(0, 2))
        )
        writes = tuple(
            Delete(key) if rng.random() < 0.3 else Put(key, b'{"n": %d}' % number) for key in chosen
        )
        assert await plain.txn(compares, writes) == await ours.txn(compares, writes)
    for key in NAMES:
        assert await plain.get(key) == await ours.get(key)
    for prefix in PREFIXES:
        assert await plain.list(prefix) == await ours.list(prefix), prefix
    end = await plain.txn(writes=(Put("/zz", b"{}"), *(Put(f"{p}end", b"{}") for p in SEALED)))
    await ours.txn(writes=(Put("/zz", b"{}"), *(Put(f"{p}end", b"{}") for p in SEALED)))
    for prefix in ("", *SEALED):
        told = [await collected(store, prefix, 0, end.revision) for store in (plain, ours)]
        assert told[0] == told[1], prefix


async def test_the_engine_sees_neither_specs_nor_hashes_to_try_guesses_at():
    engine = MemoryStore()
    store = sealed(engine)
    digest = "d" * 64
    value = f'{{"password": "{CANARY}", "hash": "{digest}"}}'.encode()
    await store.txn(writes=tuple(Put(f"{prefix}{digest[:20]}", value) for prefix in SEALED[1:]))
    await store.txn(writes=(Put(keys.part(digest), value),))
    entries = (await engine.list("/")).entries
    assert len(entries) == len(SEALED)
    assert not any(CANARY.encode() in e.value or digest in e.key for e in entries)
    again = sealed(engine)
    assert (await again.get(keys.part(digest))).value == value, "law: equal specs are one part"
    assert (await again.txn((Compare(keys.part(digest), 0),))).failed == keys.part(digest)


@pytest.mark.parametrize("when", ["sealed", "in the clear"])
async def test_what_an_older_version_wrote_is_read_changed_and_sealed(when):
    engine = MemoryStore()
    old = {key: b'{"was": "%s"}' % CANARY.encode() for key in NAMES if key.startswith(SEALED)}
    for key, value in old.items():
        await engine.txn(writes=(Put(key, value),))
    await engine.txn(writes=(Put(keys.node("a"), b'{"a": 1}'),))
    store = sealed(engine)
    if when == "sealed":
        assert await store.seal_all() == len(old)
        assert await store.seal_all() == 0
        raw = (await engine.list("/")).entries
        assert not any(CANARY.encode() in entry.value for entry in raw)
    listed = {e.key: e for e in (await store.list("/")).entries}
    assert {key: e.value for key, e in listed.items()} == old | {keys.node("a"): b'{"a": 1}'}
    for key in old:
        assert await sealed(engine).get(key) == listed[key], "also where nobody listed it before"
    part = keys.part("a")
    refused = await store.txn((Compare(part, 999),), (Delete(part),))
    assert refused.failed == part
    done = await store.txn((Compare(part, listed[part].version),), (Delete(part),))
    assert done.ok
    assert await store.get(part) is None
    assert part not in {e.key for e in (await store.list("/")).entries}


async def test_a_value_in_anothers_place_or_under_another_key_is_refused_with_words():
    engine = MemoryStore()
    await sealed(engine).txn(writes=(Put(keys.task("s", "a"), b"{}"), Put(keys.part("p"), b"{}")))
    with pytest.raises(Damaged, match="key file"):
        await sealed(engine, key=bytes(32)).list("/")
    stolen = await engine.get(keys.task("s", "a"))
    await engine.txn(writes=(Put(keys.task("s", "b"), stolen.value),))
    with pytest.raises(Damaged, match="another's"):
        await sealed(engine).get(keys.task("s", "b"))


# The whole controller: its files.


def secretive(value):
    made = project("shop")
    made["services"]["web"]["environment"] = {"DB_PASSWORD": value}
    made["services"]["web"]["command"] = ["serve", "--as", value]
    made["services"]["web"]["post_start"] = [{"command": ["x"], "environment": {"A_KEY": value}}]
    mount = {"type": "volume", "source": "share", "target": "/share"}
    made["services"]["web"]["volumes"] = [mount]
    share = {"type": "cifs", "device": "//192.0.2.1/s", "o": f"username=u,password={value}"}
    made["volumes"] = {"share": {"name": "shop_share", "driver_opts": share}}
    return made


def files_with(config, text):
    """Return the files of the controller's folder that have the text anywhere in their bytes."""
    return [p.name for p in config.folder.rglob("*") if p.is_file() and text in p.read_bytes()]


def by_hand(value):
    share = {"type": "cifs", "device": "//192.0.2.1/s", "o": f"username=u,password={value}"}
    return {"name": "other", "options": share}


async def up(client, key, value):
    await client.call(
        "POST", "/v1/stacks/shop/releases", json={"key": key, "project": secretive(value)}
    )
    await client.until("/v1/stacks/shop/tasks", all_ready(1))


async def test_no_file_of_the_controller_has_an_environment_at_any_time(config, agent):
    canary = CANARY.encode()
    async with running(config) as client:
        await up(client, "k1", CANARY)
        assert files_with(config, canary) == [], "law: nor has the log beside the file"
        await client.call("POST", "/v1/volumes", json=by_hand(CANARY))
        assert files_with(config, canary) == [], "law: nor of a volume made by hand"
        shown = await client.call("GET", "/v1/volumes")
        assert {row["options"]["o"] for row in shown["volumes"]} == {"username=u,password=***"}
        assert CANARY not in str(shown)
        tasks = await client.call("GET", "/v1/stacks/shop/tasks")
        await up(client, "k2", CANARY)
        again = await client.call("GET", "/v1/stacks/shop/tasks")
        assert [t["id"] for t in again["tasks"]] == [t["id"] for t in tasks["tasks"]], (
            "law: an unchanged spec replaces nothing"
        )
    async with running(config) as client:
        await client.until("/v1/stacks/shop/tasks", all_ready(1))
        spec = next(iter(agent.simulated.containers.alive))
        assert spec == tasks["tasks"][0]["id"]
        await client.call("DELETE", "/v1/stacks/shop")
        await client.until("/v1/stacks", lambda a: not a["stacks"])
        assert files_with(config, canary) == []
    assert files_with(config, canary) == []


async def test_a_state_file_of_an_earlier_version_is_sealed_when_it_is_opened(config, agent):
    canary = CANARY.encode()
    async with running(config) as client:
        await up(client, "k1", CANARY)
        tasks = await client.call("GET", "/v1/stacks/shop/tasks")
    # As the version before wrote it: every record in the clear, parts under their hash.
    engine = await SqliteStore.open(config.database)
    store = SealedStore(engine, Vault(config.key.read_bytes()))
    for entry in (await store.list("/")).entries:
        if entry.key.startswith(SEALED):
            place = store._place(entry.key)
            await engine.txn(writes=(Delete(place),))
            await engine.txn(writes=(Put(entry.key, entry.value),))
    await engine.close()
    assert files_with(config, canary) == ["state.db"]
    async with running(config) as client:
        assert files_with(config, canary) == [], "law: nothing is left of it in file or log"
        found = await client.until("/v1/stacks/shop/tasks", all_ready(1))
        assert [t["id"] for t in found["tasks"]] == [t["id"] for t in tasks["tasks"]]
        await asyncio.sleep(0)
