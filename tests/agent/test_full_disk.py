"""A full disk: what is instructed is taken, taking away needs no room, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from agent.errors import Later, NoRoom, lacks_room
from agent.runtime.failure import RuntimeFailure
from agent.tasks.held import Held, judge
from agent.tasks.reserve import PIECES
from specs.kit import disk as disks
from specs.kit import room as rooms
from specs.kit.room import Room, shortage
from specs.stack import RestartPolicy
from specs.states import TaskState
from specs.wire import Content
from tests.agent.full_disk import Disk
from tests.agent.test_journal import instructions, journal, named, take
from tests.agent.test_worker import Node
from tests.agent.test_worker import named as assigned

ONE = Content(id="c1", data="b25l")
SECRET = Content(id="s1", data="b25l", secret=True)

# What comes while the disk is full: a task more, one less, another wish, the whole set of a
# session that begins, of a controller that begins, files.
COMES = {
    "a task more": instructions(2, base=1, tasks={"c": named("c")}),
    "a task less": instructions(2, base=1, remove={"tasks": ("a",)}),
    "an end": instructions(2, base=1, tasks={"a": named("a", "shutdown")}),
    "a session": instructions(2, tasks={"a": named("a"), "b": named("b")}),
    "a controller": instructions(2, epoch=2, tasks={"a": named("a")}),
    "the last one goes": instructions(2, tasks={}),
    "a config": instructions(2, base=1, contents={"c1": ONE}),
    "a secret": instructions(2, base=1, contents={"s1": SECRET}),
}


@pytest.fixture
def disk(tmp_path, monkeypatch):
    (tmp_path / "journal").mkdir()
    return Disk(monkeypatch, tmp_path)


def begun(tmp_path, *, reserve: bool):
    """Return a journal with two tasks, and what it holds."""
    one = journal(tmp_path)
    held = take(one, Held(), instructions(1, tasks={"a": named("a"), "b": named("b")}))
    if reserve:
        one.provide()
    return one, held


@pytest.mark.parametrize("comes", COMES)
def test_the_reserve_takes_what_a_full_disk_does_not(tmp_path, disk, comes):
    one, held = begun(tmp_path, reserve=True)
    disk.fill()
    held = take(one, held, COMES[comes])
    assert disk.refused, "the disk was full"
    assert one.behind == ""
    again = journal(tmp_path).load()
    assert (again.objects, again.stamp, again.doubt) == (held.objects, held.stamp, "")
    # What was given up comes back with room, and not before.
    disk.fill()
    one.provide()
    assert len(list((tmp_path / "journal/reserve").iterdir())) < PIECES
    disk.empty()
    one.provide()
    assert len(list((tmp_path / "journal/reserve").iterdir())) == PIECES


@pytest.mark.parametrize("comes", COMES)
def test_without_a_reserve_it_is_taken_and_written_when_there_is_room(tmp_path, disk, comes):
    one, held = begun(tmp_path, reserve=False)
    disk.fill()
    after = take(one, held, COMES[comes])
    if comes != "a secret":  # on a tmpfs of its own; only the names are in the set
        assert "no space" in one.behind
    # Killed now: what the file says is no more than a doubt, so nothing is begun or ended by it.
    found = journal(tmp_path).load()
    assert found.objects.tasks == held.objects.tasks
    assert "full" in found.doubt
    assert judge(found.stamp, instructions(3, base=None, epoch=2)) is None, "a whole set ends it"
    # One more while it is full, then room.
    after = take(one, after, instructions(3, base=2, epoch=after.stamp.epoch))
    one.catch_up(after)
    assert one.behind
    disk.empty()
    one.catch_up(after)
    assert one.behind == ""
    again = journal(tmp_path).load()
    assert (again.objects, again.stamp, again.doubt) == (after.objects, after.stamp, "")


NEWER = instructions(1, epoch=2, tasks={"a": named("a"), "c": named("c")})
OLDER = instructions(9, tasks={"z": named("z")})


@pytest.mark.parametrize("comes", ["a controller", "a controller with files"])
@pytest.mark.parametrize("reserve", [True, False])
def test_a_full_disk_has_room_for_who_instructs(tmp_path, disk, comes, reserve):
    """The law of fencing: who spoke before is not heard again, whatever ends in between."""
    one, held = begun(tmp_path, reserve=reserve)
    disk.fill()
    more = {"contents": {"c1": ONE}} if "files" in comes else {}
    after = take(one, held, instructions(2, epoch=2, tasks={"a": named("a")}, **more))
    assert after.stamp.epoch == 2
    again = journal(tmp_path).load()
    assert again.stamp.epoch == 2
    assert judge(again.stamp, OLDER).reason == "epoch"


FAULTS = {
    "no room in place either": errno.ENOSPC,  # a file system that copies on write
    "quota": errno.EDQUOT,
    "the disk reports an error": errno.EIO,
    "read-only": errno.EROFS,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", ["the epoch", "the set", "the mark"])
def test_what_is_not_durable_is_not_taken(tmp_path, disk, monkeypatch, fault, at):
    one, held = begun(tmp_path, reserve=False)
    files = {p.name: p.read_bytes() for p in (tmp_path / "journal").iterdir() if p.is_file()}
    broken = Broken(monkeypatch, FAULTS[fault], at)
    room = FAULTS[fault] in (errno.ENOSPC, errno.EDQUOT)
    if at == "the set" and room:
        take(one, held, NEWER)  # it is marked as behind
        assert one.behind
    else:
        with pytest.raises(OSError, match=os.strerror(FAULTS[fault])):
            take(one, held, NEWER)
        assert one.behind == ""
        assert one.fault
    # Where the epoch was noted and the rest was not, the fence stands all the same.
    noted = at != "the epoch"
    now = one.fenced(held)
    assert now.stamp == held.stamp.model_copy(update={"epoch": 2 if noted else 1})
    assert (judge(now.stamp, OLDER) is None) is not noted
    again = journal(tmp_path).load()
    assert again.stamp == now.stamp
    assert again.objects.tasks == held.objects.tasks
    if not noted:
        assert {n: (tmp_path / "journal" / n).read_bytes() for n in files} == files
    # As soon as the disk takes it again, so do we.
    broken.mended()
    after = take(one, now, NEWER)
    assert (one.fault, one.behind) == ("", "")
    again = journal(tmp_path).load()
    assert (again.objects, again.stamp, again.doubt) == (after.objects, after.stamp, "")


class Broken:
    """A disk that refuses what is written of the epoch, the set, or both the set and its mark."""

    def __init__(self, monkeypatch, number, at):
        self.on = True
        names = {"the epoch": "seen", "the set": "set.log", "the mark": "set.log"}
        self.at, self.number, self.name = at, number, names[at]
        self._write, self._pwrite, self._chmod = os.write, os.pwrite, Path.chmod
        monkeypatch.setattr(os, "write", lambda fd, data: self.look(fd) or self._write(fd, data))
        monkeypatch.setattr(
            os, "pwrite", lambda fd, data, at: self.look(fd) or self._pwrite(fd, data, at)
        )
        monkeypatch.setattr(Path, "chmod", _method(self.chmod))

    def mended(self):
        self.on = False

    def look(self, fd):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        if self.on and (name == self.name or name.startswith(f".{self.name}.")):
            raise OSError(self.number, os.strerror(self.number))

    def chmod(self, path, mode):
        if self.on and self.at == "the mark" and path.name == self.name:
            raise OSError(self.number, os.strerror(self.number), str(path))
        self._chmod(path, mode)


def _method(function):
    def called(*args):
        return function(*args)

    return called


@pytest.mark.parametrize(
    ("fails", "whole"),
    [("a file that goes", True), ("a file that goes", False), ("the folder's sync", True)],
)
def test_what_was_written_and_not_taken_does_not_hide_what_comes_next(
    tmp_path, monkeypatch, fails, whole
):
    one = journal(tmp_path)
    held = take(one, Held(), instructions(1, tasks={"a": named("a")}, contents={"c1": ONE}))
    base = None if whole else 1
    put = {"tasks": {"a": named("a"), "b": named("b")}} if whole else {"tasks": {"b": named("b")}}

    def broken(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        if fails == "a file that goes":
            patch.setattr(Path, "unlink", broken)
        else:
            patch.setattr(disks, "sync", broken)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            take(one, held, instructions(2, base=base, remove={"contents": ("c1",)}, **put))
    # The controller says it again under the same number, as things are by now.
    after = take(one, held, instructions(2, base=1, tasks={"c": named("c")}))
    again = journal(tmp_path).load()
    assert sorted(again.objects.tasks) == sorted(after.objects.tasks) == ["a", "c"]
    assert again.stamp == after.stamp


@pytest.mark.parametrize("cut", ["before the set", "after it"])
def test_an_epoch_outlives_a_set_that_never_came(tmp_path, cut):
    one = journal(tmp_path)
    held = take(one, Held(), instructions(7, tasks={"a": named("a")}))
    one._seen.note(NEWER.stamp.at(8))
    if cut == "after it":
        one.accept(instructions(8, epoch=2, tasks={}), held)
    again = journal(tmp_path).load()
    assert (again.stamp.epoch, again.doubt) == (2, "")
    assert again.stamp.generation == 7, "what is told of the old set acknowledges no newer one"
    assert judge(again.stamp, OLDER).reason == "epoch"


def test_what_an_earlier_version_noted_is_overwritten_too(tmp_path, disk):
    one, held = begun(tmp_path, reserve=False)
    (tmp_path / "journal/seen").write_bytes(held.stamp.encode())
    disk.fill()
    take(one, held, COMES["a controller"])
    assert journal(tmp_path).load().stamp.epoch == 2


def test_a_node_that_cannot_note_who_instructs_it_takes_nothing(tmp_path, disk):
    one = journal(tmp_path)
    disk.fill()
    with pytest.raises(OSError, match="seen") as caught:
        take(one, Held(), instructions(1, tasks={"a": named("a")}))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("fault", [errno.EIO, errno.EROFS])
def test_another_fault_of_the_disk_is_refused(tmp_path, disk, monkeypatch, fault):
    one, held = begun(tmp_path, reserve=False)

    def broken(*_):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(OSError, match=os.strerror(fault)):
        take(one, held, COMES["a task less"])
    assert not one.behind


def test_half_a_line_never_stays(tmp_path, disk):
    one, held = begun(tmp_path, reserve=False)
    before = (tmp_path / "journal/set.log").read_bytes()
    disk.fill(left=20)
    take(one, held, COMES["a task more"])
    assert (tmp_path / "journal/set.log").read_bytes() == before


def test_a_node_that_left_keeps_no_reserve(tmp_path, disk):
    one, _ = begun(tmp_path, reserve=True)
    one.leave()
    assert not (tmp_path / "journal/reserve").exists()
    one.provide()
    assert not (tmp_path / "journal/reserve").exists(), "whose it is, is open"


# The node's tasks.


@pytest.fixture
async def node(tmp_path, disk):
    made = Node(tmp_path)
    made.disk = disk
    yield made
    if made.running is not None:
        await made.kill()


async def full(node, *tasks):
    """Have these run, then fill the disk."""
    await node.put(*tasks)
    await node.until(lambda: all(node.status(t.id).ready for t in tasks))
    node.disk.fill()


@pytest.mark.looptime
@pytest.mark.parametrize("way", ["stopped", "removed", "dropped", "restarted", "frozen"])
async def test_what_takes_away_needs_no_room(node, way):
    await full(node, assigned("a"), assigned("b"))
    pids = {task: process.pid for task, process in node.containers.alive.items()}
    match way:
        case "stopped":
            await node.put(assigned("a", "shutdown"))
            await node.until(lambda: node.status("a").state is TaskState.SHUTDOWN)
        case "removed":
            await node.put(assigned("a", "removed"))
            await node.until(lambda: "a" in node.reports.full().gone)
            assert not (node.base / "tasks/a").exists()
        case "dropped":
            await node.put(remove=("a",))
            await node.until(lambda: "a" in node.reports.full().gone)
        case "restarted":
            await node.put(assigned("a").with_restart(1))
            await node.until(lambda: len(node.status("a").runs) == 2 and node.status("a").ready)
        case "frozen":
            await node.put(assigned("a").model_copy(update={"paused": True}))
            await node.until(lambda: node.status("a").paused)
    assert node.containers.alive["b"].pid == pids["b"]
    assert node.status("b").ready
    if way in ("stopped", "removed", "dropped"):
        await node.until(lambda: "a" not in {*node.containers.alive, *node.network.attached})


@pytest.mark.looptime
@pytest.mark.parametrize("way", ["stays", "is killed", "is killed and the disk freed"])
async def test_what_ran_runs_on_and_what_came_meanwhile_is_done_by_the_next_agent(node, way):
    await full(node, assigned("a"), assigned("b"))
    alive = dict(node.containers.alive)
    await node.put(assigned("a", "removed"), assigned("c"))
    await node.until(lambda: "a" in node.reports.full().gone)
    assert "no space" in node.reports.full().room
    if way != "stays":
        await node.kill()
        if "freed" in way:
            node.disk.empty()
        await node.start()
        assert node.containers.alive["b"] == alive["b"], "law: what runs outlives us"
        assert "a" not in node.containers.alive, "law: what is gone does not come back"
    await node.put(remove=("a",))
    node.disk.empty()
    await node.until(lambda: node.status("b").ready and node.status("c").ready)
    await node.until(lambda: node.reports.full().room == "")
    assert node.containers.alive["b"] == alive["b"]
    assert "a" not in node.containers.alive
    await node.kill()
    again = journal(node.base).load()
    assert (set(again.objects.tasks), again.doubt) == ({"b", "c"}, "")


@pytest.mark.looptime
async def test_an_end_that_could_not_be_written_is_when_there_is_room(node):
    node.containers.behaviour["a"] = (50.0, 3)
    await full(node, assigned("a", policy=RestartPolicy(condition="none")))
    await node.until(lambda: node.status("a").state is TaskState.FAILED)
    kept = node.base / "tasks/a/record.json"
    before = kept.read_bytes()
    node.disk.empty()
    await node.until(lambda: kept.read_bytes() != before)
    await node.kill()
    (node.base / "run/records/a").unlink()  # a reboot
    assert journal(node.base).records()["a"].state is TaskState.FAILED


# Whether another node may have the room that this one lacks.


def caused(number, *, cause=True):
    """Return what is made of an error of the kernel's; ``cause`` False: ``from None``."""
    found, error = Later("cannot mount it"), OSError(number, os.strerror(number), "/v/x")
    found.__context__ = error
    found.__cause__ = error if cause else None
    return found


@pytest.mark.parametrize(
    ("error", "crowded"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (caused(errno.ENOSPC), True),
        (caused(errno.ENOSPC, cause=False), True),
        (caused(errno.EDQUOT), True),
        (caused(errno.EIO), False),
        (NoRoom("the image needs 9 MiB"), True),
        (Later("no answer"), False),
    ],
)
def test_lack_of_room_is_known_at_whatever_remove(error, crowded):
    assert lacks_room(error) is crowded


@pytest.mark.looptime
async def test_a_task_that_does_not_fit_says_so_until_it_does(node):
    mount = node.images.mount

    async def mounted(task, digest):
        if node.disk.size is not None:
            raise NoRoom("its image needs 9 MiB")
        return await mount(task, digest)

    node.images.mount = mounted
    await full(node, assigned("a"))
    await node.put(assigned("a"), assigned("c"))
    await node.until(lambda: node.status("c").crowded)
    assert "c" in node.reports.full().tasks
    assert not node.status("a").crowded
    node.disk.empty()
    await node.until(lambda: node.status("c").ready)
    assert not node.status("c").crowded


@pytest.mark.looptime
@pytest.mark.parametrize("at", ["its creation", "its start"])
@pytest.mark.parametrize("policy", ["none", "any"])
@pytest.mark.parametrize(
    "words",
    [
        "writing file `/run/x`: No space left on device",
        "open `/run/x`: Read-only file system",
        "write: Input/output error",
    ],
)
async def test_what_the_node_lacks_is_no_crash_of_the_task(node, monkeypatch, at, policy, words):
    """A full /run used up a task's attempts, and it was over."""
    failure = RuntimeFailure(words)
    start = node.containers.start

    async def no_start(task):
        raise failure

    if at == "its creation":
        node.containers.broken["a"] = failure
    else:
        monkeypatch.setattr(node.containers, "start", no_start)
    again = RestartPolicy(condition=policy, max_attempts=1)
    await node.put(assigned("a", policy=again).model_copy(update={"local_restarts": 0}))
    await node.until(lambda: words in node.status("a").reason)
    await asyncio.sleep(90)
    assert node.status("a").state is TaskState.STARTING
    node.containers.broken.clear()
    monkeypatch.setattr(node.containers, "start", start)
    await node.until(lambda: node.status("a").ready)
    record = node.holdings.record("a")
    assert (record.restarts, record.crashes, record.attempts) == (0, 0, ())


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (Room(free=0, total=20 << 30), "/v has 0 of 20480 MiB free"),
        (Room(free=63 << 20, total=20 << 30), "/v has 63 of 20480 MiB free"),
        (Room(free=64 << 20, total=20 << 30), ""),
        (Room(free=2 << 20, total=20 << 20), ""),
        (Room(free=0, total=20 << 20), "/v has 0 of 20 MiB free"),
        (Room(1 << 30, 20 << 30, free_files=3, files=1 << 20), "/v has 3 of 1048576 inodes free"),
        (Room(1 << 30, 20 << 30, free_files=0, files=0), ""),
        (Room(1 << 30, 20 << 30, free_files=60, files=1000), ""),
    ],
)
def test_what_is_short_is_named(room, words):
    found = shortage(room, "/v")
    assert (words in found) if words else not found
    if words:
        assert shortage(room, "/v", slack=2.0)


@pytest.mark.parametrize(
    ("free", "total", "lack", "cramp"),
    [
        (20 << 30, 40 << 30, "", ""),
        (300 << 20, 400 << 20, "", ""),
        (200 << 20, 40 << 30, "", "no image fits in /v (40960 MiB in all)"),
        (190 << 20, 200 << 20, "", "no image fits in /v (200 MiB in all)"),
        (1 << 20, 40 << 30, "no room is left", ""),  # said once
    ],
)
def test_a_disk_on_which_no_image_fits_says_so(monkeypatch, free, total, lack, cramp):
    look = rooms.RoomWatch(Path("/v"))
    monkeypatch.setattr(rooms, "measure", lambda _: Room(free, total))
    look.look()
    assert (lack in look.lack) if lack else not look.lack
    assert (cramp in look.cramped) if cramp else not look.cramped
    if cramp:  # it is said until there is clearly room
        monkeypatch.setattr(rooms, "measure", lambda _: Room(rooms.IMAGES + 1, total))
        look.look()
        assert look.cramped
        monkeypatch.setattr(rooms, "measure", lambda _: Room(2 * rooms.IMAGES, total))
        look.look()
        assert not look.cramped


def test_a_read_only_disk_says_so_however_much_is_free():
    found = shortage(Room(1 << 40, 1 << 40, readonly=True), "/v")
    assert "/v is read-only" in found
