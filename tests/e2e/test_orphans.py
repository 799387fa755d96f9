"""Orphans and partial `up` as a user sees them: two files in one folder, one service at a time.

One stack for all cases: each goes on where the last one stopped.
"""

from __future__ import annotations

import pytest

from tests.e2e.cluster import names

pytestmark = pytest.mark.real

A = """
name: app
services:
  a: {image: busybox, command: [sleep, inf], stop_grace_period: 0s, ports: ["8091:80"]}
"""
B = """
name: app
services:
  b: {image: busybox, command: [sleep, inf], stop_grace_period: 0s, depends_on: [db]}
  db: {image: busybox, command: [sleep, inf], stop_grace_period: 0s}
  cron: {image: busybox, command: [sleep, inf], stop_grace_period: 0s, profiles: [cron]}
  broken: {image: busybox, command: [sh, -c, exit 3]}
  refused: {image: busybox, command: [sleep, inf], ipc: host, ports: ["8091:80"]}
  keyless: {image: busybox, secrets: [key]}
secrets: {key: {file: ./missing}}
"""
CLASH = """
name: app
services:
  renamed: {image: busybox, command: [sleep, inf], stop_grace_period: 0s, ports: ["8091:80"]}
"""


def pids(corral) -> dict[str, int]:
    return {
        row["name"].removeprefix("app-"): corral.pid(row["name"].removeprefix("app-"))
        for row in corral.rows()
        if row["state"] == "running"
    }


def test_two_files_one_stack_and_one_service_at_a_time(corral):
    corral.compose(B, **{"a.yaml": A, "clash.yaml": CLASH})
    corral("-f", "a.yaml", "up", "-d")
    first = pids(corral)

    done = corral("up", "-d", "b")
    assert "a is not in the Compose file and runs on (orphan)" in done.stderr
    assert "--remove-orphans" in done.stderr
    assert "a kept as orphan" in done.stderr.splitlines()[-1]
    now = pids(corral)
    assert sorted(now) == ["a-1", "b-1", "db-1"]
    assert now["a-1"] == first["a-1"], "the first file's service was not touched"

    assert "(orphan)" in corral("ps").stdout
    assert "(orphan)" in corral("ps", "--orphans").stdout
    assert "app-a-1" not in corral("ps", "--orphans=false").stdout

    corral("up", "-d", "--force-recreate", "b")
    again = pids(corral)
    assert again["b-1"] != now["b-1"]
    assert again["db-1"] == now["db-1"]
    corral("up", "-d", "--always-recreate-deps", "b")
    deps = pids(corral)
    assert deps["b-1"] == again["b-1"]
    assert deps["db-1"] != again["db-1"]

    done = corral("--profile", "cron", "up", "-d", "cron", env={"COMPOSE_IGNORE_ORPHANS": "1"})
    assert "is not in the Compose file" not in done.stderr
    done = corral("up", "-d", "db")
    assert "cron" not in done.stderr, "its profile is off: kept in silence"
    assert sorted(pids(corral)) == ["a-1", "b-1", "cron-1", "db-1"]

    done = corral("-f", "clash.yaml", "up", "-d", code=1)
    assert (
        "8091/tcp is also published by app/a, which the Compose file no longer has" in done.stderr
    )
    assert "--remove-orphans" in done.stderr

    corral("up", "-d", "broken", code=1)
    before = pids(corral)
    corral("up", "-d", "b")
    assert pids(corral) == before, "after a failed release a partial up works"

    corral("stop", "-t", "0")
    corral("up", "-d", "db")
    assert sorted(pids(corral)) == ["db-1"], "only what was named starts"

    corral("up", "-d", "b", env={"COMPOSE_REMOVE_ORPHANS": "true"})
    assert sorted(pids(corral)) == ["b-1", "db-1"]
    assert names(corral.rows(service="a", ended=True)) == []
    corral("-f", "a.yaml", "up", "-d")
    corral("-f", "a.yaml", "down", "-t", "0")
    assert corral.get("/v1/stacks")["stacks"] == [], "down removes the whole stack"
