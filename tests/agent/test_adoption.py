"""Journal, records and runtime may each be missing or damaged: nothing that may run is ended.

Laws: what cannot be read is kept and told by name; nothing is begun that may run already; the
whole set of a controller settles it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import zlib

import pytest

from agent.sealing import NodeSeal
from agent.tasks import lifecycle, steps
from agent.tasks.adoption import LOST, Adopt, Found, Leave, Sweep, judge
from agent.tasks.record import Phase, Record
from agent.vocabulary import FoundRun, ImageConfig, Process
from specs.states import TaskState
from specs.wire import PROTOCOL, Refused
from tests.agent.test_lifecycle import running, task
from tests.agent.test_worker import Node, named
from tests.specs.test_skew import golden

RUN = FoundRun(3, Process(pid=70, start=5), Process(pid=69, start=4), age=12.0)
SET = task("running")


def prepared():
    image = ImageConfig(digest="sha256:" + "a" * 64)
    record = lifecycle.preparing(lifecycle.fresh(SET, "boot"))
    return lifecycle.prepared(record, image)


def found(**keys):
    return Found(**keys)


@pytest.mark.parametrize(
    ("there", "doubt", "verdict"),
    [
        # readable records are taken as they are, whatever became of the set
        (found(record=running(), assignment=SET), "", "adopt running"),
        (found(record=running()), "", "adopt running"),
        (found(record=running()), "the journal is missing", "adopt running"),
        # a record that is behind what runs
        (found(record=prepared(), run=RUN, assignment=SET), "", "adopt running"),
        (found(record=prepared(), assignment=SET), "", "adopt none"),
        # a record that cannot be read
        (found(damaged="zeros", run=RUN, assignment=SET), "", "adopt running"),
        (found(damaged="zeros", run=RUN, record=prepared()), "lost", "adopt running"),
        (found(damaged="zeros", assignment=SET), "", "adopt failed"),
        (found(damaged="zeros", run=RUN), "", "leave"),
        (found(damaged="zeros"), "", "leave"),
        # no record
        (found(run=RUN, assignment=SET), "", "adopt running"),
        (found(run=RUN, assignment=SET), "line 2 is damaged", "adopt running"),
        (found(run=RUN), "lost", "leave"),
        (found(), "lost", "leave"),
        (found(run=RUN), "", "sweep"),
        (found(), "", "sweep"),
        (found(assignment=SET), "", "new"),
        (found(assignment=SET), "line 2 is damaged", "leave"),
        (found(assignment=SET, unread=("colour",)), "", "leave"),
        (found(assignment=SET, unread=("colour",), run=RUN), "", "adopt running"),
    ],
)
def test_what_becomes_of_each(there, doubt, verdict):
    given = judge(there, doubt=doubt, boot="boot", now=100.0, wall=1000.0)
    match given:
        case Adopt(record):
            failed = record.state is TaskState.FAILED
            said = f"adopt {'failed' if failed else record.phase.value}"
            if failed:
                assert record.reason == LOST
            if there.run is not None and there.record is not running():
                assert record.process is not None
        case Leave(why):
            assert why
            said = "leave"
        case Sweep():
            said = "sweep"
        case None:
            said = "new"
    assert said == verdict


def test_a_record_made_of_a_run_tells_the_truth():
    given = judge(
        found(damaged="zeros", run=RUN, assignment=SET),
        doubt="", boot="boot", now=100.0, wall=1000.0,
    )  # fmt: skip
    record = given.record
    assert (record.process.pid, record.monitor.pid, record.number) == (70, 69, 3)
    assert record.run.started_at == 988.0
    assert record.run_started_at == 88.0
    assert record.prepared
    assert record.touched


def test_half_a_spec_is_not_executed_but_what_runs_may_run_again_here():
    record = lifecycle.fresh(SET, "boot").having(unread=("colour",))
    assert isinstance(lifecycle.next_step(record, 1.0), steps.Wait)
    ready = prepared().having(unread=("colour",))
    assert isinstance(lifecycle.next_step(ready, 1.0), steps.Launch), "its bundle is whole"
    whole = lifecycle.assigned(record, SET)
    assert isinstance(lifecycle.next_step(whole, 1.0), steps.Prepare)


# The files.


def sealing(node):
    """Return what the node's files are read and written by."""
    return NodeSeal(node.base / "node.key")


def line(seal, change, data):
    """Return one line of a journal with its body changed and a right checksum."""
    body = json.loads(seal.open(data.partition(b" ")[2]))
    change(body)
    text = seal.seal(json.dumps(body).encode())
    return b"%08x %s\n" % (zlib.crc32(text), text)


def in_body(change, number=0):
    def damage(node):
        path = node.base / "journal/set.log"
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = line(sealing(node), change, lines[number])
        path.write_bytes(b"".join(lines))

    return damage


def in_file(change):
    def damage(node):
        path = node.base / "journal/set.log"
        path.write_bytes(change(path.read_bytes()))

    return damage


def no_journal(node):
    shutil.rmtree(node.base / "journal")


def no_set(node):
    (node.base / "journal/set.log").unlink()


def a_folder(node):
    no_set(node)
    (node.base / "journal/set.log").mkdir()


def records(data=None, change=None):
    def damage(node):
        for path in (*node.base.glob("run/records/*"), *node.base.glob("tasks/*/record.json")):
            if change is not None:
                body = json.loads(sealing(node).open(path.read_bytes()))
                change(body)
                path.write_bytes(sealing(node).seal(json.dumps(body).encode()))
            else:
                path.write_bytes(data)

    return damage


def record_folders(node):
    for path in node.base.glob("run/records/*"):
        path.unlink()
        path.mkdir()


def no_records(node):
    for path in (*node.base.glob("run/records/*"), *node.base.glob("tasks/*/record.json")):
        path.unlink()


def nothing_left(node):
    no_journal(node)
    no_records(node)


def no_key(node):
    (node.base / "node.key").unlink()


def half_a_key(node):
    path = node.base / "node.key"
    path.write_bytes(path.read_bytes()[:7])


def last_flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def first_flipped(data):
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


DAMAGE = {
    "nothing": (lambda node: None, ""),
    "torn last line": (in_file(lambda data: data[:-7]), "tasks it does not name"),
    "zero-filled tail": (in_file(lambda data: data + b"\0" * 512), ""),
    "first line damaged": (in_file(first_flipped), "line 1 of 2"),
    "last line damaged": (in_file(last_flipped), "line 2 of 2"),
    "empty": (in_file(lambda _: b""), "empty"),
    "zeros": (in_file(lambda data: b"\0" * len(data)), "torn"),
    "not UTF-8": (in_file(lambda data: b"\xff\xfe" * 40 + b"\n" + data), "line 1 of 3"),
    "missing": (no_set, "missing"),
    "all of it missing": (no_journal, "missing"),
    "a folder": (a_folder, "directory"),
    "journal: unknown field": (in_body(lambda b: b.update(colour=1)), "colour"),
    "journal: unknown field of a spec": (
        in_body(lambda b: b["put"]["tasks"]["a"]["spec"].update(colour=1)),
        "colour",
    ),
    "journal: unknown state name": (
        in_body(lambda b: b["put"]["tasks"]["a"].update(desired="hovering")),
        "desired",
    ),
    "journal: newer version": (
        in_body(lambda b: b.update(protocol=99, put={**b["put"], "moods": {}})),
        "moods",
    ),
    "journal: wrong type": (in_body(lambda b: b.update(put=[1])), "line 1 of 2"),
    "records: empty": (records(b""), "empty"),
    "records: zeros": (records(b"\0" * 99), "zeros"),
    "records: not UTF-8": (records(b"\xff\xfe"), "UTF-8"),
    "records: unknown field": (records(change=lambda b: b.update(colour=1)), "colour"),
    "records: unknown state name": (records(change=lambda b: b.update(state="dreams")), "state"),
    "records: newer version": (
        records(change=lambda b: b.update(wire=99, mood="good")),
        "mood",
    ),
    "records: wrong type": (records(b"[]"), "list"),
    "records: folders": (record_folders, "directory"),
    "records: missing": (no_records, ""),
    "everything missing": (nothing_left, "nothing says what it is"),
    "the key missing": (no_key, "key"),
    "the key damaged": (half_a_key, "key"),
}


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path)
    yield made
    if made.running is not None:
        await made.kill()


@pytest.mark.looptime
@pytest.mark.parametrize("name", DAMAGE)
async def test_what_cannot_be_read_ends_nothing_and_is_told(node, name):
    damage, said = DAMAGE[name]
    await node.put(named("a"), named("b"))
    await node.until(lambda: node.status("a").ready and node.status("b").ready)
    await node.increment(named("c"))
    await node.until(lambda: node.status("c").ready)
    processes = dict(node.containers.alive)
    await node.kill()
    applied = len(node.network.applied)
    damage(node)
    await node.start()
    await asyncio.sleep(120)  # virtual: without a controller for two minutes
    assert node.containers.alive == processes, "law: nothing is ended because it cannot be read"
    assert node.containers.sent == []
    unread = "; ".join(node.reports.facts.unread)
    assert (said in unread) if said else not unread, unread
    if node.holdings.held.doubt:
        assert len(node.network.applied) == applied, "law: half a set is not applied"
        refused = await node.increment(named("d"))
        assert isinstance(refused, Refused), "law: a set in doubt is not built upon"
        node.tasks.pop("d")
    await node.put()
    await node.until(lambda: all(node.status(t) and node.status(t).ready for t in "abc"))
    await asyncio.sleep(60)
    assert node.containers.alive == processes, "law: the controller's word takes them over"
    assert node.reports.facts.unread == ()
    assert bool(said) == any(said in told for told in node.reports.facts.warnings)
    assert set(node.holdings.runners) == {"a", "b", "c"}
    # And it is whole again: another life reads it all.
    await node.kill()
    await node.start()
    await asyncio.sleep(10)
    assert node.containers.alive == processes
    assert node.reports.facts.unread == ()


@pytest.mark.looptime
@pytest.mark.parametrize("damage", [nothing_left, records(b"{"), no_journal])
async def test_what_the_controller_does_not_want_goes_once_it_has_said_so(node, damage):
    await node.put(named("a"), named("b"))
    await node.until(lambda: node.status("a").ready and node.status("b").ready)
    await node.kill()
    damage(node)
    await node.start()
    await asyncio.sleep(30)
    assert set(node.containers.alive) == {"a", "b"}
    await node.put(remove=("b",))
    await node.until(lambda: set(node.containers.alive) == {"a"})


@pytest.mark.looptime
async def test_a_doubtful_set_begins_nothing(node):
    """What was moved elsewhere may stand in a set that lost the line that took it away."""
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    await node.increment(named("b"))
    await node.until(lambda: node.status("b").ready)
    await node.increment(remove=("a",))
    await node.until(lambda: not node.status("a"))
    await node.kill()
    in_file(last_flipped)(node)
    await node.start()
    await asyncio.sleep(120)
    assert set(node.containers.alive) == {"b"}, "law: never two writers"


@pytest.mark.looptime
async def test_a_lost_journal_still_knows_whose_the_node_is(node):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    await node.kill()
    no_set(node)
    await node.start()
    assert node.holdings.held.stamp.cluster == "c"
    stranger = node.instructions(cluster="other", epoch=9)
    assert (await node.worker.accept(stranger)).reason == "cluster"
    assert set(node.containers.alive) == {"a"}


def test_a_journal_and_a_record_of_version_1_are_adopted(tmp_path):
    from agent.tasks.journal import Journal

    said = golden(1)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal/set.log").write_text("".join(said["journal"]))
    (tmp_path / "tasks/t1").mkdir(parents=True)
    (tmp_path / "tasks/t1/record.json").write_text(json.dumps(said["messages"]["Record"]))
    journal = Journal(tmp_path / "journal", tmp_path / "tasks", tmp_path / "run")
    held = journal.load()
    assert sorted(held.objects.tasks) == ["t1", "t2"]
    assert not held.doubt
    assert not held.unread
    record = journal.records()["t1"]
    assert record.phase is Phase.RUNNING
    assert record.assignment == held.objects.tasks["t1"]
    journal.put(record, disk=True)
    seal = NodeSeal(tmp_path / "node.key")
    kept = Record.model_validate_json(seal.open((tmp_path / "tasks/t1/record.json").read_bytes()))
    assert kept.wire == PROTOCOL


def test_what_cannot_be_read_is_kept_as_it_was(tmp_path):
    from agent.tasks.journal import Journal
    from agent.tasks.kept import UNREAD_KEPT

    for number in range(UNREAD_KEPT + 20):
        (tmp_path / "tasks/t1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks/t1/record.json").write_text(f"{{{number}")
        journal = Journal(tmp_path / "journal", tmp_path / "tasks", tmp_path / "run")
        assert journal.records() == {}
        assert "t1" in journal.damaged
    seal = NodeSeal(tmp_path / "node.key")
    kept = [seal.open(path.read_bytes()) for path in (tmp_path / "journal/unread").iterdir()]
    assert f"{{{number}".encode() in kept
    assert len(kept) == UNREAD_KEPT, "bounded"
