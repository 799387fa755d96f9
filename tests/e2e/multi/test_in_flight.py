"""Requests in flight are finished, whatever takes their task away; new ones go elsewhere.

Slow requests and quick ones, from a client outside by the published port and from a container
by the VIP, on tasks of the client's own host and of others: none fails over an update of either
order, `scale` down and a drain. `down` lets those finish that are there.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.lab.host import CHECKOUT
from tests.e2e.multi.cluster import NODES, PIPES, PROGRAMS, loading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.multi.cluster import Cluster

pytestmark = pytest.mark.real
PORT = 9080
FRONT = """
services:
  inside:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    networks: [front]
    configs: [{source: load, target: /load.py}, {source: slow, target: /slow.py}]
    deploy: {placement: {constraints: [node.hostname == n2]}}
networks: {front: {name: front}}
configs: {load: {file: ./load.py}, slow: {file: ./slow.py}}
"""
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [python3, -u, -I, /slow.py, serve, "80"]
    init: true
    environment: {{VERSION: "{version}"}}
    networks: [front]
    ports: ["9080:80"]
    stop_grace_period: 60s
    configs: [{{source: slow, target: /slow.py}}]
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, start_period: 20s, start_interval: 200ms}}
    deploy:
      replicas: 3
      update_config: {{parallelism: 1, order: {order}, monitor: 0s}}
networks: {{front: {{external: true, name: front}}}}
configs: {{slow: {{file: ./slow.py}}}}
"""


class Traffic:
    """What asks the service while something happens to it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ips = [cluster.ip(node) for node in NODES]

    @contextmanager
    def inside(self, *words: str) -> Iterator[dict[str, Any]]:
        argv = [sys.executable, "-m", "orchestrator.cli.main", "-p", "front"]
        argv += ["exec", "-T", "inside", "python3", "-I", *words]
        options = {"env": {"PYTHONPATH": str(CHECKOUT)}, "cwd": self.cluster.folder}
        with loading(self.cluster.first.popen(argv, **options, **PIPES)) as figures:
            yield figures

    @contextmanager
    def outside(self, program: str, *words: str) -> Iterator[dict[str, Any]]:
        argv = [sys.executable, "-I", "-c", (PROGRAMS / program).read_text(), *words]
        with loading(self.cluster.client.popen(argv, **PIPES)) as figures:
            yield figures

    @contextmanager
    def slow(self, workers: int, seconds: float, *how: str) -> Iterator[dict[str, dict[str, Any]]]:
        """Make slow requests both ways."""
        end = (str(workers), str(seconds), *how)
        with (
            self.outside("slow.py", "ask", ",".join(self.ips), str(PORT), *end) as outside,
            self.inside("/slow.py", "ask", "web", "80", *end) as inside,
        ):
            yield {"slow, port": outside, "slow, VIP": inside}

    @contextmanager
    def all(self, workers: int, seconds: float) -> Iterator[dict[str, dict[str, Any]]]:
        """Make slow and quick requests both ways."""
        with ExitStack() as stack:
            figures = stack.enter_context(self.slow(workers, seconds))
            quick = self.outside("load.py", ",".join(self.ips), str(PORT), "4")
            figures["quick, port"] = stack.enter_context(quick)
            figures["quick, VIP"] = stack.enter_context(self.inside("/load.py", "web", "80", "2"))
            yield figures


def deploy(cluster: Cluster) -> Traffic:
    cluster.compose(FRONT, "front")
    cluster("up", "-d")
    cluster.compose(STACK.format(version=1, order="stop-first"))
    cluster("up", "-d")
    assert [row["node"] for row in sorted(cluster.ready("web"), key=lambda r: r["node"])] == [
        *NODES
    ]
    traffic = Traffic(cluster)
    cluster.until("every node answers", lambda: cluster.answering(traffic.ips, PORT))
    return traffic


def update(cluster: Cluster, version: int, order: str) -> None:
    before = {row["id"] for row in cluster.rows("web")}
    text = STACK.format(version=version, order=order)
    cluster.first.write(f"{cluster.folder}/compose.yaml", text)
    cluster("up", "-d")
    assert not before & {row["id"] for row in cluster.ready("web")}, "not every task was replaced"


def drain(cluster: Cluster, node: str) -> None:
    cluster("node", "drain", node)
    assert not [row for row in cluster.ready("web") if row["node"] == node]
    cluster("node", "activate", node)


def judged(capsys: Any, what: str, figures: dict[str, dict[str, Any]]) -> None:
    said = {way: f"{f['failed']} of {f['total']} failed" for way, f in figures.items()}
    with capsys.disabled():
        print(f"\n{what}: {said}", end="")
    wrong = {way: f["errors"] for way, f in figures.items() if f["failed"]}
    assert not wrong, f"{what}: {said} {wrong}"


@pytest.mark.timeout(600)
def test_requests_in_flight_outlive_what_takes_their_task_away(cluster, capsys):
    traffic = deploy(cluster)
    steps = {
        "stop-first update": lambda: update(cluster, 2, "stop-first"),
        "start-first update": lambda: update(cluster, 3, "start-first"),
        "scale to 1": lambda: cluster("scale", "web=1"),
        "scale to 3": lambda: cluster("scale", "web=3"),
        "drain": lambda: drain(cluster, "n3"),
    }
    times = {}
    with traffic.all(6, 4.0) as figures:
        begun = time.monotonic()
        for what, step in steps.items():
            times[what] = f"{time.monotonic() - begun:.1f} s"
            step()
    judged(capsys, f"steps at {times}", figures)
    with traffic.slow(6, 6.0, "once") as figures:
        cluster("down")
    judged(capsys, "down", figures)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_thousand_requests_two_hundred_of_them_slow(cluster, capsys):
    traffic = deploy(cluster)
    total = slow = 0
    version = 1
    while total < 20_000 or slow < 200:
        with traffic.all(12, 8.0) as figures:
            for order in ("stop-first", "start-first"):
                version += 1
                update(cluster, version, order)
            cluster("scale", "web=1")
            cluster("scale", "web=3")
            drain(cluster, "n3")
        judged(capsys, f"round {version // 2}", figures)
        total += sum(f["total"] for f in figures.values())
        slow += sum(f["total"] for way, f in figures.items() if way.startswith("slow"))
    with capsys.disabled():
        print(f"\n{total} requests, {slow} of them slow: 0 failed", end="")
