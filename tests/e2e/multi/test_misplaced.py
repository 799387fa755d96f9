"""Labels change under a running service: it moves without a failed request, or says why not."""

from __future__ import annotations

import pytest

from tests.e2e.multi.cluster import NODES
from tests.e2e.multi.test_updates import PORT, describe

pytestmark = pytest.mark.real
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [nginx, -g, "daemon off;"]
    stop_signal: SIGQUIT
    ports: ["9080:80"]
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, start_period: 10s, start_interval: 200ms}}
    deploy:
      replicas: 2
      update_config: {{parallelism: 1, order: start-first, monitor: 1s}}
      placement: {{constraints: [node.labels.disk == {disk}]}}
  every:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy: {{mode: global, placement: {{constraints: [node.labels.disk == ssd]}}}}
  pinned:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes: ["data:/data"]
    deploy: {{placement: {{constraints: [node.labels.home == here]}}}}
volumes: {{data: {{}}}}
"""


def nodes_of(cluster, service):
    return sorted(row["node"] for row in cluster.ready(service))


def test_labels_change_under_a_running_service(cluster, capsys):
    cluster("node", "label", "n1", "disk=ssd", "home=here")
    cluster("node", "label", "n2", "disk=ssd")
    cluster.compose(STACK.format(disk="ssd"))
    cluster("up", "-d")
    assert nodes_of(cluster, "web") == nodes_of(cluster, "every") == ["n1", "n2"]
    kept = {row["id"] for row in cluster.ready("web") if row["node"] == "n2"}

    with cluster.load([cluster.ip(n) for n in NODES], PORT, connections=6) as seen:
        cluster("node", "label", "n3", "disk=ssd")
        cluster("node", "label", "n1", "disk-", "home-")
        moved = cluster.until(
            "web left n1",
            lambda: (
                "n1" not in [r["node"] for r in cluster.rows("web")]
                and len(cluster.ready("web")) == 2
            ),
        )
        cluster.until("every follows", lambda: nodes_of(cluster, "every") == ["n2", "n3"])
    with capsys.disabled():
        print(f"\nlabel taken, moved in {moved:.1f} s: {describe(seen)}", end="")
    assert seen["failed"] == 0, seen["errors"]
    assert kept <= {row["id"] for row in cluster.ready("web")}, "who was right is not touched"

    # A task with a volume stays, ready, and says so.
    (pinned,) = cluster.ready("pinned")
    assert pinned["node"] == "n1"
    assert "it stays with volume app_data" in pinned["misplaced"]
    assert "misplaced: n1 does not satisfy 'node.labels.home == here'" in cluster("ps").stdout

    # A release that asks for what no node has leaves them where they are, and fails saying so.
    cluster("node", "label", "n1", "home=here")
    before = {row["id"] for row in cluster.ready("web")}
    cluster.compose(STACK.format(disk="gold"))
    done = cluster("up", "-d", code=1)
    assert "web: 2 tasks are misplaced" in done.stderr
    assert "node.labels.disk == gold" in done.stderr
    assert {row["id"] for row in cluster.ready("web")} == before
    assert all(row["misplaced"] for row in cluster.ready("web"))
    # With the label somewhere, the same release moves them there.
    cluster("node", "label", "n1", "disk=gold")
    cluster("up", "-d")
    assert nodes_of(cluster, "web") == ["n1", "n1"]
    assert not [row for row in cluster.ready("web") if row["misplaced"]]
