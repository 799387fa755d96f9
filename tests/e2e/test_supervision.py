"""Health and restarts: what is routed to, what is started again and when, what is given up."""

from __future__ import annotations

import itertools

import pytest

from specs.kit import backoff

pytestmark = pytest.mark.real

LIVE = "trap 'exit 0' TERM; sleep inf & wait"


def service(name, script, **keys):
    lines = [f"  {name}:", "    image: busybox", f'    command: [sh, -c, "{script}"]']
    return "\n".join([*lines, *(f"    {key}: {value}" for key, value in keys.items())]) + "\n"


def runs(corral, name):
    return corral.task(corral.row(name))["status"]["runs"]


def test_an_unhealthy_container_is_taken_out_and_restarted(corral):
    check = (
        "{test: [CMD, test, '!', -e, /tmp/sick], interval: 200ms, timeout: 60s, retries: 2, "
        "start_period: 5s, start_interval: 100ms}"
    )
    corral.compose(
        "services:\n"
        + service("web", "rm -f /tmp/sick; " + LIVE, healthcheck=check, restart="always",
                  deploy="{replicas: 2}")
    )  # fmt: skip
    corral("up", "-d")
    assert {row["health"] for row in corral.rows()} == {"healthy"}
    sick = corral.row("web-1")
    pid = corral.pid("web-1")
    corral("exec", "-T", "--index", "1", "web", "touch", "/tmp/sick")
    corral.until("noticed", lambda: corral.row("web-1")["restarts"] == 1)
    corral.until("healthy again", lambda: corral.row("web-1")["ready"])
    assert corral.row("web-1")["id"] == sick["id"]
    assert corral.pid("web-1") != pid
    assert "health" in runs(corral, "web-1")[-2]["reason"]
    assert corral.row("web-2")["restarts"] == 0


def test_a_service_that_never_gets_healthy_fails_with_the_check_s_words(corral):
    check = "{test: [CMD-SHELL, 'echo cannot reach db; exit 1'], interval: 100ms, retries: 2}"
    corral.compose("services:\n" + service("web", LIVE, healthcheck=check, restart='"no"'))
    done = corral("up", "-d", "--deadline", "15", code=1)
    assert "unhealthy" in done.stderr
    assert "cannot reach db" in done.stderr


def test_restart_policies(corral):
    one_off = {"restart": '"no"'}
    corral.compose(
        "services:\n"
        + service("never", "exit 3", **one_off)
        + service("done", "exit 0", restart="on-failure")
        + service("twice", "exit 4", restart="on-failure:2")
        + service("always", "sleep 0.2; exit 0", restart="always")
    )
    corral("up", "-d", code=None)
    corral.until("always went round", lambda: corral.row("always-1")["restarts"] >= 2)
    corral.until("twice gave up", lambda: corral.row("twice-1")["state"] == "failed")
    corral.until("never has ended", lambda: corral.row("never-1")["state"] == "failed")
    assert corral.row("never-1")["exit_code"] == 3
    assert corral.row("never-1")["restarts"] == 0
    corral.until("done has ended", lambda: corral.row("done-1")["state"] == "complete")
    total = sum(1 + row["restarts"] for row in corral.rows(ended=True) if row["service"] == "twice")
    assert total == 3, "the first start and two more"
    assert corral.row("twice-1")["exit_code"] == 4


def test_restarts_back_off(corral):
    corral.compose("services:\n" + service("web", "exit 1", restart="always"))
    corral("up", "-d", code=None, timeout=240)
    corral.until("five runs", lambda: len(runs(corral, "web-1")) >= 5, 120)
    last = [run for run in runs(corral, "web-1") if run["started_at"]][-5:]
    gaps = [b["started_at"] - a["finished_at"] for a, b in itertools.pairwise(last)]
    # At least the pause, which doubles; how much later it starts is the machine's business.
    pauses = [backoff.after(run["number"], first=0.1, longest=60) for run in last[:-1]]
    assert all(gap >= pause for gap, pause in zip(gaps, pauses, strict=True)), (gaps, pauses)
    assert gaps[-1] < 60, "not the longest pause at once"


def test_a_container_killed_for_memory_says_so(corral):
    corral.compose(
        "services:\n"
        + service(
            "hog",
            "sleep 0.3; tail /dev/zero",
            restart='"no"',
            deploy="{resources: {limits: {memory: 16M}}}",
        )
    )
    corral("up", "-d", code=None)
    corral.until("ended", lambda: corral.row("hog-1")["state"] == "failed")
    (run,) = runs(corral, "hog-1")
    assert run["oom"]
    assert run["exit_code"] == 137
    assert (
        "memory" in corral("ps", "-a").stdout.lower() or "oom" in corral("ps", "-a").stdout.lower()
    )
