"""`corral why` and kept events on real containers: what they say is what happened."""

from __future__ import annotations

import json

import pytest

from tests.e2e.multi.test_away import BACK, DOWN, all_ready, statuses

pytestmark = pytest.mark.real

ROAMS = """
services:
  roam:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    deploy: {placement: {constraints: ["node.hostname != n1"]}}
"""
TROUBLED = """
services:
  crash:
    image: corral/debian-base:12
    command: [sh, -c, "echo no config; sleep 0.2; exit 3"]
    restart: always
  fat:
    image: corral/debian-base:12
    command: [tail, /dev/zero]
    restart: always
    mem_limit: 24m
    memswap_limit: 24m
  db:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    healthcheck: {test: ["CMD", "false"], interval: 1s, start_period: 600s}
  gated:
    image: corral/debian-base:12
    command: [sleep, inf]
    depends_on: {db: {condition: service_healthy}}
  homeless:
    image: corral/debian-base:12
    command: [sleep, inf]
    deploy: {placement: {constraints: [node.labels.disk == gold]}}
"""


def why(cluster, name):
    return json.loads(cluster("why", "--format", "json", name).stdout)


def kept(cluster, *words):
    found = cluster("events", "--no-follow", "--json", *words).stdout
    return [json.loads(line) for line in found.splitlines()]


def test_what_is_said_is_what_happened(cluster):
    cluster.compose(TROUBLED)
    cluster("up", "-d", code=None)
    cluster.until("it crashes", lambda: why(cluster, "crash-1")["answer"].count("restarting"))
    said = why(cluster, "crash-1")
    assert "exit code 3" in said["answer"]
    assert "it said last: no config" in said["because"]
    fat = "killed because it used more memory than its limit"
    cluster.until("the memory is told of", lambda: fat in why(cluster, "fat-1")["answer"])
    said = why(cluster, "fat")
    assert any("more memory than its limit of 24 MiB" in line for line in said["because"])
    assert said["helps"][0].startswith("raise deploy.resources.limits.memory of fat")
    ooms = [event for event in kept(cluster, "fat") if event["kind"] == "run.ended"]
    assert ooms
    assert all(event["oom"] and event["reason"] == "oom" for event in ooms)
    # Who waits for whom, and which node lacks what.
    chain = why(cluster, "gated")["because"]
    assert "gated waits for db to be healthy" in chain
    said = why(cluster, "homeless")
    assert [node["node"] for node in said["nodes"]] == ["n1", "n2", "n3"]
    assert all("node.labels.disk == gold" in node["rules"][0] for node in said["nodes"])
    assert said["helps"][0] == "corral node label n1 disk=gold"
    cluster("node", "label", "n1", "disk=gold")
    try:
        cluster.until("it has a node", lambda: cluster.ready("homeless"))
    finally:
        cluster("node", "label", "n1", "disk-")
    labelled = [e for e in kept(cluster, "--all") if e["kind"] == "node.labelled"]
    assert labelled[-1]["by"].startswith("root")
    # After `down`, and after the controller was killed, what was is known.
    cluster("down", "-t", "0")
    cluster.kill(("n1", "orchestrator"))
    cluster.until("its controller is back", cluster.nodes)
    assert "it was removed, by root@" in why(cluster, "stack/app")["answer"]
    assert {"run.ended", "release.pending", "stack.removed"} <= {e["kind"] for e in kept(cluster)}


def test_why_a_task_is_where_it_is_after_its_node_was_lost(cluster):
    cluster.compose(ROAMS, name="roams")
    cluster("up", "-d")
    (row,) = cluster.rows("roam", stack="roams")
    lost = row["node"]
    cluster.lab.cut(lost)
    cluster.until(f"{lost} is down", lambda: "down" in statuses(cluster), DOWN)

    def moved():
        return any(r["id"] != row["id"] for r in cluster.ready("roam", stack="roams"))

    cluster.until("it runs elsewhere", moved, DOWN)
    new = next(r for r in cluster.ready("roam", stack="roams") if r["id"] != row["id"])
    said = why(cluster, new["id"])
    reason = f"it was made as {row['name']} was on {lost}, which is down"
    assert reason in said["because"]
    assert why(cluster, lost)["answer"].startswith(f"node {lost} is down")
    cluster.lab.heal(lost)
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster("down", "-t", "0")
