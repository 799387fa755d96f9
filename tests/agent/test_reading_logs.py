"""Reading a task's logs leaves nothing behind, whatever becomes of the task meanwhile."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from agent.linux.inotify import Inotify
from agent.server import Server
from specs import skew
from specs.states import Desired
from specs.wire import PROTOCOL
from tests.agent.test_lifecycle import running
from tests.agent.test_lifecycle import task as assigned

TASK = assigned().id
# Who reads: the task's record, whether its folder is there before and after, the answer.
CASES = {
    "runs, prints nothing yet": (running(), False, True, 200),
    "runs": (running(), True, True, 200),
    "is erased: its folder just went": (
        running().having(assignment=assigned(desired=Desired.REMOVED)), False, False, 200,
    ),
    "is to be erased": (
        running().having(assignment=assigned(desired=Desired.REMOVED)), True, True, 200,
    ),
    "is stopped": (
        running().having(assignment=assigned(desired=Desired.SHUTDOWN)), False, True, 200,
    ),
    "is gone": (None, False, False, 404),
    "is gone, its logs are not": (None, True, True, 200),
}  # fmt: skip


async def no_figures(_request):
    raise NotImplementedError


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_folder_is_not_made_again_of_what_is_erased(case, tmp_path):
    record, before, after, status = case
    folder = tmp_path / TASK / "log"
    if before:
        folder.mkdir(parents=True)
    holdings = SimpleNamespace(record=lambda _task: record)
    server = Server(
        figures=no_figures,
        tasks=SimpleNamespace(holdings=holdings),
        containers=SimpleNamespace(logs=lambda _task: folder),
        effects=SimpleNamespace(images=None, volumes=None, peers=None),
        inotify=Inotify(),
        leave=None,
    )
    async with TestClient(TestServer(server.application())) as client:
        headers = {skew.HEADER: str(PROTOCOL)}
        answer = await client.get(f"/v1/tasks/{TASK}/logs", params={"tail": "9"}, headers=headers)
        assert answer.status == status
    assert folder.exists() is after
    assert folder.parent.exists() is after
