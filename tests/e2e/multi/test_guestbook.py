"""The demo's steps as assertions: the guestbook on three hosts, from `up` to `down`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.lab.host import CHECKOUT
from tests.e2e.multi.cluster import FOLDER, NODES

pytestmark = pytest.mark.real
PORT = 8080


class Guestbook:
    """The example's stack, its folder copied to n1, and requests from the client host."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.version = "1"
        cluster.folder = f"{FOLDER}/guestbook"
        cluster.first.copy_in(CHECKOUT / "examples" / "guestbook", cluster.folder)

    def __call__(self, *words, **options):
        settings = {
            "GUESTBOOK_BASE": "corral/debian-base:12",
            "GUESTBOOK_PORT": str(PORT),
            "GUESTBOOK_VERSION": self.version,
        }
        return self.cluster(*words, env=settings, timeout=240, **options).stdout

    def fetch(self, node, data="", check=True):
        patience = "60" if check else "5"  # who asks again need not wait
        words = [
            "curl",
            "-sS",
            "--max-time",
            patience,
            "--fail",
            *(["--data", data] if data else []),
        ]
        done = self.cluster.client.run(
            [*words, f"http://{self.cluster.ip(node)}:{PORT}/api"], check=check
        )
        return json.loads(done.stdout or "{}")

    def greets(self, node):
        """Say whether the page with the first entry comes through a node."""
        entries = self.fetch(node, check=False).get("entries") or [{}]
        return entries[0].get("text") == "hello"

    def ready(self, service):
        return self.cluster.ready(service, stack="guestbook")

    def nodes_of(self, service):
        return sorted(row["node"] for row in self.ready(service))


def test_the_guestbook_on_three_hosts(cluster, capsys):
    book = Guestbook(cluster)
    own = cluster.ip("client")

    # It comes up, in dependency order, spread over the hosts.
    book("up", "-d")
    assert book.nodes_of("web") == list(NODES)
    first = {
        row["service"]: row for row in cluster.get("/v1/stacks/guestbook/tasks", all=True)["tasks"]
    }
    migrated = cluster.task(first["migrate"])["status"]["runs"][-1]
    assert migrated["exit_code"] == 0
    assert migrated["finished_at"] <= min(row["started_at"] for row in book.ready("web"))

    # The page through each node; the client is seen with its own address, in web's log too.
    cluster.until("every node serves", lambda: all(book.fetch(n, check=False) for n in NODES))
    book.fetch("n1", data='{"name": "test", "text": "hello"}')
    for node in NODES:
        page = book.fetch(node)
        assert page["entries"][0]["text"] == "hello"
        assert page["client"] == own
    assert own in book("logs", "--tail", "20", "web")

    book("scale", "web=6")
    assert book.nodes_of("web") == sorted([*NODES, *NODES])

    # A changed version while requests run.
    book.version = "2"
    with cluster.load([cluster.ip(n) for n in NODES], PORT, connections=4) as figures:
        book("up", "-d")
    assert figures["failed"] == 0, figures["errors"]
    assert figures["total"] > 40, "ten of each connection"
    assert {book.fetch(node)["version"] for node in NODES for _ in range(3)} == {"2"}
    assert len(book.ready("web")) == 6

    # One host loses power; all that may move runs elsewhere soon, and the data is still there.
    (home,) = book.nodes_of("redis")
    victim = "n3" if home != "n3" else "n2"
    left = [node for node in NODES if node != victim]
    cluster.lab.power_off(victim)
    took = cluster.until(
        "six ready web tasks and the proxy on two nodes",
        lambda: book.nodes_of("web") == sorted(left * 3) and len(book.nodes_of("proxy")) == 1,
        120,
    )
    with capsys.disabled():
        print(f"\n{victim} powered off: recovered after {took:.1f} s", end="")
    # The controller knows it; the nodes hear of it a moment later.
    for node in left:
        cluster.until(f"{node} serves", lambda node=node: book.greets(node))
    assert cluster.nodes()[victim]["status"] == "down"

    # It comes back: nothing twice, by the reports and by the processes.
    cluster.lab.power_on(victim)
    cluster.until("it is ready", lambda: cluster.nodes()[victim]["status"] == "ready", 120)
    cluster.until(
        "no surplus",
        lambda: (
            len(cluster.rows(stack="guestbook")) == 8
            and sum(cluster.containers(node) for node in NODES) == 8
        ),
    )
    assert len(book.ready("web")) == 6
    cluster.until(f"{victim} serves", lambda: book.greets(victim))

    book("down", "-v")
    assert cluster.get("/v1/stacks")["stacks"] == []
    cluster.until("no monitor is left", cluster.gone)


LINE = re.compile(r"^(tick-\d) +\| (\S+Z) (\S+) (\d+)$")
MICROSECOND = timedelta(microseconds=2)  # both times are rounded
TICK = """
services:
  tick:
    image: corral/debian-base:12
    init: true
    command: [bash, -c, "while :; do echo $$HOSTNAME $$(date +%s%N); sleep 0.2; done"]
    deploy: {replicas: 3}
"""


def test_commands_reach_every_host(cluster):
    cluster.compose(TICK)
    cluster("up", "-d")
    table = cluster("ps").stdout
    assert [name for name in NODES if f" {name} " in table] == list(NODES)

    said = lambda index: cluster("logs", "--index", str(index), "tick").stdout  # noqa: E731 - short
    cluster.until("some lines", lambda: all(said(n).count("\n") > 5 for n in (1, 2, 3)))
    lines = [LINE.match(line) for line in cluster("logs", "-t", "tick").stdout.splitlines()]
    assert all(lines)
    assert {line[1] for line in lines} == {"tick-1", "tick-2", "tick-3"}
    # Merged by the time that is shown, exactly: when a host took the line. That is after its
    # container said it, however much later on a busy machine (the hosts share a clock).
    shown = [datetime.fromisoformat(line[2]) for line in lines]
    assert shown == sorted(shown)
    said = [datetime.fromtimestamp(int(line[4]) / 1e9, UTC) for line in lines]
    assert all(a <= b + MICROSECOND for a, b in zip(said, shown, strict=True))
    assert len(cluster("logs", "--tail", "2", "tick").stdout.splitlines()) == 6

    rows = cluster.rows("tick")
    for row in rows:
        index = row["name"].rpartition("-")[2]
        words = ("tick", "sh", "-c", "cat /etc/hosts; exit 7")
        said = cluster("exec", "-T", "--index", index, *words, code=7).stdout
        assert row["addresses"][0] in said

    before = cluster.processes()
    cluster("restart", "-t", "1", "tick")
    after = cluster.processes()
    assert before.keys() == after.keys()
    assert all(before[task][0] == after[task][0] for task in before)
    assert all(before[task] != after[task] for task in before)

    cluster("scale", "tick=5")
    assert len(cluster.ready("tick")) == 5
    cluster("scale", "tick=1")
    cluster.until("one is left", lambda: sum(map(cluster.containers, NODES)) == 1)
    assert len(cluster.rows("tick")) == 1
    cluster("down", "-t", "0")
    cluster.until("no monitor is left", cluster.gone)
