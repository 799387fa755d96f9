"""What people read of a task: the same words in ``ps`` and in the progress of ``up``."""

from __future__ import annotations

import re
from itertools import product
from types import SimpleNamespace

import pytest

from orchestrator.api.rows import container_counts, node_row, port_text, service_rows, task_row
from orchestrator.cli.show import containers
from orchestrator.control.mirror.serving import serves
from orchestrator.control.telling.causes import explain_task
from orchestrator.control.telling.progress import task_line
from orchestrator.control.telling.words import service_counts, words_of
from specs.api import Release, Stack
from specs.kit.amounts import size, span
from specs.node import Node, NodeCondition, NodeFacts
from specs.stack import Port, ServiceSpec, StackSpec, TaskSpec
from specs.states import FINAL, Desired, Health, TaskState
from specs.task import Run, Task, TaskStatus

NOW = 1000.0
RUN = Run(number=1, pid=1, started_at=NOW - 130)
OVER = Run(number=1, started_at=NOW - 130, finished_at=NOW - 5, exit_code=1, reason="code 1")


def a_task(status, **changes):
    fields = {"id": "t", "stack": "s", "service": "web", "slot": 1, "name": "n", "release": 1,
              "spec_hash": "", "desired": Desired.RUNNING, "status": status}  # fmt: skip
    return Task(**{**fields, **changes})


def a_cluster(condition="ready", *tasks):
    service = ServiceSpec(name="web", task=TaskSpec(image="nginx"), replicas=2)
    spec = StackSpec(name="s", services={"web": service})
    return SimpleNamespace(
        nodes={"n1": Node(id="n1", name="alpha")},
        conditions={"n1": NodeCondition(status=condition)},
        releases={("s", 1): Release(stack="s", number=1, spec="hash")},
        parts={"hash": spec},
        stacks={"s": Stack(name="s", release=1)},
        tasks={task.id: task for task in tasks},
        network_name=lambda network: network,
        tasks_of=lambda stack: [task for task in tasks if task.stack == stack],
        tasks_on=lambda node: [task for task in tasks if task.node == node],
    )


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (a_task(TaskStatus(state=TaskState.NEW)), "pending"),
        (
            a_task(TaskStatus(state=TaskState.PENDING), pending_reason="no node has 8 GiB free"),
            "pending: no node has 8 GiB free",
        ),
        (
            a_task(TaskStatus(state=TaskState.PREPARING, reason="pulling nginx")),
            "preparing: pulling nginx",
        ),
        (
            a_task(TaskStatus(state=TaskState.PREPARING, reason="no route", retry_in=0.5)),
            "preparing: no route; trying again in 0.5 s",
        ),
        (a_task(TaskStatus(state=TaskState.PREPARED)), "prepared"),
        (a_task(TaskStatus(state=TaskState.RUNNING, ready=True, runs=(RUN,))), "running 2 min"),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,), health=Health.UNHEALTHY,
                              ready_reason="the check fails")),
            "running 2 min (unhealthy, not ready: the check fails)",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,), health=Health.UNHEALTHY,
                              ready_reason="unhealthy")),
            "running 2 min (unhealthy)",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,), health=Health.HEALTHY,
                              ready=True, unasked="no space is left")),
            "running 2 min (healthy, not asked: no space is left)",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(OVER,), restarts=2)),
            "restarting: exit code 1, 2 restarts",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(OVER, Run(number=2)), restarts=2,
                              ready_reason="exited with 1")),
            "restarting: exit code 1, 2 restarts",  # the next one is recorded and not yet started
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(OVER, RUN), restarts=2,
                              ready_reason="is being stopped")),
            "running 2 min (not ready: is being stopped)",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,)), desired=Desired.SHUTDOWN),
            "stopping",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,)), leaving=True),
            "stopping",
        ),
        (
            a_task(TaskStatus(state=TaskState.FAILED, runs=(OVER,),
                              reason="code 1; restarted 2 times, the limit")),
            "failed: exit code 1; restarted 2 times, the limit, 5 s ago",
        ),
        (
            a_task(TaskStatus(state=TaskState.FAILED, runs=(OVER,), reason="code 1")),
            "failed: exit code 1, 5 s ago",
        ),
        (a_task(TaskStatus(state=TaskState.REJECTED, reason="no image")), "rejected: no image"),
    ],
)  # fmt: skip
def test_status_says_how_long_and_why(task, text):
    assert words_of(a_cluster(), task, NOW).text == text


def every_task():
    """Every state with everything that may be said beside it."""
    runs = {"none": (), "runs": (RUN,), "over": (OVER,)}
    for state, leaving, desired, health, run, ready, reason in product(
        TaskState, (False, True), Desired, Health, runs, (False, True), ("", "why")
    ):
        status = TaskStatus(
            state=state,
            ready=ready,
            ready_reason="" if ready else reason,
            reason=reason,
            health=health,
            runs=runs[run],
            restarts=1 if run == "over" else 0,
        )
        waiting = reason if state in (TaskState.NEW, TaskState.PENDING) else ""
        yield a_task(status, leaving=leaving, desired=desired, node="n1", pending_reason=waiting)


def without_times(text):
    return re.sub(r",? \d+ (s|min|h|days)( ago)?", "", text)


@pytest.mark.parametrize("condition", ["ready", "unknown", "down"])
def test_ps_and_up_say_the_same_of_every_task(condition):
    cluster = a_cluster(condition)
    for task in every_task():
        row, line = task_row(cluster, task, now=NOW), task_line(cluster, task)
        told = f"{task!r}"
        assert without_times(row.status) == line["message"], told
        assert without_times(line["message"]) == line["message"], f"up tells no times: {told}"
        assert (row.state, row.ready, row.health) == (
            line["state"],
            line["ready"],
            line["health"],
        ), told
        assert (row.stopping, row.reason) == (line["stopping"], line["reason"]), told
        if task.state not in FINAL and condition != "ready":
            assert row.status.startswith(f"{condition}: "), told
        elif task.state not in FINAL and (
            task.leaving or task.desired in (Desired.SHUTDOWN, Desired.REMOVED)
        ):
            assert (row.status, row.stopping) == ("stopping", True), told


@pytest.mark.parametrize("condition", ["ready", "unknown", "down"])
def test_ps_ls_and_up_count_the_same_tasks_as_serving(condition):
    for task in every_task():
        cluster = a_cluster(condition, task)
        serve, wanted = service_counts(cluster, cluster.stacks["s"], [task])["web"]
        (row,) = service_rows(cluster, cluster.stacks["s"], [task])
        assert (row.ready, row.replicas) == (serve, wanted) == (serves(cluster, task), 2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
     (172799, "47 h"), (172800, "2 days")],
)  # fmt: skip
def test_durations_have_one_unit(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1000 << 20, "1000 MiB"),
     (8 << 30, "8 GiB"), (3 << 41, "6 TiB")],
)  # fmt: skip
def test_sizes_have_one_unit(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("port", "chosen", "text"),
    [
        (Port(target=80), {}, "80/tcp"),
        (Port(target=80, published=8080), {}, "0.0.0.0:8080->80/tcp"),
        (Port(target=80), {"80/tcp": 32768}, "0.0.0.0:32768->80/tcp"),
        (Port(target=53, published=53, protocol="udp", host_ip="127.0.0.1"), {},
         "127.0.0.1:53->53/udp"),
        (Port(target=80, published=80, host_ip="::1"), {}, "[::1]:80->80/tcp"),
    ],
)  # fmt: skip
def test_ports_look_as_dockers(port, chosen, text):
    assert port_text(port, chosen) == text


@pytest.mark.parametrize(
    ("reason", "unread", "says"),
    [
        ("", (), ""),
        ("", None, "no image fits in /v"),
        ("said nothing for 9 s", None, "said nothing for 9 s"),
        ("", ("the journal: line 1 of 2 is damaged",), "cannot read the journal: line 1 of 2"),
        ("", ("a", "b", "c"), "cannot read a, and 2 more"),
        ("said nothing for 9 s", ("a",), "said nothing for 9 s"),
    ],
)
def test_a_node_that_cannot_read_something_says_so_where_nodes_are_listed(reason, unread, says):
    facts = NodeFacts(cramped="no image fits in /v") if unread is None else NodeFacts(unread=unread)
    node = Node(id="n1", name="alpha", facts=facts)
    condition = NodeCondition(status="ready", reason=reason)
    cluster = SimpleNamespace(
        nodes={"n1": node},
        tasks_on=lambda _: [],
        conditions={"n1": condition},
    )
    row = node_row(cluster, node, now=NOW)
    assert row.reason.startswith(says)
    assert bool(row.reason) == bool(says)
    assert len(row.warnings) == (1 if unread is None else len(unread))


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("exited with 1", "web: n exited with code 1"),
        (
            "exited with 1; its restart policy is none",
            "web: n exited with code 1 (its restart policy is none)",
        ),
        ("exited with 12", "web: n exited with code 1 (exited with 12)"),
        ("killed: no memory", "web: n exited with code 1 (killed: no memory)"),
        ("code 1", "web: n exited with code 1"),
        ("", "web: n exited with code 1"),
    ],
)
def test_the_code_of_a_failure_is_said_once(reason, told):
    over = OVER.model_copy(update={"reason": ""})
    status = TaskStatus(state=TaskState.FAILED, runs=(over,), reason=reason)
    cause = explain_task(a_cluster(), a_task(status, node="n1"), "")
    assert cause.message == told


CRASHED = OVER.model_copy(update={"reason": "exited with 1"})
ASKED = Run(number=1, started_at=NOW - 130, finished_at=NOW - 5, exit_code=137,
            reason="stopped (restart)")  # fmt: skip
CUT = Run(number=1, started_at=NOW - 130, finished_at=NOW - 5, reason="the machine was restarted")
SICK = {"state": TaskState.STARTING, "health": Health.UNHEALTHY,
        "reason": "unhealthy: 3 failed checks in a row"}  # fmt: skip
AGAIN = Run(number=2, pid=1, started_at=NOW - 4)


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ((RUN,), "web: n is unhealthy (3 failed checks in a row)"),
        ((ASKED, AGAIN), "web: n is unhealthy (3 failed checks in a row)"),  # `restart` ended it
        ((CUT, AGAIN), "web: n is unhealthy (3 failed checks in a row)"),  # a reboot did
        ((CRASHED, AGAIN), "web: n exited with code 1 (unhealthy: 3 failed checks in a row)"),
        ((CRASHED, ASKED.model_copy(update={"number": 2}), AGAIN.model_copy(update={"number": 3})),
         "web: n exited with code 1 (unhealthy: 3 failed checks in a row)"),
        ((), "web: n is unhealthy (3 failed checks in a row)"),
    ],
)  # fmt: skip
def test_an_end_that_was_asked_for_is_no_cause(runs, told):
    cause = explain_task(a_cluster(), a_task(TaskStatus(runs=runs, **SICK), node="n1"), "")
    assert cause.message == told
    assert cause.exit_code == (1 if CRASHED in runs else None)


@pytest.mark.parametrize(
    ("addresses", "known", "names"),
    [
        ({}, {}, ()),
        ({"i1": "10.0.0.2"}, {"i1": "shop_default"}, ("shop_default",)),
        ({"i1": "10.0.0.2", "i2": "10.0.1.2"}, {"i1": "z", "i2": "a"}, ("a", "z")),
        ({"i1": "10.0.0.2", "i2": "10.0.1.2"}, {"i1": "z"}, ("i2", "z")),
    ],
)
def test_networks_are_told_by_their_names_and_their_ids(addresses, known, names):
    task = a_task(TaskStatus(), node="n1", addresses=addresses)
    cluster = a_cluster("ready", task)
    cluster.network_name = lambda network: known.get(network, network)
    row = task_row(cluster, task, now=NOW)
    assert row.networks == names
    assert row.network_ids == tuple(sorted(addresses))


def test_no_row_and_no_progress_shows_a_secret_value():
    """The command, and what an agent says of it, may have one; containers' output is not ours."""
    command = ("env", "API_TOKEN=hunter2", "serve", "--db-password", "hunter2", "--mode", "fast")
    task = a_task(
        TaskStatus(state=TaskState.PREPARING, reason="exec: API_TOKEN=hunter2: not found"),
        node="n1",
    )
    cluster = a_cluster("ready", task)
    web = cluster.parts["hash"].services["web"]
    told = web.model_copy(update={"task": web.task.model_copy(update={"command": command})})
    cluster.parts["hash"] = StackSpec(name="s", services={"web": told})
    row = task_row(cluster, task, now=NOW)
    assert row.command == "env API_TOKEN=*** serve --db-password *** --mode fast"
    assert row.reason == "exec: API_TOKEN=*** not found"
    assert "hunter2" not in f"{row} {task_line(cluster, task)}"


ENDED_ROW = Run(number=1, started_at=NOW - 9, finished_at=NOW - 5, exit_code=0)
COUNTED = {
    "runs": ([a_task(TaskStatus(state=TaskState.RUNNING, ready=True, runs=(RUN,)))],
             {"running": 1}),
    "completed": ([a_task(TaskStatus(state=TaskState.COMPLETE, runs=(ENDED_ROW,)))],
                  {"exited": 1}),
    "waits": ([a_task(TaskStatus(state=TaskState.PENDING))], {"created": 1}),
    "crashes": ([a_task(TaskStatus(state=TaskState.RUNNING, runs=(OVER,), restarts=2))],
                {"restarting": 1}),
    "paused": ([a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,), paused=True))],
               {"paused": 1}),
    "replaced, the old one still ends": (
        [a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,)), id="a", leaving=True),
         a_task(TaskStatus(state=TaskState.PREPARING), id="b", created_at=9.0)],
        {"created": 1},
    ),
    "failed before": (
        [a_task(TaskStatus(state=TaskState.FAILED, runs=(OVER,)), id="a", created_at=9.0),
         a_task(TaskStatus(state=TaskState.RUNNING, ready=True, runs=(RUN,)), id="b")],
        {"running": 1},
    ),
    "of two services": (
        [a_task(TaskStatus(state=TaskState.RUNNING, ready=True, runs=(RUN,)), id="a", name="w"),
         a_task(TaskStatus(state=TaskState.COMPLETE, runs=(ENDED_ROW,)), id="b", name="m"),
         a_task(TaskStatus(state=TaskState.RUNNING, ready=True, runs=(RUN,)), id="c", name="x")],
        {"exited": 1, "running": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTED)
def test_ls_counts_containers_by_docker_s_words_as_ps_shows_them(case):
    tasks, counted = COUNTED[case]
    cluster = a_cluster("ready", *tasks)
    assert container_counts(cluster, tasks) == counted
    rows = [task_row(cluster, task, now=NOW).model_dump(mode="json") for task in tasks]
    meant = containers.now(rows)
    words = [containers.state_of(row) for row in rows if row["id"] in meant]
    assert {word: words.count(word) for word in words} == counted, "law: ls and ps say the same"


@pytest.mark.parametrize(
    ("spec", "status", "shown"),
    [
        ({"command": ("sleep", "9")}, {}, "sleep 9"),
        ({}, {}, ""),  # not known yet
        ({}, {"command": ("nginx", "-g", "daemon off;")}, "nginx -g daemon off;"),
        ({"command": ("serve",)}, {"command": ("/entry", "serve")}, "/entry serve"),
        ({}, {"command": ("run", "--password", "x")}, "run --password ***"),
    ],
)
def test_the_command_is_the_image_s_where_the_file_gives_none(spec, status, shown):
    task = a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,), **status))
    row = task_row(a_cluster(), task, now=NOW, spec=TaskSpec(image="nginx", **spec))
    assert row.command == shown
