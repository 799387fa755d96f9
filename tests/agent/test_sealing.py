"""What the agent keeps of tasks on disk is sealed by the node's key, and goes with its stack."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zlib

import pytest

from agent.sealing import MARK, NodeSeal, Unopened, is_sealed, readable
from agent.tasks.held import Held
from agent.tasks.journal import Journal
from agent.tasks.record import Record
from specs.api import Release, Stack
from specs.stack import StackSpec
from specs.wire import Content, KeptRelease
from tests.agent.test_journal import instructions, journal, named, take

CANARY = "hunter2-canary"


def secretive(name, stack="shop"):
    one = named(name)
    spec = one.spec.model_copy(update={"environment": {"DB_PASSWORD": CANARY}})
    return one.model_copy(update={"spec": spec, "stack": stack})


def files(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def in_the_clear(tmp_path, text=CANARY):
    return [str(p) for p in files(tmp_path) if text.encode() in p.read_bytes()]


def told(tmp_path, text):
    """Return the files that say it to whoever has the node's key."""
    seal = NodeSeal(tmp_path / "node.key")
    return sorted(
        p.name for p in files(tmp_path) if text.encode() in readable(seal, p.read_bytes())
    )


# The seal.


@pytest.mark.parametrize("data", [b"", b"{}", b"\0\xff\n" * 9, b"x" * 100_000])
def test_what_was_sealed_opens_in_every_later_life(tmp_path, data):
    key = tmp_path / "state" / "node.key"
    sealed = NodeSeal(key).seal(data)
    assert is_sealed(sealed)
    assert b"\n" not in sealed, "law: one line"
    assert NodeSeal(key).open(sealed) == data
    assert NodeSeal(key).open(sealed + b"\n") == data
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("plain", [b"", b"{", b'{"a": 1}', b"\0\0", b"[]", b"0badcafe {}\n"])
def test_what_an_earlier_version_wrote_is_read_as_it_is(tmp_path, plain):
    assert NodeSeal(tmp_path / "node.key").open(plain) == plain
    assert not (tmp_path / "node.key").exists(), "law: reading makes no key"


def cut(sealed):
    return sealed[:-3]


def turned(sealed):
    middle = len(sealed) // 2
    return (
        sealed[:middle]
        + (b"A" if sealed[middle : middle + 1] != b"A" else b"B")
        + sealed[middle + 1 :]
    )


@pytest.mark.parametrize(
    "damage", [cut, turned, lambda s: MARK, lambda s: MARK + b"AAAA", lambda s: s + b"\0\0"]
)
def test_what_was_changed_does_not_open(tmp_path, damage):
    seal = NodeSeal(tmp_path / "node.key")
    with pytest.raises(Unopened, match="damaged"):
        seal.open(damage(seal.seal(b"text")))


@pytest.mark.parametrize("lost", ["gone", "another's", "damaged", "a folder"])
def test_without_its_key_nothing_opens_and_the_words_say_so(tmp_path, lost):
    key = tmp_path / "node.key"
    sealed = NodeSeal(key).seal(b"text")
    if lost in ("gone", "a folder"):
        key.unlink()
    if lost == "another's":
        key.write_bytes(os.urandom(32))
    if lost == "damaged":
        key.write_bytes(b"half")
    if lost == "a folder":
        key.mkdir()
    with pytest.raises(Unopened, match="key"):
        NodeSeal(key).open(sealed)
    if lost == "a folder":
        with pytest.raises(OSError, match="directory"):
            NodeSeal(key).seal(b"more")
        return
    again = NodeSeal(key)
    assert NodeSeal(key).open(again.seal(b"more")) == b"more", "law: it works on"
    if lost == "damaged":
        assert key.with_name("node.key.damaged").read_bytes() == b"half", "law: kept"


def test_a_key_that_others_could_read_is_closed(tmp_path):
    key = tmp_path / "node.key"
    sealed = NodeSeal(key).seal(b"text")
    key.chmod(0o644)
    assert NodeSeal(key).open(sealed) == b"text"
    assert key.stat().st_mode & 0o777 == 0o600


def test_threads_and_lives_never_use_a_nonce_twice(tmp_path):
    seal, made = NodeSeal(tmp_path / "node.key"), []
    threads = [
        threading.Thread(target=lambda: made.extend(seal.seal(b"") for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made += [NodeSeal(tmp_path / "node.key").seal(b"") for _ in range(10)]
    assert len(set(made)) == 210


# The journal.


def test_no_file_of_the_agent_has_an_environment_in_the_clear(tmp_path):
    one = journal(tmp_path)
    content = {"c1": Content(id="c1", data="Y29uZmln")}
    held = take(one, Held(), instructions(1, tasks={"a": secretive("a")}, contents=content))
    take(one, held, instructions(2, base=1, tasks={"b": secretive("b")}))
    one.put(Record(id="a", assignment=secretive("a"), state="running"), durable=True)
    (tmp_path / "tasks/b").mkdir()
    (tmp_path / "tasks/b/record.json").write_text(f'{{"id": "b", "password": "{CANARY}"')
    assert journal(tmp_path).records().keys() == {"a"}
    (tmp_path / "tasks/b/record.json").unlink()
    assert in_the_clear(tmp_path) == []
    assert in_the_clear(tmp_path, "Y29uZmln") == []
    again = journal(tmp_path)
    assert again.load().objects.tasks["b"] == secretive("b")
    copy = next((tmp_path / "journal/unread").iterdir()).name
    assert copy.startswith("b-")
    assert told(tmp_path, CANARY) == sorted(["set.log", "record.json", "a", copy])


def in_the_clear_as_before(tmp_path):
    """Make every file what the version before wrote."""
    seal = NodeSeal(tmp_path / "node.key")
    for path in files(tmp_path):
        if path.name == "set.log":
            bodies = [seal.open(line.partition(b" ")[2]) for line in path.read_bytes().splitlines()]
            path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(b), b) for b in bodies))
        elif path.name != "node.key":
            path.write_bytes(seal.open(path.read_bytes()))
    (tmp_path / "node.key").unlink()


def test_what_an_earlier_version_wrote_is_taken_over_and_sealed(tmp_path):
    one = journal(tmp_path)
    content = {"c1": Content(id="c1", data="Y29uZmln")}
    held = take(one, Held(), instructions(1, tasks={"a": secretive("a")}, contents=content))
    held = take(one, held, instructions(2, base=1, tasks={"b": secretive("b")}))
    one.put(Record(id="a", assignment=secretive("a"), state="running"), durable=True)
    (tmp_path / "journal/unread/set.log-00000000").write_text(f"{CANARY} in pieces")
    in_the_clear_as_before(tmp_path)
    assert len(in_the_clear(tmp_path)) == 4
    two = journal(tmp_path)
    found = two.load()
    assert found.objects == held.objects
    assert not found.doubt
    assert two.records()["a"].assignment == secretive("a")
    assert in_the_clear(tmp_path) == []
    assert in_the_clear(tmp_path, "Y29uZmln") == []
    take(two, found, instructions(3, base=2, tasks={"c": secretive("c")}))
    assert sorted(journal(tmp_path).load().objects.tasks) == ["a", "b", "c"]
    assert journal(tmp_path).records()["a"].assignment == secretive("a")


def test_a_set_in_doubt_stays_as_it_is_until_a_controller_has_spoken(tmp_path):
    one = journal(tmp_path)
    held = take(one, Held(), instructions(1, tasks={"a": secretive("a")}))
    take(one, held, instructions(2, base=1, tasks={"b": secretive("b")}))
    in_the_clear_as_before(tmp_path)
    path = tmp_path / "journal/set.log"
    path.write_bytes(b"x" + path.read_bytes())
    before = path.read_bytes()
    two = journal(tmp_path)
    found = two.load()
    assert found.doubt
    assert path.read_bytes() == before
    assert in_the_clear(tmp_path) == [str(path)], "law: the copy is sealed"
    take(two, found, instructions(3, tasks={"a": secretive("a"), "b": secretive("b")}))
    assert in_the_clear(tmp_path) == []
    assert [p.name[:8] for p in (tmp_path / "journal/unread").iterdir()] == ["set.log-"]


def a_stack(name):
    release = Release(stack=name, number=1, spec="h")
    return {
        "stacks": {name: Stack(name=name)},
        "releases": {f"{name}/1": KeptRelease(release=release, spec=StackSpec(name=name))},
    }


@pytest.mark.parametrize("whole", [False, True])
def test_with_its_stack_goes_everything_that_told_of_it(tmp_path, whole):
    """`down`: increments that named it, its records, its configs, copies of what was unreadable."""
    one = journal(tmp_path)
    content = {"c1": Content(id="c1", data="Y29uZmln")}
    other = named("x").model_copy(update={"stack": "other"})
    held = take(one, Held(), instructions(1, tasks={"x": other}))
    held = take(
        one,
        held,
        instructions(2, base=1, tasks={"a": secretive("a")}, contents=content, **a_stack("shop")),
    )
    held = take(one, held, instructions(3, base=2, tasks={"b": secretive("b")}))
    for name, kept in (("set.log-1", CANARY), ("a-1", CANARY), ("x-1", "of another")):
        (tmp_path / f"journal/unread/{name}").write_text(kept)
    one.put(Record(id="a", assignment=secretive("a"), state="running"), durable=True)
    held = take(one, held, instructions(4, base=3, remove={"tasks": ("b",)}))
    assert told(tmp_path, "shop"), "law: not as long as one of its tasks is here"
    gone = {"tasks": ("a",), "contents": ("c1",), "stacks": ("shop",), "releases": ("shop/1",)}
    last = instructions(5, tasks={"x": other}) if whole else instructions(5, base=4, remove=gone)
    held = take(one, held, last)
    one.forget("a")
    assert told(tmp_path, "shop") == told(tmp_path, CANARY) == told(tmp_path, "Y29uZmln") == []
    assert [p.name for p in (tmp_path / "journal/unread").iterdir()] == ["x-1"]
    held = take(one, held, instructions(6, base=5, tasks={"c": secretive("c")}))
    again = journal(tmp_path).load()
    assert again.objects == held.objects
    assert sorted(again.objects.tasks) == ["c", "x"]


def test_a_node_that_left_keeps_no_key(tmp_path):
    one = journal(tmp_path)
    take(one, Held(), instructions(1, tasks={"a": secretive("a")}))
    one.leave()
    assert not (tmp_path / "node.key").exists()
    take(one, Held(), instructions(1, tasks={"a": secretive("a")}))
    assert sorted(journal(tmp_path).load().objects.tasks) == ["a"]


def test_people_can_read_what_was_kept(tmp_path):
    state = tmp_path / "agent"
    one = Journal(state / "journal", state / "tasks", tmp_path / "run")
    take(one, Held(), instructions(1, tasks={"a": secretive("a")}))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "agent.sealing", str(state / "journal/set.log")],
        env={"CORRAL_STATE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert CANARY in done.stdout, done.stderr
