"""Releases with another image, config and secret each, and back under requests: none fails."""

from __future__ import annotations

import json
import sys

import pytest

from orchestrator.lab.host import CHECKOUT
from tests.e2e.multi.cluster import NODES, Cluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
STACK = """
services:
  web:
    build: .
    image: shop/web:latest
    command: [python3, -u, -I, /slow.py, serve, "80"]
    init: true
    ports: ["9081:80"]
    configs: [{{source: slow, target: /slow.py}}, {{source: prices, target: /prices}}]
    secrets: [pw]
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, start_period: 20s, start_interval: 200ms}}
    deploy:
      replicas: 3
      update_config: &order {{parallelism: 1, order: start-first, monitor: 0s}}
      rollback_config: *order
{more}
configs: {{slow: {{file: ./slow.py}}, prices: {{file: ./prices}}}}
secrets: {{pw: {{file: ./pw}}}}
"""
CACHE = "  cache: {image: busybox, command: [sleep, inf], stop_grace_period: 0s}"


def seen(cluster: Cluster) -> set[str]:
    """Return what the replicas have of image, config and secret, each once."""
    said = set()
    for row in cluster.ready("web"):
        words = ("cat", "/version", "/prices", "/run/secrets/pw")
        said.add(cluster("exec", "-T", f"web-{row['slot']}", *words).stdout.replace("\n", " "))
    return said


def test_back_with_image_config_and_secret_while_requests_are_made(cluster, capsys):
    for number in (1, 2, 3):
        cluster.compose(
            STACK.format(more=CACHE if number == 3 else ""),
            Dockerfile="FROM corral/debian-base:12\nCOPY version /version\n",
            version=f"image {number}\n",
            prices=f"price {number}\n",
            pw=f"pw {number}\n",
        )
        cluster("up", "-d", "--build", "-m", f"price list {number}")
    assert seen(cluster) == {"image 3 price 3 pw 3 "}
    cache = {row["id"] for row in cluster.ready("cache")}

    with cluster.load([cluster.ip(node) for node in NODES], 9081, connections=4) as figures:
        dry = cluster("rollback", "--dry-run").stdout
        back = cluster("rollback", "-m", "prices were wrong").stderr
        assert seen(cluster) == {"image 2 price 2 pw 2 "}
        cluster("rollback", "web", "--to", "1")
        assert seen(cluster) == {"image 1 price 1 pw 1 "}
        cluster("rollback", "3")
        assert seen(cluster) == {"image 3 price 3 pw 3 "}
    assert figures["failed"] == 0, figures
    with capsys.disabled():
        print(f"\n{figures['total']} requests over three rollbacks: 0 failed", end="")

    for line in ("secret pw", "config prices", "image: shop/web", "back to release 2"):
        assert line in dry
    assert "nothing is changed yet" in dry
    assert "cache was not there then and runs on (orphan)" in back
    assert "release 4 done" in back or "rollback to 2 done" in back, back
    assert {row["id"] for row in cluster.ready("cache")} == cache, "it ran on"
    rows = [json.loads(line) for line in cluster("history", "--format", "json").stdout.splitlines()]
    assert [row["number"] for row in rows] == [6, 5, 4, 3, 2, 1]
    assert [row["by"]["to"] for row in rows] == [3, 1, 2, 0, 0, 0]
    assert rows[2]["by"]["message"] == "prices were wrong"
    assert {row["who"] for row in rows} == {"root@n1"}
    assert rows[2]["changed"].startswith("back to 2: web: ")
    said = cluster("diff", "1", "2").stdout
    assert "~ service web" in said
    assert "pw 1" not in said
    assert "price" not in said.replace("prices", "")
    assert cluster("diff", "3", "6").stdout == "releases 3 and 6 of app ask for the same\n"

    # An image that nobody has any more: it is said, and what runs is not touched.
    before = {row["id"] for row in cluster.ready("web")}
    # What no name means: on the builder the name means the newest, elsewhere the first it got.
    prune = [sys.executable, "-m", "agent.images", "prune"]
    for node in NODES:
        cluster.host(node).run(prune, cwd=str(CHECKOUT))
    gone = cluster("rollback", "2", code=1).stderr
    assert "web: image shop/web:latest of release 2 (sha256:" in gone
    assert "is on no node, and cannot be fetched" in gone
    assert "Nothing was changed" in gone
    assert {row["id"] for row in cluster.ready("web")} == before
    assert seen(cluster) == {"image 3 price 3 pw 3 "}
    cluster("down", "-v", "-t", "0")
    assert "no stack app" in cluster("history", code=1).stderr
