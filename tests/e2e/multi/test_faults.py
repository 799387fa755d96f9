"""Daemons die, hosts are cut off or lose power: what runs runs on, what is lost is replaced."""

from __future__ import annotations

import pytest

from tests.e2e.multi.cluster import NODES

pytestmark = pytest.mark.real
PORT = 9080
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [nginx, -g, "daemon off;"]
    stop_signal: SIGQUIT
    ports: ["9080:80"]
    healthcheck: {test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, start_period: 10s, start_interval: 200ms}
    deploy: {replicas: 3}
  pinned:
    image: corral/debian-base:12
    command: [bash, -c, "echo started >> /data/starts; exec sleep inf"]
    init: true
    restart: always
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.hostname == n3]}}
volumes: {data: {}}
"""
RECOVERY = 120.0  # seconds until all that may move runs elsewhere; twelve, alone on a machine


def test_killed_daemons_disturb_neither_containers_nor_requests(cluster, capsys):
    cluster.compose(STACK)
    cluster("up", "-d")
    before = cluster.processes()
    assert {node for node, _, _ in before.values()} == set(NODES)
    victims = [("n1", "orchestrator"), *((node, "agent") for node in NODES)]

    with cluster.load([cluster.ip(n) for n in NODES], PORT, connections=6) as figures:
        for _ in range(2):
            old = {node: cluster.daemons(node, module) for node, module in victims}
            cluster.kill(*victims)
            cluster.until(
                "every daemon runs again",
                lambda old=old: all(
                    cluster.daemons(node, module) not in ([], old[node]) for node, module in victims
                ),
            )
            cluster.until(
                "every node is ready",
                lambda: [row["status"] for row in cluster.nodes().values()] == ["ready"] * 3,
            )

    assert cluster.processes() == before
    with capsys.disabled():
        print(f"\n{figures['total']} requests while daemons were killed", end="")
    assert figures["total"] > 60, "ten of each connection"
    # Nothing serving was touched: not even an idle connection may have been closed.
    assert (figures["failed"], figures["retried"]) == (0, 0), figures["errors"]


@pytest.mark.parametrize("fault", ["cut off", "powered off"])
def test_a_lost_host_is_replaced_and_its_surplus_goes_when_it_is_back(cluster, fault, capsys):
    cluster.compose(STACK)
    cluster("up", "-d")
    before = cluster.processes()
    (pinned,) = cluster.rows("pinned")

    cluster.lab.cut("n3") if fault == "cut off" else cluster.lab.power_off("n3")
    took = cluster.until(
        "three ready web tasks on two nodes", lambda: elsewhere(cluster) == 3, RECOVERY
    )
    with capsys.disabled():
        print(f"\nn3 {fault}: replaced after {took:.1f} s", end="")

    # Both remaining nodes serve, and nobody sends requests to the dead one.
    with cluster.load([cluster.ip("n1"), cluster.ip("n2")], PORT, connections=4) as figures:
        said = cluster("ps").stdout
    assert figures["failed"] == 0, figures["errors"]
    # The volume is on n3: its task waits, and says for what.
    (line,) = [line for line in said.splitlines() if "pinned" in line]
    assert "n3" in line
    assert "waits for it because volume app_data is there" in line
    assert [row["node"] for row in cluster.rows("pinned")] == ["n3"]

    cluster.lab.heal("n3") if fault == "cut off" else cluster.lab.power_on("n3")
    cluster.until("n3 is ready", lambda: cluster.nodes()["n3"]["status"] == "ready", 120)
    cluster.until("exactly what is wanted", lambda: exactly(cluster), 120)
    (again,) = cluster.rows("pinned")
    assert again["id"] == pinned["id"]
    starts = cluster("exec", "-T", "pinned", "cat", "/data/starts").stdout.split()
    if fault == "cut off":
        # A host that was only not heard went on as if nothing had happened.
        assert cluster.processes()[pinned["id"]] == before[pinned["id"]]
        assert starts == ["started"]
    else:
        assert starts == ["started", "started"]
    with cluster.load([cluster.ip(n) for n in NODES], PORT, connections=6) as figures:
        cluster("ps")
    assert figures["failed"] == 0, figures["errors"]


def elsewhere(cluster) -> int:
    """Return how many tasks of web are ready on nodes that live."""
    return sum(row["node"] != "n3" for row in cluster.ready("web"))


def exactly(cluster) -> bool:
    """Say whether three web tasks and the pinned one are all there is, by the monitors too."""
    rows = cluster.rows()
    return (
        sorted(row["service"] for row in rows) == ["pinned", "web", "web", "web"]
        and all(row["ready"] for row in rows)
        and sum(cluster.containers(node) for node in NODES) == 4
    )
