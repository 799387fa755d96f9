"""Streams: progress, events, logs merged by time, exec; slow, absent and broken readers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace

import aiohttp
import pytest

from orchestrator.api import logmerge, logs, streams
from orchestrator.errors import NotFound
from orchestrator.store.base import StoreUnavailable
from specs.api import Progress
from specs.events import Event
from specs.node import NodeCondition
from specs.states import TaskState
from specs.task import Run, TaskStatus
from specs.wire import LogLine


def out(time, text, stream="stdout"):
    return LogLine(time=float(time), stream=stream, line=text)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(streams, "PULSE", 0.05)
    monkeypatch.setattr(streams, "FIRST", 0.02)
    monkeypatch.setattr(logmerge, "PATIENCE", 0.03)
    monkeypatch.setattr(logs, "RETRY", 0.02)


# Progress and events.


async def test_progress_is_one_object_a_line(api):
    api.add_stack()
    api.control.progress_lines = [
        Progress(kind="task", task="t1", state="running"),
        Progress(kind="end", ok=True),
    ]
    lines = await api.lines("/v1/stacks/shop/progress?release=1")
    assert [line["kind"] for line in lines] == ["task", "end"]
    assert lines[1]["ok"] is True
    assert api.control.calls == [("progress", "shop", 1)]


async def test_a_stream_that_cannot_start_is_a_problem_not_a_stream(api):
    api.add_stack()
    api.control.error = NotFound("there is no release 9")
    problem = await api.problem("GET", "/v1/stacks/shop/progress?release=9", 404)
    assert problem["detail"] == "there is no release 9"


@pytest.mark.parametrize(
    ("fault", "words", "hint"),
    [
        (NotFound("the stack is gone", hint="corral ls"), "the stack is gone", "corral ls"),
        (
            StoreUnavailable("writing state.db: no space is left on its disk"),
            "writing state.db: no space is left on its disk",
            "what was done before it stays; the same command goes on from there",
        ),
    ],
)
async def test_a_refusal_in_the_middle_ends_the_stream_with_its_words(api, fault, words, hint):
    api.add_stack()

    async def breaking(_stack, _release):
        yield Progress(kind="task", task="t1")
        raise fault

    api.control.progress = breaking
    lines = await api.lines("/v1/stacks/shop/progress")
    assert [line["kind"] for line in lines] == ["task", "end"]
    assert (lines[1]["ok"], lines[1]["message"], lines[1]["hint"]) == (False, words, hint)


async def test_events_come_as_they_happen_and_only_of_the_stack(api):
    reading = asyncio.create_task(api.lines("/v1/events?stack=shop", count=2))
    for number, stack in enumerate(["shop", "other", "shop"]):
        await api.control.event_queue.put(Event(time=float(number), kind="x", stack=stack))
    assert [event["time"] for event in await reading] == [0.0, 2.0]


async def test_a_silent_stream_has_a_pulse(api):
    async with api.http.get("/v1/events") as answer:
        async with asyncio.timeout(300):
            assert await answer.content.readline() == b"\n"
            assert await answer.content.readline() == b"\n"


async def test_a_reader_that_left_is_noticed(api):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def forever(_stack):
        begun.set()
        try:
            while True:
                await asyncio.sleep(3600)
                yield Event(time=0.0, kind="x")
        finally:
            ended.set()

    api.control.events = forever
    _, writer = await asyncio.open_unix_connection(str(api.path))
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(300):
        await begun.wait()
    writer.close()
    async with asyncio.timeout(300):
        await ended.wait()


async def test_a_reader_that_takes_nothing_is_cut_off_and_costs_one_buffer(api, monkeypatch):
    monkeypatch.setattr(streams, "STUCK", 0.2)
    produced, ended = 0, asyncio.Event()

    async def endless(_stack):
        nonlocal produced
        try:
            while True:
                yield Event(time=0.0, kind="x", message="y" * 10_000)
                produced += 1
        finally:
            ended.set()

    api.control.events = endless
    reader, writer = await asyncio.open_unix_connection(str(api.path), limit=1024)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(300):
        await ended.wait()
    assert produced < 500, "the source was held back, not buffered"
    assert (await api.call("GET", "/v1/version"))[0] == 200
    writer.close()
    assert reader


# Logs.


async def test_logs_of_all_tasks_are_merged_by_time(api):
    api.add_stack()
    await api.add_task("t1")
    await api.add_task("t2", slot=2)
    await api.add_task("t3", service="migrate")
    await api.agents.add("t1", out(1, "a"), out(4, "d"), out(5, "e", "stderr"))
    await api.agents.add("t2", out(2, "b"), out(6, "f"))
    await api.agents.add("t3", out(3, "c"))

    lines = await api.lines("/v1/stacks/shop/logs")
    assert [line["line"] for line in lines] == list("abcdef")
    assert lines[4] == {
        "task": "t1",
        "name": "web-1",
        "service": "web",
        "slot": 1,
        "stream": "stderr",
        "time": 5.0,
        "line": "e",
        "place": [1, 1, 3],
    }
    only = await api.lines("/v1/stacks/shop/logs?service=migrate")
    assert [line["line"] for line in only] == ["c"]
    both = await api.lines("/v1/stacks/shop/logs?service=migrate&service=web&tail=1&since=2.5")
    assert [line["line"] for line in both] == ["c", "e", "f"]


@pytest.mark.parametrize(
    ("container", "prefix"),
    [("shop-web-1", "web-1"), ("the-web", "the-web"), ("shop-front", "front")],
)
async def test_a_line_names_the_container_as_compose_does(api, container, prefix):
    api.add_stack()
    await api.add_task("t1", name=container)
    await api.agents.add("t1", out(1, "a"))
    (line,) = await api.lines("/v1/stacks/shop/logs")
    assert (line["name"], line["slot"]) == (prefix, 1)


@pytest.mark.parametrize(("ahead", "found"), [(0.0, "bc"), (100.0, "bc"), (-100.0, "bc")])
async def test_since_counts_by_the_clock_of_the_node_that_wrote_the_lines(api, ahead, found):
    """Law: ten minutes ago is the same moment everywhere, whatever a node's clock shows."""
    api.add_stack()
    await api.add_task("t1")
    api.cluster.conditions["n1"] = NodeCondition(status="ready", ahead=ahead)
    await api.agents.add("t1", *(out(1000 + ahead + at, name) for at, name in enumerate("abc")))
    lines = await api.lines("/v1/stacks/shop/logs?since=1001")
    assert "".join(line["line"] for line in lines) == found


async def test_many_lines_of_many_tasks_stay_in_order(api):
    api.add_stack()
    for n in range(8):
        await api.add_task(f"t{n}", slot=n + 1)
        await api.agents.add(f"t{n}", *(out(t * 8 + n, f"{t * 8 + n}") for t in range(400)))
    lines = await api.lines("/v1/stacks/shop/logs")
    assert [line["line"] for line in lines] == [str(n) for n in range(3200)]


@contextlib.asynccontextmanager
async def following(api, more=""):
    """Follow the stack's logs; gives a function that returns the next line, None at the end."""
    url = f"/v1/stacks/shop/logs?follow=1{more}"
    async with asyncio.timeout(300), api.http.get(url) as answer:

        async def line():
            async for raw in answer.content:
                if raw.strip():
                    return json.loads(raw)["line"]
            return None

        yield line


async def test_a_stack_without_tasks_has_no_logs(api):
    api.add_stack()
    await api.add_task("t1", status=TaskStatus(state=TaskState.PENDING), node=None)
    assert await api.lines("/v1/stacks/shop/logs") == []


async def test_following_goes_on_and_takes_in_new_tasks(api):
    api.add_stack()
    await api.add_task("t1")
    await api.agents.add("t1", out(1, "old"))
    async with following(api) as line:
        assert await line() == "old"
        await api.agents.add("t1", out(2, "new"))
        assert await line() == "new"
        await api.add_task("t2", slot=2)
        await api.agents.add("t2", out(3, "joined"))
        assert await line() == "joined"
        await api.agents.add("t1", out(4, "more"))
        assert await line() == "more"


async def test_following_starts_before_there_is_any_task(api):
    api.add_stack()
    async with following(api) as line:
        await api.add_task("t1", status=TaskStatus(state=TaskState.PENDING), node=None)
        await api.agents.add("t1", out(1, "first"))
        await api.add_task("t1")
        assert await line() == "first"


async def test_following_ends_when_the_stack_is_gone(api):
    api.add_stack()
    await api.add_task("t1", status=TaskStatus(state=TaskState.COMPLETE))

    async def short(_node, _task, _query):
        yield out(1, "only")

    api.agents.logs = short
    async with following(api) as line:
        assert await line() == "only"
        del api.cluster.stacks["shop"]
        del api.cluster.tasks["t1"]
        await touch(api, "/stacks/shop")
        assert await line() is None


async def touch(api, key):
    from orchestrator.store.base import Put

    await api.store.txn(writes=(Put(key, b""),))


async def test_following_survives_the_agents_restart_without_gaps_or_doubles(api):
    api.add_stack()
    await api.add_task("t1")
    await api.agents.add("t1", out(1, "a"), out(2, "b"), out(2, "b2"))
    async with following(api) as line:
        assert [await line() for _ in range(3)] == ["a", "b", "b2"]
        api.agents.away.add("n1")
        asked = len(api.agents.asked)
        await api.agents.add("t1", out(2, "b3"), out(3, "c"))
        async with asyncio.timeout(300):
            while len(api.agents.asked) == asked:  # until the restart was noticed
                await asyncio.sleep(0.005)
        api.agents.away.clear()
        assert [await line() for _ in range(2)] == ["b3", "c"]


@pytest.mark.parametrize("tail", [None, 1, 2])
@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.COMPLETE, TaskState.RUNNING])
async def test_the_end_of_an_ended_tasks_log_comes_once(api, state, tail):
    """One stream ends without a newline: its line is older than the one before it."""
    api.add_stack()
    await api.add_task("t1", status=TaskStatus(state=state))
    await api.agents.add("t1", out(2, "a"), out(5, "b"), out(1, "no end", "stderr"))
    ask, asked = api.agents.logs, []

    async def over(node, task, query):
        asked.append(query)
        async for line in ask(node, task, replace(query, follow=False)):
            yield line

    api.agents.logs = over
    async with following(api, f"&tail={tail}" if tail else "") as line:
        expected = ["a", "b", "no end"][-(tail or 3) :]
        assert sorted([await line() for _ in expected]) == sorted(expected)
        async with asyncio.timeout(300):
            while state is TaskState.RUNNING and len(asked) < 2:
                await asyncio.sleep(0.005)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                pytest.fail(f"{await line()!r} came again")
    # What has ended is not asked again; what goes on is, behind the last place.
    assert (len(asked) == 1) == (state is not TaskState.RUNNING)
    assert all(query.after == (1, 1, 3) for query in asked[1:])


async def test_a_node_that_is_not_reached_is_named_in_the_logs_place(api):
    api.add_stack()
    await api.add_task("t1")
    await api.add_task("t2", slot=2, node="n2")
    await api.agents.add("t1", out(1, "a"))
    api.agents.away.add("n2")
    lines = await api.lines("/v1/stacks/shop/logs")
    assert [line["line"] for line in lines] == [
        "a",
        "corral: no log: node n2 is not reached: no answer in time",
    ]


async def test_a_reader_that_leaves_in_the_middle_of_much_frees_the_sources(api):
    api.add_stack()
    await api.add_task("t1")
    await api.agents.add("t1", *(out(t, "x" * 1000) for t in range(20_000)))
    await api.lines("/v1/stacks/shop/logs?follow=1", count=1)
    async with asyncio.timeout(300):
        while any(task.get_name().startswith("logs-") for task in asyncio.all_tasks()):
            await asyncio.sleep(0.02)


async def test_a_mistake_while_reading_logs_breaks_the_stream_instead_of_ending_it(
    api, caplog, monkeypatch
):
    api.add_stack()
    await api.add_task("t1")

    async def broken(_node, _task, _query):
        yield out(1, "a")
        raise KeyError("ours")

    api.agents.logs = broken
    monkeypatch.setattr(streams, "FIRST", 0.0)
    with pytest.raises(aiohttp.ClientError):
        await api.lines("/v1/stacks/shop/logs")
    assert "stream failed" in caplog.text


async def test_a_reader_that_leaves_frees_the_sources(api):
    api.add_stack()
    await api.add_task("t1")
    await api.agents.add("t1", out(1, "a"))
    before = len(asyncio.all_tasks())
    await api.lines("/v1/stacks/shop/logs?follow=1", count=1)
    async with asyncio.timeout(300):
        while any(task.get_name().startswith("logs-") for task in asyncio.all_tasks()):
            await asyncio.sleep(0.02)
        while len(asyncio.all_tasks()) > before + 1:
            await asyncio.sleep(0.02)


# Exec.


async def test_exec_is_carried_both_ways(api):
    api.add_stack()
    await api.add_task("t1")
    async with asyncio.timeout(300), api.http.ws_connect("/v1/tasks/shop-web-1/exec") as websocket:
        await websocket.send_str("hello")
        assert (await websocket.receive()).data == b"\x01HELLO"
        assert json.loads((await websocket.receive()).data) == {"exit": 0}
        assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_exec_on_a_node_that_is_away_says_so(api):
    api.add_stack()
    await api.add_task("t1")
    api.agents.away.add("n1")
    async with asyncio.timeout(300), api.http.ws_connect("/v1/tasks/t1/exec") as websocket:
        message = json.loads((await websocket.receive()).data)
    assert "not reached" in message["error"]


@pytest.mark.parametrize(
    "status",
    [
        TaskStatus(state=TaskState.PREPARED),
        TaskStatus(state=TaskState.FAILED, runs=(Run(number=1),)),
        TaskStatus(state=TaskState.RUNNING, runs=(Run(number=1, finished_at=1.0),)),
    ],
)
async def test_exec_needs_a_running_task(api, status):
    api.add_stack()
    await api.add_task("t1", status=status)
    problem = await api.problem("GET", "/v1/tasks/t1/exec", 409)
    assert "shop-web-1 is not running" in problem["detail"]


async def test_exec_is_a_websocket_only(api):
    api.add_stack()
    await api.add_task("t1")
    problem = await api.problem("GET", "/v1/tasks/t1/exec", 409)
    assert "WebSocket" in problem["detail"]
