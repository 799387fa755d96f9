"""What people read of a task."""

from __future__ import annotations

import pytest

from orchestrator.api.rows import ago, port_text, status_text
from specs.stack import Port
from specs.states import Desired, Health, TaskState
from specs.task import Run, Task, TaskStatus

NOW = 1000.0
RUN = Run(number=1, pid=1, started_at=NOW - 130)
OVER = Run(number=1, started_at=NOW - 130, finished_at=NOW - 5, exit_code=1)


def a_task(status, **changes):
    fields = {"id": "t", "stack": "s", "service": "web", "slot": 1, "name": "n", "release": 1,
              "spec_hash": "", "desired": Desired.RUNNING, "status": status}  # fmt: skip
    return Task(**{**fields, **changes})


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (a_task(TaskStatus(state=TaskState.NEW)), "new"),
        (
            a_task(TaskStatus(state=TaskState.PENDING), pending_reason="no node has 8 GiB free"),
            "pending: no node has 8 GiB free",
        ),
        (
            a_task(TaskStatus(state=TaskState.PREPARING, reason="pulling nginx")),
            "preparing: pulling nginx",
        ),
        (a_task(TaskStatus(state=TaskState.PREPARED)), "prepared"),
        (a_task(TaskStatus(state=TaskState.RUNNING, ready=True, runs=(RUN,))), "running 2 min"),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,), health=Health.UNHEALTHY,
                              ready_reason="the check fails")),
            "running 2 min (unhealthy), not ready: the check fails",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(OVER,), reason="exit code 1")),
            "restarting: exit code 1",
        ),
        (
            a_task(TaskStatus(state=TaskState.RUNNING, runs=(RUN,)), desired=Desired.SHUTDOWN),
            "stopping",
        ),
        (
            a_task(TaskStatus(state=TaskState.FAILED, runs=(OVER,), reason="exit code 1")),
            "failed (1) 5 s ago: exit code 1",
        ),
        (a_task(TaskStatus(state=TaskState.REJECTED, reason="no image")), "rejected: no image"),
    ],
)  # fmt: skip
def test_status_says_how_long_and_why(task, text):
    assert status_text(task, now=NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
     (172799, "47 h"), (172800, "2 days")],
)  # fmt: skip
def test_durations_have_one_unit(seconds, text):
    assert ago(seconds) == text


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
