"""When `up` says that it went well: crash loops, one-offs, updates, what may be missing."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.real

OPTIONAL = """
services:
  fails:
    image: busybox
    command: [sh, -c, "echo no such table; exit 3"]
    restart: "no"
  sick:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    healthcheck: {test: [CMD, "false"], interval: 100ms, timeout: 60s, retries: 2}
  nowhere:
    image: busybox
    command: [sleep, inf]
    deploy: {placement: {constraints: [node.labels.disk == gold]}}
  none:
    image: busybox
    command: [sleep, inf]
    scale: 0
  off:
    image: busybox
    command: [sleep, inf]
    profiles: [extra]
  blocked:
    image: busybox
    command: [sleep, inf]
    depends_on: {fails: {condition: service_completed_successfully}}
  web:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    depends_on:
      fails: {condition: service_completed_successfully, required: false}
      sick: {condition: service_healthy, required: false}
      nowhere: {condition: service_started, required: false}
      none: {condition: service_healthy, required: false}
      off: {condition: service_started, required: false}
      blocked: {condition: service_started, required: false}
"""

LOOP = """
services:
  web:
    image: busybox
    command: [sh, -c, "echo no route to db; %s"]
    restart: always
"""

SHOP = """
services:
  web:
    image: busybox
    command: [sh, -c, "%s"]
    restart: always
    stop_grace_period: 0s
  job:
    image: busybox
    command: [sh, -c, "echo migrated"]
    restart: "no"
"""
SLEEP = "exec sleep inf"


def took(corral, *words, code=0):
    began = time.monotonic()
    done = corral(*words, code=code)
    return time.monotonic() - began, done


def test_whatever_becomes_of_what_is_not_required_it_goes_on_without_it(corral):
    corral.compose(OPTIONAL)
    seconds, done = took(corral, "up", "-d")
    assert seconds < 300, "a task without a node is waited for 5 s, nothing until the deadline"
    warned = [line for line in done.stderr.splitlines() if "warning" in line]
    for name, why in (
        ("fails", "exited with code 3"),
        ("sick", "is unhealthy"),
        ("nowhere", "no node fits"),
        ("off", "is not active"),
        ("blocked", "is blocked by fails"),
    ):
        assert any(name in line and why in line for line in warned), (name, done.stderr)
        assert any(f"web goes on without {name}" in line for line in warned) or name == "off"
    states = {row["service"]: row["state"] for row in corral.rows(ended=True)}
    assert states["web"] == "running"
    assert states["fails"] == "failed"
    assert corral.get("/v1/stacks")["stacks"][0]["status"] != "failed"


def test_a_crash_loop_is_no_success(corral):
    corral.compose(LOOP % "exit 4")
    seconds, done = took(corral, "up", "-d", "--wait", code=1)
    assert 15 < seconds < 400, "a verdict before the deadline of the release"
    assert "exited with code 4" in done.stderr
    assert "restarted 9 times and never up for 5 s" in done.stderr
    assert "| no route to db" in done.stderr, "the last lines are shown"
    corral.compose(LOOP % "sleep 0.3; exit 4")
    seconds, done = took(corral, "up", "-d", "--wait", "--deadline", "5", code=1)
    assert seconds < 300
    assert "exit code 4" in done.stderr
    assert "| no route to db" in done.stderr


def test_a_quiet_release_waits_for_a_second_and_an_update_for_its_monitor_time(corral):
    corral.compose(SHOP % SLEEP)
    seconds, done = took(corral, "up", "-d")
    assert seconds < 300, done.stderr
    web = corral.task(corral.row("web-1"))
    started = web["status"]["runs"][-1]["started_at"]
    assert time.time() - started >= 1.0, "it ran for a second when `up` came back"
    _, unchanged = took(corral, "up", "-d")
    assert "watched for" not in unchanged.stderr, "nothing was new, so nothing was watched"
    assert corral.row("web-1")["id"] == web["id"], "nothing is replaced, nothing is tried again"
    corral.compose(SHOP % "sleep 2; echo gone; exit 4")
    updated, done = took(corral, "up", "-d", code=1)
    assert 2 < updated < 300
    assert "update of web failed" in done.stderr
    assert "| gone" in done.stderr
    corral.compose(SHOP % f"true; {SLEEP}")
    watched, done = took(corral, "up", "-d")
    assert watched >= 5
    assert "web: all of it runs; watched for 5 s before that counts" in done.stderr
    at_once = "    deploy: {update_config: {monitor: 0s}}\n    restart: always\n"
    corral.compose((SHOP % SLEEP).replace("    restart: always\n", at_once))
    _, done = took(corral, "up", "-d")
    assert "watched for" not in done.stderr
