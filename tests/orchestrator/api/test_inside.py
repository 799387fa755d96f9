"""What goes on inside a stack's tasks: rows of every node, with a reason where one is silent."""

from __future__ import annotations

import asyncio
import signal

import pytest

from orchestrator.api import inside
from orchestrator.errors import NotFound
from specs.inside import TaskProcess, TaskUsage
from specs.states import TaskState
from specs.task import Run, TaskStatus

GIB = 1 << 30


@pytest.fixture
async def shop(api):
    """web-1 and a finished migrate-1 on n1, web-2 on n2, web-3 waiting for a node."""
    api.add_stack()
    for node in ("n1", "n2"):
        await api.add_node(node)
    await api.add_task("t1")
    await api.add_task("t2", slot=2, node="n2")
    await api.add_task("t3", slot=3, node=None, status=TaskStatus(state=TaskState.PENDING))
    ended = (Run(number=1, pid=1, started_at=1.0, finished_at=2.0, exit_code=0),)
    await api.add_task(
        "t4", service="migrate", status=TaskStatus(state=TaskState.COMPLETE, runs=ended)
    )
    api.agents.inside = {
        "t1": (
            TaskUsage(at=5.0, cpu=1.5, memory=10, memory_limit=GIB),
            (TaskProcess(pid=7, command="nginx"), TaskProcess(pid=8, parent=7, command="worker")),
        ),
        "t2": (TaskUsage(at=99.0, memory=20), (TaskProcess(pid=7, command="nginx"),)),
    }
    return api


async def test_usage_of_running_tasks_wherever_they_are(shop):
    _, answer = await shop.call("GET", "/v1/stacks/shop/usage")
    rows = [(r["name"], r["node"], r["usage"]["memory"], r["reason"]) for r in answer["tasks"]]
    assert rows == [("shop-web-1", "node-n1", 10, ""), ("shop-web-2", "node-n2", 20, "")]
    limits = [row["usage"]["memory_limit"] for row in answer["tasks"]]
    assert limits == [GIB, 8 * GIB], "without a limit of its own it is the node's memory"


async def test_processes_of_running_tasks(shop):
    _, answer = await shop.call("GET", "/v1/stacks/shop/processes?service=web")
    found = [[p["command"] for p in row["processes"]] for row in answer["tasks"]]
    assert found == [["nginx", "worker"], ["nginx"]]
    _, answer = await shop.call("GET", "/v1/stacks/shop/processes?service=migrate")
    assert answer["tasks"] == []


@pytest.mark.parametrize("what", ["usage", "processes"])
async def test_who_does_not_answer_leaves_a_row_with_the_reason(shop, monkeypatch, what):
    monkeypatch.setattr(inside, "ASK", 0.05)

    async def silent(*_):
        await asyncio.sleep(3600)

    async def older(*_):
        raise NotFound("node n2: answered 404")

    for how, words in ((None, "not reached"), (silent, "no answer within"), (older, "upgrade")):
        if how is None:
            shop.agents.away = {"n2"}
        else:
            shop.agents.away = set()
            shop.agents.instead["n2"] = how
        _, answer = await shop.call("GET", f"/v1/stacks/shop/{what}")
        first, second = answer["tasks"]
        assert (first["reason"], bool(first[what])) == ("", True)
        assert words in second["reason"]
        assert not second[what]


async def test_a_task_that_ends_meanwhile_says_so(shop):
    del shop.agents.inside["t2"]
    _, answer = await shop.call("GET", "/v1/stacks/shop/usage")
    assert answer["tasks"][1]["reason"] == "it has just ended"


@pytest.mark.parametrize("what", ["usage", "processes"])
async def test_unknown_names_are_refused_by_name(shop, what):
    problem = await shop.problem("GET", f"/v1/stacks/nope/{what}", 404)
    assert "nope" in problem["detail"]
    problem = await shop.problem("GET", f"/v1/stacks/shop/{what}?service=wbe", 404)
    assert problem["detail"].startswith("there is no service wbe in shop (services: ")
    assert "web" in problem["detail"]


async def test_a_signal_goes_to_every_running_task(shop):
    body = {"number": signal.SIGHUP, "services": ["web"]}
    _, answer = await shop.call("POST", "/v1/stacks/shop/signal", json=body)
    assert answer == {"tasks": ["shop-web-1", "shop-web-2"], "missed": {}, "stopping": []}
    assert sorted(shop.agents.signals) == [("n1", 1, ("t1",)), ("n2", 1, ("t2",))]
    assert not [call for call in shop.control.calls if call[0] == "stop"]


async def test_who_missed_a_signal_is_named(shop):
    shop.agents.away = {"n2"}
    _, answer = await shop.call("POST", "/v1/stacks/shop/signal", json={"number": 10})
    assert answer["tasks"] == ["shop-web-1"]
    assert "not reached" in answer["missed"]["shop-web-2"]


@pytest.mark.parametrize(
    ("number", "grace"), [(signal.SIGKILL, 0.0), (signal.SIGTERM, None)], ids=["KILL", "TERM"]
)
async def test_what_ends_a_service_stops_it_so_that_nobody_starts_it_again(shop, number, grace):
    _, answer = await shop.call("POST", "/v1/stacks/shop/signal", json={"number": number})
    assert answer["stopping"] == ["web"]
    assert answer["tasks"] == ["shop-web-1", "shop-web-2"]
    assert shop.agents.signals == []
    assert ("stop", "shop", grace, ("web",)) in shop.control.calls


@pytest.mark.parametrize("number", [0, 65, -1])
async def test_no_such_signal(shop, number):
    await shop.problem("POST", "/v1/stacks/shop/signal", 422, json={"number": number})
