"""Containers called by their names and ids: what each request makes of them."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.api import named
from orchestrator.api.logs import StackLogs
from orchestrator.contracts import LogQuery
from orchestrator.control.mirror.following import goes_on
from specs.api import Standby
from specs.oneoff import OneOff
from specs.schedule import Iteration, Schedule, ScheduleSpec
from specs.stack import ServiceSpec, TaskSpec
from specs.states import Desired, TaskState
from specs.task import Run, Task, TaskStatus
from specs.wire import LogLine

RUNS = TaskStatus(state=TaskState.RUNNING, ready=True, runs=(Run(number=1, started_at=1.0),))


def one_off(name, **more):
    known = {"id": "o1", "service": "web", "release": 0, "spec_hash": "", "status": RUNS}
    known |= {"desired": Desired.RUNNING, **more}
    task = Task(stack="shop", slot=0, name=name, node="n1", **known)
    return OneOff(task=task, service=ServiceSpec(name="web", task=TaskSpec(image="i")))


@pytest.fixture
async def shop(api):
    """Two web and one migrate, and what `run` made."""
    api.add_stack()
    await api.add_node()
    await api.add_task("task1")
    await api.add_task("task2", slot=2)
    await api.add_task("task3", service="migrate")
    api.cluster.oneoffs["o1"] = one_off("shop-web-run-1")
    return api


SINGLE = {
    "shop-web-2": "task2",
    "web-2": "task2",
    "task2": "task2",
    "shop_web_2": "task2",
    "shop-migrate-1": "task3",
    "shop-web-run-1": "o1",
}


@pytest.mark.parametrize("word", SINGLE)
async def test_verbs_about_containers_are_about_that_one(shop, word):
    for what in ("usage", "processes"):
        _, answer = await shop.call("GET", f"/v1/stacks/shop/{what}?service={word}")
        assert [row["id"] for row in answer["tasks"]] == [SINGLE[word]]
    await shop.call("POST", "/v1/stacks/shop/signal", json={"number": 1, "services": [word]})
    assert shop.agents.signals == [("n1", 1, (SINGLE[word],))]
    await shop.call("POST", "/v1/stacks/shop/pause", json={"paused": True, "services": [word]})
    assert shop.control.calls[-1] == ("pause", "shop", (), True, [SINGLE[word]])


@pytest.mark.parametrize("word", ["shop-web-2", "web-2", "task2"])
async def test_logs_of_one_container(shop, word):
    for task in ("task1", "task2"):
        await shop.agents.add(task, LogLine(stream="stdout", time=1.0, line=task))
    lines = await shop.lines(f"/v1/stacks/shop/logs?service={word}")
    assert [line["line"] for line in lines] == ["task2"]


@pytest.mark.parametrize("verb", ["stop", "start", "forget"])
async def test_verbs_about_services_take_a_service_s_only_container_for_it(shop, verb):
    body = {"services": ["migrate-1"], **({"key": "k"} if verb == "start" else {})}
    status, answer = await shop.call("POST", f"/v1/stacks/shop/{verb}", json=body)
    assert status == 200, answer
    assert "migrate" in repr(shop.control.calls[-1])
    before = len(shop.control.calls)
    body["services"] = ["web-2"]
    problem = await shop.problem("POST", f"/v1/stacks/shop/{verb}", 409, json=body)
    assert "web-2 is one of 2 containers of web" in problem["detail"]
    named = {"forget": "rm"}.get(verb, verb)
    assert problem["hint"].startswith(f"corral {named} web")
    assert len(shop.control.calls) == before, "nothing was asked for"


async def test_what_would_stop_one_of_several_is_refused(shop):
    body = {"number": 15, "services": ["web-2"]}
    problem = await shop.problem("POST", "/v1/stacks/shop/signal", 409, json=body)
    assert "one of 2 containers" in problem["detail"]


async def test_one_that_has_just_gone_is_stopped_and_removed(shop):
    shop.cluster.oneoffs["o1"] = shop.cluster.oneoffs["o1"].model_copy(update={"gone_at": 5.0})
    for verb in ("stop", "forget"):
        status, _ = await shop.call(
            "POST", f"/v1/stacks/shop/{verb}", json={"services": ["shop-web-run-1"]}
        )
        assert status == 200
    assert [call for call in shop.control.calls if call[0] in ("stop", "forget")] == [], (
        "law: a name that means nothing any more never means everything"
    )


@pytest.fixture
async def blue_green(api):
    """One web that serves, and beside it the old one, which stands by."""
    api.add_stack(standby={"web": Standby(hashes=("old",), since=1.0, until=9e9)})
    await api.add_node()
    await api.add_task("older", spec_hash="old", created_at=1.0)
    await api.add_task("newer", created_at=2.0, release=1)
    return api


@pytest.mark.parametrize("word", ["web", "web-1", "shop-web-1", "shop_web_1", "newer"])
async def test_what_stands_by_is_not_meant_by_its_service_or_name(blue_green, word):
    shop = blue_green
    for what in ("usage", "processes"):
        _, answer = await shop.call("GET", f"/v1/stacks/shop/{what}?service={word}")
        assert [row["id"] for row in answer["tasks"]] == ["newer"]
    await shop.call("POST", "/v1/stacks/shop/signal", json={"number": 1, "services": [word]})
    assert shop.agents.signals == [("n1", 1, ("newer",))]
    if word != "web":  # of a whole service it is the control that picks: see test_rollback
        body = {"services": [word], "paused": True}
        await shop.call("POST", "/v1/stacks/shop/pause", json=body)
        assert shop.control.calls[-1] == ("pause", "shop", (), True, ["newer"])
        assert named.restarting(shop.cluster, "shop", [word]) == ((), ("newer",))
    if word == "shop-web-1":
        _, task = await shop.call("GET", f"/v1/tasks/{word}")
        assert task["id"] == "newer"


@pytest.mark.parametrize("word", ["older", "olde"])
async def test_what_stands_by_is_called_by_its_id(blue_green, word):
    _, answer = await blue_green.call("GET", f"/v1/stacks/shop/processes?service={word}")
    assert [row["id"] for row in answer["tasks"]] == ["older"]


async def test_a_row_says_what_stands_by(blue_green):
    _, answer = await blue_green.call("GET", "/v1/stacks/shop/tasks")
    assert {row["id"]: row["beside"] for row in answer["tasks"]} == {
        "older": "stands by",
        "newer": "",
    }


async def test_logs_are_followed_of_those_that_serve(blue_green):
    shop = blue_green
    await shop.agents.add("older", LogLine(stream="stdout", time=1.0, line="older"))
    await shop.agents.add("newer", LogLine(stream="stdout", time=2.0, line="newer"))
    lines = StackLogs(shop.parts, "shop", frozenset({"web"}), LogQuery(follow=True)).lines()
    async with asyncio.timeout(30):
        first = await anext(lines)
        await lines.aclose()
    assert first[0].line == "newer"


@pytest.fixture
async def scheduled(api):
    """A service that runs by a schedule: one iteration is over, one goes on, one is not begun."""
    api.add_stack()
    await api.add_node()
    names = {"o1": "shop-tick-1", "o2": "shop-tick-2", "o3": "shop-tick-3"}
    begun = {"o1": TaskState.COMPLETE, "o2": TaskState.RUNNING, "o3": TaskState.PENDING}
    for number, (task, name) in enumerate(names.items(), 1):
        status = TaskStatus(state=begun[task], runs=(Run(number=1, started_at=1.0),))
        one = one_off(name, id=task, service="tick", status=status)
        api.cluster.oneoffs[task] = one
        await api.agents.add(task, LogLine(time=float(number), stream="stdout", line=name))
    api.cluster.oneoffs["o9"] = one_off("shop-tick-run-9", id="o9", service="tick")
    await api.agents.add("o9", LogLine(time=9.0, stream="stdout", line="by hand"))
    api.cluster.schedules["shop", "tick"] = Schedule(
        stack="shop",
        service="tick",
        spec=ScheduleSpec(cron="0 0 1 1 *"),
        since=0.0,
        iterations=tuple(
            Iteration(number=n, task=task, name=name)
            for n, (task, name) in enumerate(names.items(), 1)
        ),
    )
    return api


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ["shop-tick-1", "shop-tick-2"]),
        ("?service=tick", ["shop-tick-1", "shop-tick-2"]),
        ("?service=tick-1", ["shop-tick-1"]),
        ("?service=tick-run-9", ["by hand"]),
        ("?service=web", []),
    ],
)
async def test_the_logs_of_a_scheduled_service_are_its_iterations(scheduled, asked, found):
    lines = await scheduled.lines(f"/v1/stacks/shop/logs{asked}")
    assert [line["line"] for line in lines] == found


@pytest.mark.parametrize(
    ("change", "services", "expected"),
    [
        ({}, (), True),
        ({}, ("tick",), True),
        ({}, ("other",), False),
        ({"iterations": ()}, ("tick",), True),
        ({"iterations": (), "held": True}, ("tick",), False),
        ({"iterations": (), "resting": True}, ("tick",), False),
        ({"held": True}, ("tick",), True),
    ],
)
async def test_its_logs_are_followed_while_an_iteration_may_come(
    scheduled, change, services, expected
):
    cluster = scheduled.cluster
    record = cluster.schedules["shop", "tick"]
    cluster.schedules["shop", "tick"] = record.model_copy(update=change)
    assert goes_on(cluster, "shop", services) is expected
