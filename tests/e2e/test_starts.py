"""up, stop, start and restart of real containers: who starts, in which order, with which code."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

LIVE = "trap 'exit 0' TERM; sleep inf & wait"
STACK = f"""
services:
  db:
    image: busybox
    command: [sh, -c, "rm -f /tmp/up; test -e /tmp/held || {{ sleep 0.6; touch /tmp/up; }}; {LIVE}"]
    healthcheck: {{test: [CMD, test, -e, /tmp/up], interval: 300ms, retries: 1000}}
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


def well(corral):
    """Return when db had what its check asks for; its start is noted when it is seen."""
    return corral.written_at("db-1", "/tmp/up")


def pids(corral):
    return {row["service"]: run_of(corral, row["service"])["pid"] for row in corral.rows()}


def test_a_day_of_stopping_and_starting(corral):
    corral.compose(STACK)
    corral("up", "-d")
    migrate, app = began(corral, "migrate", "app")
    assert well(corral) <= migrate <= app

    for verb in (("up", "-d"), ("start",)):
        corral("stop")
        assert corral.processes() == {}
        done = corral(*verb)
        again, app, follower = began(corral, "migrate", "app", "follower")
        assert again == migrate, "what completed is not run again"
        assert min(app, follower) >= well(corral), "gates hold for every start"
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
    (follower,) = began(corral, "follower")
    assert {name for name in before if before[name] != after[name]} == {"db", "follower"}
    assert follower >= well(corral), "it waits along the edge that says restart"
    assert row_of(corral, "db")["id"] == task, "in place"

    before = after
    corral("restart", "--no-deps", "-t", "0", "db")
    after = pids(corral)
    assert {name for name in before if before[name] != after[name]} == {"db"}

    # db is not well before it is told so.
    corral("exec", "-T", "db", "touch", "/tmp/held")
    before = began(corral, "db", "app", "other")
    (waiting,) = began(corral, "follower")
    going = corral.popen("restart", "-t", "0")

    def again():
        now = began(corral, "db", "app", "other")
        return all(new and new > old for old, new in zip(before, now, strict=True))

    corral.until("nobody else waits", again)
    assert began(corral, "follower") == [waiting]
    corral("exec", "-T", "db", "sh", "-c", "touch /tmp/up; rm /tmp/held")
    assert going.finish()[0] == 0
    assert began(corral, "follower")[0] >= well(corral)

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
