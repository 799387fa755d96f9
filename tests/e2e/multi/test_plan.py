"""`plan`, `up --plan`: what is said on real containers is what is done, or nothing is."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
STACK = """
services:
  db:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    stop_grace_period: 1s
    volumes: ["data:/data"]
    healthcheck: {test: [CMD, "true"], interval: 300ms}
    environment: {LEVEL: "${LEVEL:-info}"}
  web:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    stop_grace_period: 1s
    environment: {DB_PASSWORD: "$SECRET_OF_DB"}
    depends_on: {db: {condition: service_healthy}}
    ports: ["8097:80"]
    deploy:
      replicas: 3
      update_config: {order: start-first, parallelism: 3, monitor: 200ms}
volumes: {data: {}}
"""


def shell(cluster, script: str) -> str:
    return cluster.first.run(["sh", "-c", script]).stdout.strip()


def placed(cluster) -> dict[str, tuple[str, str]]:
    return {row["name"]: (row["id"], row["node"]) for row in cluster.rows()}


def test_a_plan_is_kept_and_held_to(cluster):
    cluster.compose(STACK, **{".env": "LEVEL=info\nSECRET_OF_DB=hush-one\n"})
    first = cluster("plan", "-o", "first.plan", code=3).stdout
    for words in ("+ db", "+ app-web-3", "8097:80 on every node", "app_data on ", "db, then web"):
        assert words in first, first
    assert cluster.get("/v1/stacks")["stacks"] == [], "law: a plan makes nothing"
    assert shell(cluster, f"stat -c %a {cluster.folder}/first.plan") == "600"
    said = json.loads(shell(cluster, f"cat {cluster.folder}/first.plan"))["plan"]
    cluster("up", "-d", "--plan", "first.plan")
    before = placed(cluster)
    ids = {node["id"]: node["name"] for node in cluster.get("/v1/nodes")["nodes"]}
    assert {n: node for n, (_, node) in before.items()} == {
        f"app-{slot.replace('.', '-')}": ids[node] for slot, node in said["places"].items()
    }
    nothing = cluster("plan").stdout
    assert nothing == "nothing to do: app runs as the file has it (release 1)\n"
    # The same words again are about a stack that is not there any more.
    again = cluster("up", "-d", "--plan", "first.plan", code=1).stderr
    assert "is not what first.plan says" in again
    assert "- create app-db-1" in again

    cluster.first.write(f"{cluster.folder}/.env", "LEVEL=debug\nSECRET_OF_DB=hush-two\n")
    told = cluster("plan", "-o", "second.plan", code=3).stdout
    assert "environment.LEVEL: info -> debug   compose.yaml:9:" in told
    assert "$LEVEL = debug from .env:1" in told
    assert "environment.DB_PASSWORD: another value" in told
    assert "! db" in told
    assert "volume app_data is there" in told
    assert "hush" not in told + shell(cluster, f"cat {cluster.folder}/second.plan")
    cluster("scale", "web=2")
    refused = cluster("up", "-d", "--plan", "second.plan", code=1).stderr
    assert "nothing was changed" in refused
    assert "  + " in refused, refused
    assert placed(cluster).keys() == before.keys() - {"app-web-3"}
    told = cluster("up", "--dry-run").stdout
    assert "Plan: 0 to create, 3 to replace (2 start-first, 1 stop-first)" in told, told
    cluster("plan", "-f", "-o", "second.plan", code=3)
    cluster("up", "-d", "--plan", "second.plan")
    now = placed(cluster)
    assert now["app-db-1"][1] == before["app-db-1"][1]
    assert now["app-db-1"] != before["app-db-1"]
    cluster("plan", code=0)
    assert "nobody is there" in cluster("up", "-d", "--confirm", code=2).stderr
