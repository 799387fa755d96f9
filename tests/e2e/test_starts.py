"""up, stop, start and restart of real containers: who starts, in which order, with which code."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

LIVE = "trap 'exit 0' TERM; sleep inf & wait"
STACK = f"""
services:
  db:
    image: busybox
    command: [sh, -c, "rm -f /tmp/up; sleep 0.6; touch /tmp/up; {LIVE}"]
    healthcheck: {{test: [CMD, test, -e, /tmp/up], interval: 300ms, retries: 50}}
  migrate:
    image: busybox
    command: [sh, -c, "echo migrated"]
    depends_on: {{db: {{condition: service_healthy}}}}
  app:
    image: busybox
    command: [sh, -c, "{LIVE}"]
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
  follower:
    image: busybox
    command: [sh, -c, "{LIVE}"]
    depends_on: {{db: {{condition: service_healthy, restart: true}}}}
  other:
    image: busybox
    command: [sh, -c, "{LIVE}"]
"""
ENDS = """
services:
  web:
    image: busybox
    command: [sh, -c, "test -e /data/good || { echo no such table; exit 3; }; exec sleep inf"]
    stop_grace_period: 0s
    volumes: [data:/data]
  tool: {image: busybox, command: [sleep, inf], stop_grace_period: 0s, volumes: ["data:/data"]}
volumes: {data: {}}
"""


def row_of(corral, service):
    """Return the newest task; the one before it may not be gone yet."""
    return max(corral.rows(service=service, ended=True), key=lambda row: row["created_at"])


def run_of(corral, service):
    return corral.task(row_of(corral, service))["status"]["runs"][-1]


def began(corral, *services):
    """Return when the newest process of each service was started."""
    return [run_of(corral, service)["started_at"] for service in services]


def pids(corral):
    return {row["service"]: run_of(corral, row["service"])["pid"] for row in corral.rows()}


def test_a_day_of_stopping_and_starting(corral):
    corral.compose(STACK)
    corral("up", "-d")
    db, migrate, app = began(corral, "db", "migrate", "app")
    assert db + 0.6 <= migrate <= app

    for verb in (("up", "-d"), ("start",)):
        corral("stop")
        assert corral.processes() == {}
        done = corral(*verb)
        db, again, app, follower = began(corral, "db", "migrate", "app", "follower")
        assert again == migrate, "what completed is not run again"
        assert min(app, follower) >= db + 0.6, "gates hold for every start"
        assert "migrate: completed before, not run again" in done.stderr
        assert "restart migrate runs it again" in done.stderr
        assert len(corral.processes()) == 4

    before = pids(corral)
    done = corral("start")
    assert "nothing to start" in done.stderr
    assert pids(corral) == before

    corral("stop", "db", "-t", "0")
    assert "db" not in pids(corral)
    corral("start", "db")
    after = pids(corral)
    assert after.pop("db") != before.pop("db")
    assert after == before, "nobody else is touched"
    corral("stop", "nope", code=1)
    corral("start", "nope", code=1)

    corral("stop", "-t", "0")
    corral("scale", "other=2")
    assert [row["service"] for row in corral.rows()] == ["other", "other"]
    corral("start", "app")
    assert set(pids(corral)) == {"other", "app", "db"}
    corral("start")

    corral("restart", "migrate")
    (again,) = began(corral, "migrate")
    assert again > migrate


def test_restart_goes_along_its_edges_only(corral):
    corral.compose(STACK)
    corral("up", "-d")
    before, task = pids(corral), row_of(corral, "db")["id"]
    corral("restart", "-t", "0", "db")
    after = pids(corral)
    db, follower = began(corral, "db", "follower")
    assert {name for name in before if before[name] != after[name]} == {"db", "follower"}
    assert follower >= db + 0.6, "it waits along the edge that says restart"
    assert row_of(corral, "db")["id"] == task, "in place"

    before = after
    corral("restart", "--no-deps", "-t", "0", "db")
    after = pids(corral)
    assert {name for name in before if before[name] != after[name]} == {"db"}

    corral("restart", "-t", "0")
    db, app, follower, other = began(corral, "db", "app", "follower", "other")
    assert follower >= db + 0.6
    assert max(app, other) < db + 0.6, "nobody else waits"

    corral("stop", "-t", "0")
    corral("restart")
    assert set(pids(corral)) == {"db", "app", "follower", "other"}


def test_what_ended_with_3_is_started_by_every_verb(corral):
    corral.compose(ENDS)
    done = corral("up", "-d", code=1)
    assert "no such table" in done.stderr
    assert row_of(corral, "web")["exit_code"] == 3
    first = run_of(corral, "web")["started_at"]
    done = corral("start", "web", code=1)
    assert "no such table" in done.stderr, "a start that fails says why"
    assert run_of(corral, "web")["started_at"] > first

    for verb in (("up", "-d"), ("start", "web"), ("restart", "web")):
        corral("exec", "-T", "tool", "touch", "/data/good")
        corral(*verb)
        corral.until("web runs", lambda: row_of(corral, "web")["state"] == "running")
        corral("exec", "-T", "tool", "rm", "/data/good")
        pid = run_of(corral, "web")["pid"]
        corral.sh(f"kill -9 {pid}")
        corral.until("web ended", lambda: row_of(corral, "web")["state"] == "failed")
