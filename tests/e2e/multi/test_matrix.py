"""Every way to a task through the whole stack, and whose address the task saw."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.multi.cluster import Cluster

pytestmark = pytest.mark.real

# service -> node, networks, published port
SERVICES = {
    "one-n1": ("n1", "a", 9001),
    "two-n1": ("n1", "a, b", 9002),
    "one-n2": ("n2", "a", 9003),
    "two-n2": ("n2", "a, b", 9004),
    "apart-n1": ("n1", "b", 9005),
}
SERVICE = """
  {name}:
    image: corral/debian-base:12
    command: [python3, -u, /server.py]
    init: true
    environment: {{NAME: {name}}}
    networks: [{networks}]
    ports: ["{port}:7000/tcp", "{port}:7000/udp"]
    configs:
      - {{source: server, target: /server.py}}
      - {{source: ask, target: /ask.py}}
    deploy: {{placement: {{constraints: [node.hostname == {node}]}}}}
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/7000"],
      start_period: 5s, start_interval: 200ms}}
"""
STACK = (
    "services:"
    + "".join(
        SERVICE.format(name=name, node=node, networks=networks, port=port)
        for name, (node, networks, port) in SERVICES.items()
    )
    + """
networks: {a: {}, b: {}}
configs: {server: {file: ./server.py}, ask: {file: ./ask.py}}
"""
)
TARGETS = ("one-n1", "two-n1", "one-n2", "two-n2")
PROTOCOLS = ("tcp", "udp")
Case = tuple[str, str, str, int]  # from where, protocol, address, port


class Matrix:
    """The deployed stack: addresses of its tasks, and questions asked from anywhere."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        rows = {row["service"]: row for row in cluster.rows()}
        self.addresses = {name: set(row["addresses"]) for name, row in rows.items()}

    def ask(
        self, where: str, questions: list[tuple[str, str, int]], *patience: str
    ) -> list[list[str]]:
        if where in SERVICES:
            words = ("exec", "-T", where, "python3", "/ask.py", json.dumps(questions), *patience)
            answers: list[list[str]] = json.loads(self.cluster(*words).stdout)
            return answers
        return self.cluster.ask(where, questions)

    def own(self, client: str, asked: str) -> str:
        """Return the address of ``client`` on the network that ``asked`` is on."""
        pool = ip_network(f"{asked}/26", strict=False)  # as they start
        (found,) = [a for a in self.addresses[client] if ip_network(a).subnet_of(pool)]
        return found


def test_every_way_to_every_task_and_the_address_it_saw(cluster):
    cluster.compose(STACK)
    cluster("up", "-d")
    matrix = Matrix(cluster)
    wrong = []

    def check(way, where, questions, expected):
        """``expected``: per question (name, address seen or a function of the address asked)."""
        for question, answer, (name, seen) in zip(
            questions, matrix.ask(where, questions), expected, strict=True
        ):
            want = [name, seen(answer[2]) if callable(seen) and answer[2] else seen]
            if answer[:2] != want:
                wrong.append(f"{way}: {where} -> {question}: {answer}, expected {want}")

    # `up` ends when every task is ready; the nodes hear of the last one a moment later.
    names = [("tcp", f"tasks.{t}", 7000) for t in TARGETS]
    for client in ("one-n1", "two-n1"):
        cluster.until(
            f"{client} knows everybody",
            lambda c=client: all(answer[0] != "error" for answer in matrix.ask(c, names)),
        )
    overlay = {node: cluster.overlay(node) for node in ("n1", "n2", "n3")}
    for target in TARGETS:
        cluster.until(
            f"{target} is published everywhere",
            lambda t=target: cluster.answering([cluster.ip(n) for n in overlay], SERVICES[t][2]),
        )
    for client in ("one-n1", "two-n1"):
        asked = [(p, t) for p in PROTOCOLS for t in TARGETS]
        check(
            "direct",
            client,
            [(p, f"tasks.{t}", 7000) for p, t in asked],
            [(t, lambda a, c=client: matrix.own(c, a)) for _, t in asked],
        )
        # Where a task is its own client the VIP stands in: the answer must come back through it.
        check(
            "VIP",
            client,
            [(p, t, 7000) for p, t in asked],
            [
                (t, (lambda a: a) if t == client else (lambda a, c=client: matrix.own(c, a)))
                for _, t in asked
            ],
        )
    asked3 = [(p, t, n) for p in PROTOCOLS for t in TARGETS for n in overlay]
    check(
        "published, outside",
        "client",
        [(p, cluster.ip(n), SERVICES[t][2]) for p, t, n in asked3],
        [(t, cluster.ip("client")) for _, t, _ in asked3],
    )
    for node, behind in overlay.items():
        check(
            "published, node",
            node,
            [(p, cluster.ip(n), SERVICES[t][2]) for p, t, n in asked3],
            [(t, overlay[n]) for _, t, n in asked3],
        )
        local = [(p, t) for p in PROTOCOLS for t in TARGETS]
        check(
            "published, 127.0.0.1",
            node,
            [(p, "127.0.0.1", SERVICES[t][2]) for p, t in local],
            [(t, behind) for _, t in local],
        )
    for client in ("one-n1", "two-n1", "apart-n1"):
        check(
            "published, container",
            client,
            [(p, cluster.ip(n), SERVICES[t][2]) for p, t, n in asked3],
            [(t, overlay[n]) for _, t, n in asked3],
        )
    # The second network works across nodes, and networks that share no task are apart.
    check(
        "second network",
        "apart-n1",
        [(p, "tasks.two-n2", 7000) for p in PROTOCOLS],
        [("two-n2", lambda a: matrix.own("apart-n1", a))] * 2,
    )
    (one,) = matrix.addresses["one-n2"]
    refused = matrix.ask("apart-n1", [("tcp", "one-n2", 7000), ("tcp", one, 7000)], "3")
    wrong += [f"no shared network: {answer}" for answer in refused if answer[0] != "error"]

    assert not wrong, "\n".join(wrong)
