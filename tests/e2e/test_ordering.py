"""depends_on as a user sees it: what starts when, what is blocked, what is refused."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.real

BLOCKED = """
services:
  migrate:
    image: busybox
    command: [sh, -c, "echo connecting; echo no such table: entries; exit 3"]
    restart: "no"
  web:
    image: busybox
    command: [sleep, inf]
    depends_on: {migrate: {condition: service_completed_successfully}}
  proxy:
    image: busybox
    command: [sleep, inf]
    depends_on: [web]
  aside:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
"""

CYCLE = """
services:
  a: {image: busybox, depends_on: [b]}
  b: {image: busybox, depends_on: [c]}
  c: {image: busybox, depends_on: [a]}
"""

CHAIN = """
services:
  first:
    image: busybox
    command: [sh, -c, "sleep 0.4; touch /tmp/ok; trap 'exit 0' TERM; sleep inf & wait"]
    healthcheck: {test: [CMD, test, -e, /tmp/ok], interval: 100ms, retries: 1000}
  job:
    image: busybox
    command: [sh, -c, "sleep 0.3; echo done"]
    restart: "no"
    depends_on: {first: {condition: service_healthy}}
  last:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    depends_on: {job: {condition: service_completed_successfully}}
"""


def test_a_failing_migration_ends_up_with_its_words(corral):
    corral.compose(BLOCKED)
    began = time.monotonic()
    done = corral("up", "-d", code=1)
    assert time.monotonic() - began < 300, "no deadline is waited for"
    assert "migrate-1" in done.stderr
    assert "no such table: entries" in done.stderr, "the log's tail is shown"
    assert "exited with 3" in done.stderr or "exit code 3" in done.stderr
    assert any(
        "web" in line and "migrate" in line and ("blocked" in line or "waits" in line)
        for line in done.stderr.splitlines()
    ), f"the dependent names what blocks it:\n{done.stderr}"
    rows = {row["service"]: row for row in corral.rows(ended=True)}
    assert rows["migrate"]["exit_code"] == 3
    corral.until("what does not depend on it runs", lambda: corral.row("aside-1")["ready"])
    for name in ("web", "proxy"):
        assert rows.get(name, {}).get("state") not in ("starting", "running")
        assert rows.get(name, {}).get("started_at") is None
    (row,) = corral.get("/v1/stacks")["stacks"]
    assert row["status"] == "failed", "a failed release stays failed"
    assert "migrate" in row["reason"]


def test_a_cycle_is_refused_by_name_and_nothing_is_made(corral):
    corral.compose(CYCLE)
    done = corral("up", "-d", code=1)
    for name in ("a", "b", "c"):
        assert f" {name}" in done.stderr
    assert "->" in done.stderr
    assert "cycle" in done.stderr
    assert corral.get("/v1/stacks")["stacks"] == []


def test_each_starts_after_what_it_needs_and_stops_before_it(corral):
    corral.compose(CHAIN)
    corral("up", "-d")
    runs = {
        name: corral.task(corral.row(f"{name}-1"))["status"]["runs"][-1]
        for name in ("first", "job", "last")
    }
    # By when the file was made: a start is noted when it is seen, which may be later.
    assert runs["job"]["started_at"] >= corral.written_at("first-1", "/tmp/ok"), "healthy first"
    assert runs["last"]["started_at"] >= runs["job"]["finished_at"], "completed first"
    done = corral("down")
    stopped = [line.split()[0] for line in done.stderr.splitlines() if "stopped (" in line]
    assert stopped == ["last-1", "first-1"]
