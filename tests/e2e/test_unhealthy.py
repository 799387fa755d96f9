"""Unhealthy containers: marked or restarted, and what becomes of those who wait for them."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.real

LIVE = "trap 'exit 0' TERM; sleep inf & wait"
CHECK = "{test: [CMD-SHELL, 'test ! -e /tmp/sick || { echo feels bad; exit 1; }'], "
CHECK += "interval: 200ms, timeout: 60s, retries: 2, start_period: 5s, start_interval: 100ms}"
SERVICE = f"""
    image: busybox
    command: [sh, -c, "rm -f /tmp/sick; {LIVE}"]
    healthcheck: {CHECK}
"""
STACK = f"""
services:
  marked: {SERVICE}
  policy: {SERVICE}
    restart: on-failure
  asked: {SERVICE}
    x-corral: {{on_unhealthy: restart}}
  kept: {SERVICE}
    restart: always
    x-corral: {{on_unhealthy: keep}}
"""
DEPENDENT = f"""
  web:
    image: busybox
    command: [sh, -c, "{LIVE}"]
    depends_on: {{marked: {{condition: service_healthy}}}}
"""
UNCHECKED = f"""
services:
  plain:
    image: busybox
    command: [sh, -c, "{LIVE}"]
  other:
    image: busybox
    command: [sh, -c, "{LIVE}"]
    depends_on: {{plain: {{condition: service_healthy}}}}
"""
RESTARTED = {"marked": False, "policy": True, "asked": True, "kept": False}


def test_what_becomes_of_sick_containers_and_who_waits_for_them(corral):
    corral.compose(STACK)
    corral("up", "-d")
    pids = {service: corral.pid(f"{service}-1") for service in RESTARTED}
    for service in RESTARTED:
        corral("exec", "-T", service, "touch", "/tmp/sick")
    for service, restarted in RESTARTED.items():
        row = lambda service=service: corral.row(f"{service}-1")  # noqa: E731 - short
        if restarted:
            corral.until(
                f"{service} is well again", lambda row=row: row()["ready"] and row()["restarts"]
            )
            assert corral.pid(f"{service}-1") != pids[service]
        else:
            corral.until(f"{service} is marked", lambda row=row: row()["health"] == "unhealthy")
    for service in ("marked", "kept"):
        row = corral.row(f"{service}-1")
        assert (row["ready"], row["restarts"], row["state"]) == (False, 0, "running")
        assert corral.pid(f"{service}-1") == pids[service], "it was not touched"
    assert "(unhealthy" in corral("ps").stdout

    # Nothing has changed: it is told and not waited for, but `--wait` asks for health.
    told = corral("up", "-d").stderr
    assert "marked: app-marked-1 is unhealthy" in told
    assert "it was there before and is left as it is" in told
    assert "app-kept-1: running" in corral("up", "--wait", code=1).stderr

    corral.compose(STACK + DEPENDENT)
    begun = time.monotonic()
    failed = corral("up", "-d", code=1)
    assert time.monotonic() - begun < 300, "at once, not at its deadline"
    said = failed.stdout + failed.stderr
    assert "app-marked-1 is unhealthy" in said
    assert "feels bad" in said
    assert "web is blocked by marked" in said
    assert corral.pid("marked-1") == pids["marked"]

    corral("exec", "-T", "marked", "rm", "/tmp/sick")
    corral.until("it got well by itself", lambda: corral.row("marked-1")["ready"])
    corral("exec", "-T", "kept", "rm", "/tmp/sick")
    corral("up", "-d")
    assert corral.row("web-1")["ready"]

    # What nothing checks is never healthy: who waits for that is told at once, and goes without
    # where it may. busybox brings none.
    corral.compose(UNCHECKED)
    failed = corral("up", "-d", code=1)
    assert "other waits for plain to be healthy, but plain has no health check" in failed.stderr
    assert corral.row("plain-1")["ready"]
    corral.compose(UNCHECKED.replace("healthy}", "healthy, required: false}"))
    went = corral("up", "-d")
    assert "other goes on without waiting for plain to be healthy" in went.stderr
    assert corral.row("other-1")["ready"]
