"""No request fails while a service is replaced: stock nginx, keep-alive, three hosts."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.lab.host import CHECKOUT
from tests.e2e.multi.cluster import NODES, PIPES, loading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.multi.cluster import Cluster

pytestmark = pytest.mark.real
PORT = 9080
# As Debian configures nginx; SIGQUIT is what the official image declares as its stop signal.
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [nginx, -g, "daemon off;"]
    stop_signal: SIGQUIT
    environment: {{VERSION: "{version}"}}
    ports: ["9080:80"]
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, start_period: 10s, start_interval: 200ms}}
    deploy:
      replicas: {replicas}
      update_config: {{parallelism: 1, order: {order}, monitor: 1s}}
  inside:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    configs: [{{source: load, target: /load.py}}]
    deploy: {{placement: {{constraints: [node.hostname == n2]}}}}
configs: {{load: {{file: ./load.py}}}}
"""


@contextmanager
def load_inside(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Make requests to the service's VIP from a container meanwhile."""
    words = ("exec", "-T", "inside", "python3", "-I", "/load.py", "web", "80", "2")
    argv = [sys.executable, "-m", "orchestrator.cli.main", *words]
    options = {"env": {"PYTHONPATH": str(CHECKOUT)}, "cwd": cluster.folder}
    with loading(cluster.first.popen(argv, **options, **PIPES)) as figures:
        yield figures


@pytest.mark.parametrize(
    ("replicas", "order"), [(3, "stop-first"), (6, "start-first")], ids=["one-each", "two-each"]
)
def test_no_request_fails_during_a_rolling_update(cluster, replicas, order, capsys):
    cluster.compose(STACK.format(version=1, replicas=replicas, order=order))
    cluster("up", "-d")
    spread = [sum(row["node"] == node for row in cluster.ready("web")) for node in NODES]
    assert spread == [replicas // 3] * 3
    before = {row["id"] for row in cluster.rows("web")}
    update = STACK.format(version=2, replicas=replicas, order=order)
    cluster.first.write(f"{cluster.folder}/compose.yaml", update)

    with (
        cluster.load([cluster.ip(n) for n in NODES], PORT, connections=6) as outside,
        load_inside(cluster) as inside,
    ):
        cluster("up", "-d", timeout=240)

    after = {row["id"] for row in cluster.ready("web")}
    assert len(after) == replicas
    assert not before & after, "not every task was replaced"
    with capsys.disabled():
        for where, seen in (("published port", outside), ("VIP", inside)):
            print(f"\n{replicas} x {order}, {where}: {describe(seen)}", end="")
    assert outside["failed"] == 0, outside["errors"]
    assert inside["failed"] == 0, inside["errors"]
    assert outside["total"] >= 60, "ten of each connection"
    assert inside["total"] >= 20


def describe(figures: dict[str, Any]) -> str:
    return (
        f"{figures['total']} requests, {figures['failed']} failed, {figures['retried']} retried,"
        f" slowest {figures['slowest']:.2f} s {json.dumps(figures['errors'])}"
    )
