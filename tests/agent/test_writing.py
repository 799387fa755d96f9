"""Records are written beside the loop, and told, and acted upon, only after that."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent.tasks.journal import Journal
from agent.tasks.writing import RecordFile
from specs.stack import RestartPolicy
from specs.states import TaskState
from tests.agent.test_lifecycle import running
from tests.agent.test_lifecycle import task as assigned
from tests.agent.test_worker import Node, named

FIRST = running()
STATES = ("preparing", "running", "complete", "failed")


class SlowDisk:
    """A journal whose disk answers when it is told to."""

    def __init__(self):
        self.wrote: list[tuple[str, bool, bool]] = []
        self.under_way: list[asyncio.Future[None]] = []
        self.full = False

    def put(self, record, *, disk=False, durable=False):
        if self.full:
            raise OSError(28, "no space left on device")
        self.wrote.append((record.reason, disk, durable))

    def put_beside(self, record, *, disk, durable):
        self.put(record, disk=disk, durable=durable)
        self.under_way.append(asyncio.get_running_loop().create_future())
        return self.under_way[-1]

    async def answers(self, error=None):
        future = self.under_way.pop(0)
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Story:
    def __init__(self):
        self.disk = SlowDisk()
        self.heard: list[str] = []
        self.file = RecordFile(FIRST, self.disk, lambda record: self.heard.append(record.reason))

    def put(self, reason, *, disk=False, durable=False):
        record = self.file.newest.having(reason=reason)
        self.file.put(record, disk=disk, durable=durable)

    @property
    def waits(self):
        return not self.file._idle.is_set()


async def test_what_is_of_this_boot_is_told_at_once():
    story = Story()
    story.put("a")
    assert (story.file.told.reason, story.heard, story.waits) == ("a", ["a"], False)
    assert story.disk.wrote == [("a", False, False)]
    assert not await story.file.written()


@pytest.mark.parametrize("durable", [False, True])
async def test_what_goes_to_a_disk_is_told_when_it_is_there(durable):
    story = Story()
    story.put("a", disk=True, durable=durable)
    assert story.file.newest.reason == "a"
    assert story.file.told == FIRST, "law: not before it is written"
    assert not story.heard
    going_on = asyncio.create_task(story.file.written())
    await asyncio.sleep(0)
    assert not going_on.done(), "law: no effect before it is written"
    await story.disk.answers()
    assert await going_on
    assert (story.file.told.reason, story.heard) == ("a", ["a"])


async def test_what_is_decided_meanwhile_is_written_after_it_as_one():
    story = Story()
    story.put("a", disk=True)
    story.put("b")
    story.put("c", durable=True)
    story.put("d", disk=True)
    assert [reason for reason, *_ in story.disk.wrote] == ["a"], "law: in order, never two at once"
    going_on = asyncio.create_task(story.file.written())
    await story.disk.answers()
    assert (story.file.told.reason, story.heard) == ("a", ["a"])
    assert story.disk.wrote[1:] == [("d", True, True)], "as certainly as any of them asked for"
    assert not going_on.done(), "law: what was decided while it waited is waited for too"
    await story.disk.answers()
    assert await going_on
    assert (story.file.told.reason, story.heard) == ("d", ["a", "d"])


async def test_what_no_file_has_to_say_is_told_with_what_is_written():
    story = Story()
    story.file.note(FIRST.having(reason="pulling"))
    story.put("a", disk=True)
    story.file.note(story.file.newest.having(reason="b"))
    assert story.heard == ["pulling"]
    await story.disk.answers()
    assert (story.file.told.reason, story.heard) == ("b", ["pulling", "b"])


@pytest.mark.parametrize("where", ["at once", "beside", "a bug"])
async def test_a_full_disk_holds_nobody_up(where, caplog):
    story = Story()
    if where == "at once":
        story.disk.full = True
        story.put("a")
    else:
        story.put("a", durable=True)
        bug = TypeError("x") if where == "a bug" else OSError(28, "full")
        await story.disk.answers(bug)
    assert (story.file.told.reason, story.heard, story.waits) == ("a", ["a"], False)
    assert "cannot be written" in caplog.text
    story.disk.full = False
    story.put("b", disk=True)
    await story.disk.answers()
    assert story.file.told.reason == "b", "the next one is written again"


OWED = {
    # what the full disk refused, each (disk, durable) -> whether the next write is durable, and
    # the one after it
    "a final state": ([(True, True)], [True, False]),
    "a restart that was done": ([(False, True)], [True, False]),
    "a state for a reboot": ([(True, False)], [False, False]),
    "a final state, then another": ([(True, True), (True, False)], [True, False]),
    "another, then a final state": ([(True, False), (True, True)], [True, False]),
    "nothing": ([], [False, False]),
}


@pytest.mark.parametrize("case", OWED)
async def test_what_was_to_outlive_a_power_cut_still_is_when_there_is_room(case):
    refused, durable = OWED[case]
    story = Story()
    for disk, lasting in refused:
        story.put("a", disk=disk, durable=lasting)
        await story.disk.answers(OSError(28, "full"))
    assert story.file.owed == bool(refused)
    story.disk.wrote.clear()
    for _ in durable:
        story.put("b", disk=True)
        await story.disk.answers()
        assert not story.file.owed
    assert [lasting for *_, lasting in story.disk.wrote] == durable


async def test_what_waited_behind_a_refused_write_is_as_certain():
    story = Story()
    story.put("a", durable=True)
    story.put("b", disk=True)
    await story.disk.answers(OSError(28, "full"))
    await story.disk.answers()
    assert story.disk.wrote == [("a", False, True), ("b", True, True)]
    assert not story.file.owed


async def test_several_tasks_do_not_wait_for_each_other(tmp_path, monkeypatch):
    """The real journal: nobody waits on the loop, whatever the disk takes."""
    journal = Journal(tmp_path / "journal", tmp_path / "tasks", tmp_path / "run")
    put, me = journal.put, asyncio.get_running_loop()
    turns = 0

    def slow(record, **how):
        if how["durable"]:  # fsync on a busy disk: it takes until the loop has been round so often
            awaited, deadline = turns + 100, time.monotonic() + 60
            while turns < awaited and time.monotonic() < deadline:
                time.sleep(0.001)
        put(record, **how)

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(journal, "put", slow)
    turning = me.create_task(turn())
    files = []
    for number in range(8):
        one = assigned().model_copy(update={"id": f"t{number}"})
        files.append(RecordFile(running(one), journal, lambda _: None))
        files[-1].put(files[-1].newest.having(state=TaskState.COMPLETE), disk=True, durable=True)
    assert {file.told.state for file in files} == {running().state}
    began = turns
    for file in files:
        await file.written()
    assert turns - began > 100, "law: the loop turns meanwhile"
    turning.cancel()
    assert {file.told.state for file in files} == {TaskState.COMPLETE}
    journal.close()
    again = Journal(tmp_path / "journal", tmp_path / "tasks", tmp_path / "run")
    assert {record.state for record in again.records().values()} == {TaskState.COMPLETE}
    again.close()


@pytest.mark.looptime
@pytest.mark.parametrize("final", ["complete", "shutdown"])
async def test_an_end_is_told_and_acted_upon_after_it_is_written(tmp_path, final):
    node = Node(tmp_path)
    if final == "complete":
        node.containers.behaviour["a"] = (1.0, 0)
    wanted = {"policy": RestartPolicy(condition="none")}
    await node.put(named("a", **wanted), named("b"))
    await node.until(lambda: node.status("a").ready and node.status("b").ready)
    disk, put = asyncio.Event(), node.journal.put_beside

    def slow(record, **how):
        async def write():
            if record.id == "a":
                await disk.wait()
            await put(record, **how)

        return asyncio.ensure_future(write())

    node.journal.put_beside = slow
    if final == "shutdown":
        await node.put(named("a", "shutdown", **wanted), named("b"))
    await node.until(lambda: node.holdings.runners["a"].record.state == final)
    await asyncio.sleep(5.0)
    assert node.status("a").state == "running", "law: told after it is written"
    assert node.reports.full().tasks["a"].state == "running"
    assert "a" in node.containers.alive, "law: nothing is taken away before"
    assert node.network.attached == {"a", "b"}
    await node.put(*node.tasks.values(), named("b", "shutdown"))
    await node.until(lambda: node.status("b").state == "shutdown", timeout=5.0)
    assert node.status("a").state == "running", "law: tasks do not wait for each other"
    disk.set()
    await node.until(lambda: node.status("a").state == final)
    await node.until(lambda: not node.network.attached)
    await node.kill()


@pytest.mark.looptime
async def test_an_agent_killed_while_it_writes_finds_the_end_again(tmp_path):
    node = Node(tmp_path)
    node.containers.behaviour["a"] = (1.0, 0)
    await node.put(named("a", policy=RestartPolicy(condition="none")))
    await node.until(lambda: node.status("a").ready)
    node.journal.put_beside = lambda *_, **__: asyncio.get_running_loop().create_future()
    await node.until(lambda: node.holdings.runners["a"].record.state == "complete")
    await node.kill()
    await node.start()
    await node.until(lambda: node.status("a").state == "complete")
    assert node.status("a").runs[-1].exit_code == 0
    await node.kill()
