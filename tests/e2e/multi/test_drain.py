"""`node drain` waits: what may leave has left when it ends, what stays is named with its reason."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
STACK = """
services:
  web:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy: {replicas: 3}
  every:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy: {mode: global}
  pinned:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.hostname == n3]}}
  noted:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes: [/notes]
    deploy: {replicas: 3}
volumes: {data: {}}
"""


def homes(cluster):
    return {row["slot"]: row["node"] for row in cluster.rows() if row["service"] == "noted"}


def notes(cluster, slot):
    return cluster("exec", "-T", "--index", str(slot), "noted", "ls", "/notes").stdout.split()


def test_a_drain_ends_when_nothing_more_leaves(cluster):
    cluster.compose(STACK)
    cluster("up", "-d")
    try:
        # What stays on its node keeps its anonymous volume, what must move starts empty.
        before = homes(cluster)
        assert sorted(before.values()) == ["n1", "n2", "n3"]
        for slot in before:
            cluster("exec", "-T", "--index", str(slot), "noted", "touch", f"/notes/{slot}")
        cluster("up", "-d", "--force-recreate", "noted")
        assert homes(cluster) == before
        assert [notes(cluster, slot) for slot in before] == [[str(slot)] for slot in before]
        done = cluster("node", "drain", "n2")
        assert "n2: drained, nothing runs there" in done.stdout
        assert "app-web-" in done.stderr
        assert not [row for row in cluster.rows() if row["node"] == "n2"]
        assert len(cluster.ready("web")) == 3
        (moved,) = [slot for slot, node in before.items() if node == "n2"]
        cluster.until("it is elsewhere", lambda: len(cluster.ready("noted")) == 3)
        now = homes(cluster)
        assert now[moved] in {"n1", "n3"}
        assert {slot: now[slot] for slot in before if slot != moved} == {
            slot: node for slot, node in before.items() if slot != moved
        }
        assert [notes(cluster, slot) for slot in before] == [
            [] if slot == moved else [str(slot)] for slot in before
        ]
        # The volume's task stays, with the reason; the others leave.
        done = cluster("node", "drain", "n3", code=1)
        assert "app-pinned-1 stays on n3: volume app_data is there" in done.stderr
        assert {row["service"] for row in cluster.rows() if row["node"] == "n3"} == {"pinned"}
        # Nobody is waited for where that is not wanted.
        assert "nothing runs there" not in cluster("node", "drain", "--no-wait", "n1").stdout
    finally:
        for node in ("n1", "n2", "n3"):
            cluster("node", "activate", node)
    cluster.until("all are back", lambda: len(cluster.ready("every")) == 3)
