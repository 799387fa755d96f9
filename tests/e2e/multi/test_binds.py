"""Absolute binds on several hosts: data stays where it is, a share is everywhere, sockets are real.

Shown with the paths of real hosts: one that nobody has, one that all have, one that one has.
"""

from __future__ import annotations

import pytest

from tests.e2e.multi.cluster import NODES

pytestmark = pytest.mark.real
STACK = """
services:
  db:
    image: busybox
    command: [sh, -c, "echo {mark} >> /data/log; exec sleep inf"]
    stop_grace_period: 0s
    volumes: ["/srv/corral-db:/data"]
  reader:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes_from: ["db:ro"]
  share:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes: ["/srv/corral-share:/data"]
    deploy: {{replicas: 3, placement: {{max_replicas_per_node: 1}}}}
    hostname: "{{{{.Node.Hostname}}}}-{{{{.Task.Slot}}}}"
    links: ["db:store"]
    ports: ["18090:80"]
  beside:
    image: busybox
    command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
    stop_grace_period: 0s
    network_mode: service:share
    deploy: {{replicas: 3}}
  agent:
    image: busybox
    command: [sh, -c, "test -f /s && exec sleep inf"]
    stop_grace_period: 0s
    volumes: ["/srv/corral-some/x.sock:/s"]
    deploy: {{replicas: 2}}
"""
NO_SOCKET = """
services:
  web:
    image: busybox
    command: [sleep, inf]
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
"""


@pytest.fixture
def paths(cluster):
    for name in NODES:
        cluster.host(name).run(["mkdir", "-p", "/srv/corral-share"])
    # A file stands for the socket: only that it is there is asked.
    sh(cluster, "n2", "mkdir /srv/corral-some && touch /srv/corral-some/x.sock")
    yield
    for name in NODES:
        sh(cluster, name, "rm -rf /srv/corral-*")


def sh(cluster, node, script):
    return cluster.host(node).run(["sh", "-c", script]).stdout


def there(cluster, path, *nodes):
    return [node for node in nodes if sh(cluster, node, f"ls -d {path} 2>/dev/null || true")]


def nodes_of(cluster, service):
    return sorted(row["node"] for row in cluster.ready(service))


def beside_each_other(cluster):
    """Each of the pairs is on one node, and what one publishes there is served by the other."""
    places = {
        service: {row["slot"]: row["node"] for row in cluster.ready(service)}
        for service in ("share", "beside")
    }
    assert len(places["share"]) == 3
    assert places["beside"] == places["share"]
    names = {f"{sh(cluster, node, 'hostname').strip()}-{n}" for n, node in places["share"].items()}
    found = set()

    def asked():
        for node in NODES:
            url = f"http://{cluster.ip(node)}:18090/"
            found.add(sh(cluster, "n1", f"curl -sS -m 5 {url} 2>/dev/null || true").strip())
        return found >= names

    cluster.until("each pair has answered", asked)
    assert found - {""} == names


def test_each_runs_where_its_path_is(cluster, paths):
    cluster.compose(STACK.format(mark="first"))
    said = cluster("up", "-d").stderr
    assert "stays on one node, where its data is: " in said
    assert "db (path /srv/corral-db, unless every node has it)" in said
    (home,) = nodes_of(cluster, "db")
    assert nodes_of(cluster, "reader") == [home]
    assert nodes_of(cluster, "share") == list(NODES)
    assert nodes_of(cluster, "agent") == ["n2", "n2"]
    for slot in (1, 2):
        asked = (
            "hostname; for i in $(seq 200); do nslookup store >/dev/null && break; sleep 0.1; done"
        )
        said = cluster("exec", "-T", "--index", str(slot), "share", "sh", "-c", f"{asked}; echo $i")
        (row,) = [r for r in cluster.rows("share") if r["slot"] == slot]
        name, tries = said.stdout.split()
        assert name == f"{sh(cluster, row['node'], 'hostname').strip()}-{slot}"
        assert int(tries) < 200, "the alias of db leads to it from every host"

    beside_each_other(cluster)

    # The record outlives `down`; what is on the other nodes meanwhile is no reason to go there.
    cluster("down")
    other = next(name for name in NODES if name != home)
    sh(cluster, other, "mkdir -p /srv/corral-db")
    cluster.compose(STACK.format(mark="second"))
    cluster("up", "-d")
    assert nodes_of(cluster, "db") == [home]

    def written():  # it runs before its shell has written
        return cluster("exec", "-T", "reader", "cat", "/data/log").stdout.split()

    cluster.until("both have written", lambda: written() == ["first", "second"], 240)
    assert there(cluster, "/srv/corral-db", *NODES) == sorted([home, other])

    cluster("down")
    cluster.compose(NO_SOCKET)
    failed = cluster("up", "-d", code=1)
    assert "shows Docker's containers of the node, not corral's" in failed.stderr
    assert "bind source /var/run/docker.sock does not exist on this node and is never made" in (
        failed.stdout + failed.stderr
    )
    assert there(cluster, "/var/run/docker.sock", *NODES) == []
