"""What `corral events` says of a task, by what changed in its record."""

from __future__ import annotations

import pytest

from orchestrator.control.telling.news import news_of
from specs.states import Desired, Health, TaskState
from specs.task import Run, Task, TaskStatus


def a_run(number=1, code=None, *, ended=False, **fields):
    end = 20.0 + number if ended or code is not None else None
    return Run(number=number, started_at=10.0 + number, finished_at=end, exit_code=code, **fields)


def a_task(*runs, state=TaskState.RUNNING, health=Health.NONE, **fields):
    return Task(
        id="t", stack="shop", service="web", slot=1, name="shop-web-1", release=1, spec_hash="",
        desired=Desired.RUNNING, status=TaskStatus(state=state, health=health, runs=runs, **fields),
    )  # fmt: skip


BEGUN = a_task(a_run(1))
OVER = a_task(a_run(1, 3))
AGAIN = a_task(a_run(1, 3), a_run(2))
MADE = a_task(a_run(1, 3), Run(number=2))
THRICE = a_task(a_run(2, 3), a_run(3))


@pytest.mark.parametrize(
    ("old", "new", "kinds", "words"),
    [
        (None, a_task(state=TaskState.NEW), ["task.new"], "is new"),
        (a_task(state=TaskState.STARTING), BEGUN, ["task.running"], "is running"),
        (BEGUN, OVER, ["run.ended"], "exit code 3"),
        (OVER, AGAIN, ["run.started"], "started again"),
        (BEGUN, AGAIN, ["run.ended", "run.started"], "exit code 3"),
        (BEGUN, THRICE, ["run.ended", "run.started"], "exit code 3"),
        (OVER, MADE, [], ""),
        (MADE, AGAIN, ["run.started"], "started again"),
        (AGAIN, AGAIN, [], ""),
        (BEGUN, a_task(a_run(1, ended=True, oom=True)), ["run.ended"], "memory"),
        (BEGUN, a_task(a_run(1, ended=True)), ["run.ended"], "unknown"),
        (BEGUN, a_task(a_run(1), health=Health.STARTING), [], ""),
        (BEGUN, a_task(a_run(1), health=Health.HEALTHY), ["health.healthy"], "is healthy"),
        (BEGUN, a_task(a_run(1), health=Health.UNHEALTHY), ["health.unhealthy"], "is unhealthy"),
        (BEGUN, a_task(a_run(1), ready=True, ready_reason="x"), [], ""),
        (BEGUN, a_task(a_run(1, 3), state=TaskState.FAILED), ["task.failed"], "exit code 3"),
        (OVER, a_task(a_run(1, 3), state=TaskState.FAILED), ["task.failed"], "is failed"),
        (BEGUN, a_task(a_run(1, 0), state=TaskState.COMPLETE), ["task.complete"], "exit code 0"),
        (a_task(), a_task(state=TaskState.ORPHANED), ["task.orphaned"], "is orphaned"),
        (OVER, None, ["task.removed"], "is removed"),
        (None, None, [], ""),
    ],
)  # fmt: skip
def test_what_is_told_of_a_change(old, new, kinds, words):
    told = list(news_of(old, new))
    assert [news.kind for news in told] == kinds
    assert words in " ".join(news.text for news in told)
    assert all(news.text.startswith("shop-web-1 ") for news in told)
