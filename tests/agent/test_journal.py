"""The journal: what was acknowledged survives, what was torn is dropped, who may instruct."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tasks import lifecycle, steps
from agent.tasks.held import Held, judge, merge
from agent.tasks.journal import Journal, safe_id
from specs.wire import PROTOCOL, Content, Instructions, NodeSelf, Objects, Stamp
from tests.agent.test_lifecycle import running, task

ME = NodeSelf(node="n1", name="one")


def journal(tmp_path):
    return Journal(tmp_path / "journal", tmp_path / "tasks", tmp_path / "run")


def instructions(generation, base=None, epoch=1, cluster="c", remove=None, **put):
    return Instructions(
        stamp=Stamp(cluster=cluster, epoch=epoch, generation=generation),
        me=ME,
        base=base,
        put=Objects(**put),
        remove=remove or {},
    )


def take(journal, held, one):
    assert judge(held.stamp, one) is None
    after = merge(held, one)
    journal.accept(one, after)
    return after


def named(name, desired="running"):
    return task(desired).model_copy(update={"id": name, "name": name})


def test_full_then_increments_survive(tmp_path):
    one = journal(tmp_path)
    held = take(one, Held(), instructions(1, tasks={"a": named("a"), "b": named("b")}))
    held = take(
        one, held, instructions(2, base=1, tasks={"c": named("c")}, remove={"tasks": ("a",)})
    )
    again = journal(tmp_path).load()
    assert again.objects == held.objects
    assert sorted(again.objects.tasks) == ["b", "c"]
    assert again.stamp.generation == 2
    assert again.me == ME


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_writing_goes_on(tmp_path, cut):
    one = journal(tmp_path)
    held = take(one, Held(), instructions(1, tasks={"a": named("a")}))
    take(one, held, instructions(2, base=1, tasks={"b": named("b")}))
    file = tmp_path / "journal/set.log"
    file.write_bytes(file.read_bytes()[:-cut])
    two = journal(tmp_path)
    held = two.load()
    assert held.stamp.generation == 1
    take(two, held, instructions(2, base=1, tasks={"c": named("c")}))
    assert sorted(journal(tmp_path).load().objects.tasks) == ["a", "c"]


def test_a_flipped_byte_is_noticed(tmp_path):
    one = journal(tmp_path)
    held = take(one, Held(), instructions(1, tasks={"a": named("a")}))
    take(one, held, instructions(2, base=1, tasks={"b": named("b")}))
    file = tmp_path / "journal/set.log"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    assert journal(tmp_path).load().stamp.generation == 1


SEEN = Stamp(cluster="c", epoch=5, generation=10)


@pytest.mark.parametrize(
    ("seen", "one", "reason"),
    [
        (None, instructions(1), None),
        (None, instructions(2, base=1), "base"),
        (SEEN, instructions(11, base=10, epoch=5), None),
        (SEEN, instructions(11, epoch=5), None),
        (SEEN, instructions(10, epoch=5), None),
        (SEEN, instructions(10, base=9, epoch=5), None),
        (SEEN, instructions(12, base=11, epoch=5), "base"),
        (SEEN, instructions(9, epoch=5), "base"),
        (SEEN, instructions(9, base=8, epoch=5), "base"),
        (SEEN, instructions(99, epoch=4), "epoch"),
        (SEEN, instructions(99, base=10, epoch=4), "epoch"),
        (SEEN, instructions(1, epoch=6), None),
        (SEEN, instructions(11, base=10, epoch=6), "base"),
        (SEEN, instructions(11, base=10, epoch=5, cluster="d"), "cluster"),
        (SEEN, instructions(11, epoch=9, cluster="d"), "cluster"),
    ],
)
def test_who_may_instruct(seen, one, reason):
    refused = judge(seen, one)
    assert (refused.reason if refused else None) == reason


@given(st.lists(st.integers(1, 8), max_size=12))
def test_generations_never_go_back_and_repeats_change_nothing(generations):
    held = merge(Held(), instructions(0))
    for generation in generations:
        one = instructions(
            generation, base=held.stamp.generation, tasks={f"t{generation}": named("x")}
        )
        if judge(held.stamp, one) is not None:
            continue
        after = merge(held, one)
        assert after.stamp.generation >= held.stamp.generation
        assert merge(after, one).objects == after.objects
        held = after


def test_secrets_never_reach_the_disk_and_configs_survive(tmp_path):
    one = journal(tmp_path)
    canary = "c2VjcmV0LWNhbmFyeQ=="
    contents = {
        "s1": Content(id="s1", data=canary, secret=True),
        "c1": Content(id="c1", data="Y29uZmln"),
    }
    take(one, Held(), instructions(1, contents=contents))
    disk = [p for top in ("journal", "tasks") for p in (tmp_path / top).rglob("*") if p.is_file()]
    assert disk
    assert not any(canary.encode() in path.read_bytes() for path in disk)
    assert journal(tmp_path).load().objects.contents == contents
    for path in (tmp_path / "run/contents").iterdir():
        path.unlink()  # a reboot
    assert sorted(journal(tmp_path).load().objects.contents) == ["c1"]


def test_records_prefer_this_boots_and_outlive_it_where_asked(tmp_path):
    one = journal(tmp_path)
    record = running()
    one.put(record, disk=True)
    one.put(lifecycle.stopping(record, steps.Signal("restart"), 3.0))
    assert one.records()["t1"].stopping == "restart"
    (tmp_path / "run/records/t1").unlink()
    assert one.records()["t1"] == record.model_copy(update={"wire": PROTOCOL})
    one.forget("t1")
    assert one.records() == {}
    assert one.strays(set()) == set()


def test_a_damaged_record_is_a_stray_not_a_crash(tmp_path):
    one = journal(tmp_path)
    one.put(running(), disk=True)
    for path in (tmp_path / "run/records/t1", tmp_path / "tasks/t1/record.json"):
        path.write_bytes(b"{")
    assert one.records() == {}
    assert one.strays(set()) == {"t1"}


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "../x", "-x", "a" * 200, "a\n", ".hidden", "a..b"]
)
def test_ids_that_are_no_file_names(text):
    assert not safe_id(text)


def test_records_that_were_tidied_away_are_written_again(tmp_path):
    """The folders of /run are people's and tmp reapers' to empty; what is known is not lost."""
    one = journal(tmp_path)
    known = running()
    one.put(known)
    assert one.whole()
    for folder in ("records", "contents"):
        shutil.rmtree(tmp_path / "run" / folder)
    assert not one.whole()
    with pytest.raises(OSError, match="No such file"):
        one.put(known)
    gone = lifecycle.erased(running()).having(id="t2")
    one.restore([known, gone])
    assert one.whole()
    assert [path.name for path in (tmp_path / "run/records").iterdir()] == [known.id], (
        "law: of what is erased nothing is written: nobody would take it away again"
    )
    one.put(known)
    again = journal(tmp_path)
    assert again.records()[known.id].phase is known.phase
    take(again, Held(), instructions(1, contents={"s": Content(id="s", data="eA==", secret=True)}))
