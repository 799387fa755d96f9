"""What a task's life costs on the disk: a write for each move that a reboot must not undo."""

from __future__ import annotations

import pytest

from agent.tasks import journal
from specs.states import TaskState
from tests.agent.test_worker import Node, named

pytestmark = pytest.mark.looptime


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path)
    yield made
    if made.running is not None:
        await made.kill()


@pytest.fixture
def on_disk(monkeypatch):
    """The states whose record was written to the disk, in order."""
    found = []
    put = journal.Journal.put

    def noted(self, record, *, durable=False, disk=False):
        if durable or disk:
            found.append(record.state)
        put(self, record, durable=durable, disk=disk)

    monkeypatch.setattr(journal.Journal, "put", noted)
    return found


async def test_only_what_a_reboot_must_know_is_written(node, on_disk):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    assert on_disk == [TaskState.PREPARING, TaskState.RUNNING]
    await node.put(named("a", "shutdown"))
    await node.until(lambda: node.status("a").state is TaskState.SHUTDOWN)
    assert on_disk[2:] == [TaskState.SHUTDOWN]


async def test_staying_prepared_costs_no_more_than_preparing(node, on_disk):
    await node.put(named("a", "prepared"))
    await node.until(lambda: node.status("a").state is TaskState.PREPARED)
    assert on_disk == [TaskState.PREPARING]


async def test_what_is_removed_is_not_written_any_more(node, on_disk):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    await node.put(named("a", "removed"))
    await node.until(lambda: "a" in node.reports.full().gone)
    assert on_disk == [TaskState.PREPARING, TaskState.RUNNING]
