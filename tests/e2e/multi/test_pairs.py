"""Pairs on three hosts: whatever becomes of one half, both are together again, and it serves."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from tests.e2e.multi.test_verbs import Typed

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
PORT = 8097
STACK = """
x-live: &live
  image: busybox
  stop_grace_period: 0s
services:
  web:
    <<: *live
    command: [sleep, "4343"]
    hostname: front
    environment: {TURN: "WEB"}
    ipc: shareable
    ports: ["8097:80"]
    deploy: &away
      update_config: {monitor: 0s}
      placement: {constraints: [node.hostname != n1]}
  side:
    <<: *live
    command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
    environment: {TURN: "SIDE"}
    network_mode: service:web
    deploy: {update_config: {monitor: 0s}}
  seer:
    <<: *live
    command: [sleep, inf]
    pid: service:web
    ipc: service:web
    deploy: {update_config: {monitor: 0s}}
"""
SHARED = {"side": ("net",), "seer": ("pid", "ipc")}


def brought_up(cluster, web="1", side="1"):
    cluster.compose(STACK.replace("WEB", web).replace("SIDE", side))
    cluster("up", "-d")


def present(cluster):
    """Return the tasks but those on a node that is away: others are in their place."""
    away = {name for name, row in cluster.nodes().items() if row["status"] == "down"}
    return [row for row in cluster.rows() if row["node"] not in away]


def together(cluster, *, at="", not_at=""):
    """Say whether all three run on one node, each in the namespaces it is to share with web."""
    there = present(cluster)
    rows = {row["service"]: row for row in there if row["ready"]}
    nodes = {row["node"] for row in rows.values()}
    if len(there) != 3 or len(rows) != 3 or len(nodes) != 1:
        return False
    (node,) = nodes
    if (at and node != at) or node == not_at:
        return False
    found = cluster.processes()
    with suppress(OSError, KeyError):
        links = {
            service: {kind: namespace(cluster, *found[row["id"]][:2], kind) for kind in KINDS}
            for service, row in rows.items()
        }
        web = links.pop("web")
        return all(
            (links[service][kind] == web[kind]) is (kind in shared)
            for service, shared in SHARED.items()
            for kind in KINDS
        )
    return False


KINDS = ("net", "pid", "ipc")


def namespace(cluster, node, pid, kind):
    return os.readlink(f"/proc/{cluster.host(node).pid}/root/proc/{pid}/ns/{kind}")


def serves(cluster):
    """Wait until every node that is there answers with the page, made with web's host name."""
    there = [name for name, row in cluster.nodes().items() if row["status"] != "down"]
    ask = "curl -sS -m 5 http://%s:8097/ 2>/dev/null || true"

    def all_say():
        asked = [ask % cluster.ip(name) for name in there]
        return cluster.client.run(["sh", "-c", "; ".join(asked)]).stdout == "front\n" * len(there)

    cluster.until(f"the page from {there}", all_say, 120)


def ids(cluster):
    return {row["service"]: row["id"] for row in present(cluster)}


def home(cluster):
    (node,) = {row["node"] for row in present(cluster)}
    return node


def test_pairs_are_updated_drained_and_ended_together(cluster):
    brought_up(cluster)
    cluster.until("together", lambda: together(cluster))
    serves(cluster)

    # An update of the one that shares leaves the one it shares with; of that one takes both along.
    before = ids(cluster)
    brought_up(cluster, side="2")
    cluster.until("together", lambda: together(cluster))
    after = ids(cluster)
    changed = {service for service in before if before[service] != after[service]}
    assert changed == {"side"}
    serves(cluster)
    brought_up(cluster, web="2", side="2")
    cluster.until("together", lambda: together(cluster))
    assert not set(after.values()) & set(ids(cluster).values())
    serves(cluster)

    # A one-off in web's network ends before web does, and whoever typed it is told why.
    node = home(cluster)
    one = Typed(cluster, "n1", ["run", "--rm", "-T", "side", "sh", "-c", "echo on; sleep 4444"])
    try:
        one.until("on")
        drained = Typed(cluster, "n1", ["node", "drain", node])
        code, said = one.end()
        assert code in (137, 143), said
        assert "was ended: app-web-1, whose network it shares, goes" in said
        code, said = drained.end()
        assert code == 0, said
    finally:
        one.close()
        cluster("node", "activate", node)
    cluster.until("together elsewhere", lambda: together(cluster, not_at=node))
    serves(cluster)

    # Who goes takes those along that live in it; they say for whom they wait.
    cluster("stop", "-t", "0", "web")
    cluster.until("all have ended", cluster.gone)
    cluster("start", "web")
    cluster.until("together", lambda: together(cluster))
    serves(cluster)


@pytest.mark.slow
def test_pairs_outlive_the_power_of_their_node(cluster):
    """For a moment: the same ones, in order, where they were. For long: others, elsewhere."""
    brought_up(cluster)
    cluster.until("together", lambda: together(cluster))
    before, node = ids(cluster), home(cluster)
    cluster.lab.power_off(node)
    cluster.lab.power_on(node)
    cluster.until(
        "they run again", lambda: ids(cluster) == before and together(cluster, at=node), 120
    )
    serves(cluster)

    cluster.lab.power_off(node)
    cluster.until("others run elsewhere", lambda: together(cluster, not_at=node), 180)
    assert not set(before.values()) & set(ids(cluster).values())
    serves(cluster)
    others = sorted((row["id"], row["node"]) for row in present(cluster))
    cluster.lab.power_on(node)
    cluster.until("it is ready", lambda: cluster.nodes()[node]["status"] == "ready", 120)
    cluster.until("nothing is left there", lambda: not cluster.containers(node), 120)
    cluster.until(  # what was left there is known of for a moment longer
        "only the others are there",
        lambda: sorted((row["id"], row["node"]) for row in cluster.rows()) == others,
        120,
    )
    assert together(cluster)


def test_a_pair_whose_partner_is_moved_by_hand_goes_along(cluster):
    """A dependent that does not fit beside web says what helps, and that helps."""
    brought_up(cluster)
    node = home(cluster)
    memory = int(cluster.get(f"/v1/nodes/{node}")["facts"]["memory"] * 0.6)
    cluster.compose(FULL % (memory, node), "full")
    cluster("up", "-d")
    side = "network_mode: service:web\n    deploy: {"
    text = STACK.replace("WEB", "1").replace("SIDE", "1")
    more = f"{side}resources: {{reservations: {{memory: '{memory}'}}}}, "
    assert side in text
    cluster.compose(text.replace(side, more))
    waits = Typed(cluster, "n1", ["up", "-d"])
    try:
        waits.until("`corral up -d --force-recreate web` moves app-web-1, too", 120)
    finally:
        waits.close()
    cluster("up", "-d", "--force-recreate", "web")
    cluster.until("together elsewhere", lambda: together(cluster, not_at=node))
    serves(cluster)


FULL = """
services:
  filler:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy:
      resources: {reservations: {memory: '%d'}}
      placement: {constraints: [node.hostname == %s]}
"""
