"""What every engine promises (orchestrator/store/base.py), asked of each of them."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.store.base import (
    MAX_OPERATIONS,
    MAX_TRANSACTION,
    MAX_VALUE,
    Change,
    Compacted,
    Compare,
    Delete,
    Put,
    Result,
    Stored,
    StoreUnavailable,
    TooLarge,
)
from tests.orchestrator.store.conftest import KEEP


async def put(store, key, value=b"x"):
    result = await store.txn(writes=(Put(key, value),))
    assert result.ok
    return result.revision


async def take(batches, count):
    found = []
    async with asyncio.timeout(300):
        while len(found) < count:
            found.append(await anext(batches))
    return found


async def test_an_empty_store_has_revision_zero(store):
    assert await store.get("/a") is None
    assert (await store.list("/")).revision == 0


async def test_what_was_put_is_read_back_with_its_revision(store):
    first = await put(store, "/a", b"1")
    second = await put(store, "/b", b"\x00\xff")

    assert (first, second) == (1, 2)
    assert await store.get("/a") == Stored("/a", b"1", 1)
    assert await store.get("/b") == Stored("/b", b"\x00\xff", 2)


async def test_putting_the_same_value_again_is_a_change(store):
    await put(store, "/a", b"1")
    assert await put(store, "/a", b"1") == 2


async def test_a_list_is_sorted_and_cut_to_the_prefix(store):
    for key in ("/b/2", "/a", "/b/10", "/b", "/b/é", "/c", "/b0", "/b/\ud7fb", "/b/😀"):
        await put(store, key)

    snapshot = await store.list("/b/")

    assert [e.key for e in snapshot.entries] == ["/b/10", "/b/2", "/b/é", "/b/\ud7fb", "/b/😀"]
    assert snapshot.revision == 9
    assert len((await store.list("/")).entries) == 9
    assert len((await store.list("")).entries) == 9


async def test_a_list_with_a_percent_sign_is_no_pattern(store):
    await put(store, "/a_b")
    assert (await store.list("/a%")).entries == ()
    assert (await store.list("/a?")).entries == ()


async def test_a_compare_that_does_not_hold_writes_nothing_and_names_the_key(store):
    await put(store, "/a", b"1")

    result = await store.txn(
        compares=(Compare("/a", 1), Compare("/b", 7)), writes=(Put("/a", b"2"), Put("/c", b""))
    )

    assert result == Result(ok=False, revision=1, failed="/b")
    assert await store.get("/a") == Stored("/a", b"1", 1)
    assert await store.get("/c") is None


async def test_version_zero_means_must_not_exist(store):
    assert (await store.txn((Compare("/a", 0),), (Put("/a", b"1"),))).ok
    assert not (await store.txn((Compare("/a", 0),), (Put("/a", b"2"),))).ok
    await store.txn(writes=(Delete("/a"),))
    assert (await store.txn((Compare("/a", 0),), (Put("/a", b"3"),))).ok


async def test_all_writes_of_a_transaction_share_one_revision(store):
    await put(store, "/old")
    result = await store.txn(writes=(Put("/a", b"1"), Put("/b", b"2"), Delete("/old")))

    snapshot = await store.list("/")
    assert result.revision == snapshot.revision == 2
    assert [(e.key, e.version) for e in snapshot.entries] == [("/a", 2), ("/b", 2)]


async def test_a_transaction_that_changes_nothing_keeps_the_revision(store):
    await put(store, "/a")

    assert await store.txn(writes=(Delete("/b"),)) == Result(ok=True, revision=1)
    assert await store.txn(compares=(Compare("/a", 1),)) == Result(ok=True, revision=1)
    assert await store.txn() == Result(ok=True, revision=1)


async def test_of_concurrent_creates_one_wins(store):
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(store.txn((Compare("/leader", 0),), (Put("/leader", b"%d" % n),)))
            for n in range(20)
        ]
    results = [task.result() for task in tasks]

    winners = [n for n, result in enumerate(results) if result.ok]
    assert len(winners) == 1
    assert (await store.get("/leader")).value == b"%d" % winners[0]
    assert (await store.list("/")).revision == 1


async def test_concurrent_transactions_have_consecutive_revisions(store):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(put(store, f"/k/{n}")) for n in range(40)]
    assert sorted(task.result() for task in tasks) == list(range(1, 41))


@pytest.mark.parametrize(
    "writes",
    [
        tuple(Put(f"/{n}", b"") for n in range(MAX_OPERATIONS + 1)),
        (Put("/a", bytes(MAX_VALUE + 1)),),
        (Put("/a", bytes(MAX_VALUE)), Put("/b", bytes(MAX_TRANSACTION - MAX_VALUE))),
    ],
    ids=["operations", "value", "transaction"],
)
async def test_over_a_limit_nothing_is_written(store, writes):
    with pytest.raises(TooLarge):
        await store.txn(writes=writes)
    assert (await store.list("/")).entries == ()


async def test_at_the_limits_it_is_written(store):
    many = tuple(Put(f"/{n:03}", b"") for n in range(MAX_OPERATIONS))
    assert (await store.txn(writes=many)).ok
    big = (Put("/a", bytes(MAX_VALUE)), Put("/b", bytes(MAX_TRANSACTION - MAX_VALUE - 4)))
    assert (await store.txn(writes=big)).ok


@pytest.mark.parametrize("key", ["", "a", "/a\0b", "/a\nb", "/\ud800"])
async def test_a_malformed_key_is_our_mistake(store, key):
    with pytest.raises(ValueError, match="store key"):
        await store.txn(writes=(Put(key, b""),))


async def test_a_key_written_twice_in_a_transaction_is_our_mistake(store):
    with pytest.raises(ValueError, match="twice"):
        await store.txn(writes=(Put("/a", b""), Delete("/a")))


async def test_a_watch_yields_each_change_under_the_prefix_once_and_in_order(store):
    await put(store, "/w/a", b"1")
    await put(store, "/other")
    await store.txn(writes=(Put("/w/b", b"2"), Delete("/w/a"), Put("/elsewhere", b"")))
    batches = store.watch("/w/", 0)
    seen = await take(batches, 2)
    await put(store, "/w/c", b"3")
    seen += await take(batches, 1)

    assert [batch.revision for batch in seen] == [1, 3, 4]
    assert seen[1].changes == (Change("/w/b", b"2", 3), Change("/w/a", None, 3))
    await batches.aclose()


async def test_a_watch_starts_after_the_given_revision(store):
    for n in range(3):
        await put(store, f"/{n}")
    batches = store.watch("/", 2)
    assert [b.revision for b in await take(batches, 1)] == [3]
    await batches.aclose()


async def test_who_was_told_of_its_write_finds_it_in_the_watch_at_once(store):
    batches = store.watch("/", 0)
    await put(store, "/a")
    seen = anext(batches)
    with pytest.raises(StopIteration) as stop:
        seen.send(None)  # ready without waiting
    assert stop.value.value.revision == 1
    await batches.aclose()


async def test_listing_and_watching_from_there_misses_nothing(store):
    snapshot = await store.list("/")
    mirror = {}

    async def follow():
        async for batch in store.watch("/", snapshot.revision):
            for change in batch.changes:
                mirror[change.key] = change.value
            if batch.revision == 30:
                return

    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for n in range(30):
            group.create_task(put(store, f"/k{n % 7}", b"%d" % n))

    assert mirror == {e.key: e.value for e in (await store.list("/")).entries}


async def test_a_watch_from_a_forgotten_revision_says_so(store):
    for n in range(KEEP + 5):
        await put(store, f"/{n}")
    with pytest.raises(Compacted, match="list again"):
        await anext(store.watch("/", 4))
    kept = store.watch("/", 5)
    assert (await anext(kept)).revision == 6
    await kept.aclose()


async def test_a_watcher_that_falls_behind_is_told(store):
    batches = store.watch("/", 0)
    await put(store, "/a")
    await take(batches, 1)
    for n in range(KEEP + 1):
        await put(store, f"/{n}")
    with pytest.raises(Compacted):
        await anext(batches)


async def test_after_compaction_an_up_to_date_watch_goes_on(store):
    await put(store, "/a")
    behind, current = store.watch("/", 0), store.watch("/", 1)
    store.compact()
    with pytest.raises(Compacted):
        await anext(behind)
    await put(store, "/b")
    assert [b.revision for b in await take(current, 1)] == [2]
    await current.aclose()


async def test_a_watch_from_the_future_is_refused(store):
    """The store was restored from a backup: what the watcher saw never happened here."""
    with pytest.raises(Compacted):
        await anext(store.watch("/", 3))


async def test_closing_ends_watches_and_refuses_the_rest(store):
    batches = store.watch("/", 0)
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        waiting = group.create_task(pytest_raises_unavailable(batches))
        await asyncio.sleep(0)
        await store.close()
    assert waiting.result()
    for call in (store.get("/a"), store.list("/"), store.txn(writes=(Put("/a", b""),))):
        with pytest.raises(StoreUnavailable):
            await call
    await store.close()


async def pytest_raises_unavailable(batches):
    with pytest.raises(StoreUnavailable):
        await anext(batches)
    return True
