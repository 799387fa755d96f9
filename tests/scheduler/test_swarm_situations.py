"""Situations that Swarm's scheduler meets, and what ours makes of each: one table.

The nodes say what is on them; a task is placed after the other tasks of its row. Where the answer
differs from Swarm's on purpose, the row says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from scheduler.place import place
from scheduler.view import Fleet, Home, HostPort, NodeUse, NodeView, Pending

GIB = 1 << 30
HTTP = HostPort(80, "tcp")


def node(name, *, web=0, others=0, zone=None, rack=None, **more):
    """Return a node with so many tasks of the service and of others."""
    use = NodeUse(
        cpus=more.pop("used", 0.0),
        memory=more.pop("memory_used", 0),
        tasks=web + others,
        services={"app/web": web, "app/other": others},
        specs={"w": web, "o": others},
        ports=frozenset(more.pop("ports", ())),
    )
    labels = {k: v for k, v in {"zone": zone, "rack": rack}.items() if v}
    more = {"cpus": 8.0, "memory": 8 * GIB, **more}
    return NodeView(id=name, name=name, labels=labels, use=use, **more)


def web(count=1, **more):
    fields = {"service": "app/web", "spec_hash": "w", **more}
    return [
        Pending(task=f"{fields['spec_hash']}{n}", slot=n, **fields) for n in range(1, count + 1)
    ]


ZONES = ("node.labels.zone",)
RACKS = (*ZONES, "node.labels.rack")
A, B, C = (node(name) for name in "abc")

CASES = {
    # nodes, tasks -> how many of them each node gets; what is said of those that get none
    "equal nodes get equal numbers": ([A, B, C], web(6), {"a": 2, "b": 2, "c": 2}, None),
    "a node that joins gets the new ones until all are level, and nothing moves": (
        [node("a", web=3), node("b", web=3), C],
        web(3),
        {"c": 3},
        None,
    ),
    "nothing pending: a node that joins gets nothing": ([node("a", web=3), B], [], {}, None),
    "tasks of the service count before all others": (
        [node("a", web=1), node("b", others=9)],
        web(),
        {"b": 1},
        None,
    ),
    "what is reserved counts, not only how many (Swarm: the number)": (
        [node("a", others=1, used=6.0), node("b", others=2, used=1.0)],
        web(),
        {"b": 1},
        None,
    ),
    "a small node is as full as it is, not as a large one (Swarm: the number)": (
        [node("a", others=2, used=1.0, cpus=1.25), node("b", others=3, used=2.0, cpus=16.0)],
        web(),
        {"b": 1},
        None,
    ),
    "packed: the fullest that has room": (
        [node("a", others=4, used=4.0), node("b", others=7, used=7.5), C],
        web(2, cpus=1.0, pack=True),
        {"a": 2},
        None,
    ),
    "where it failed five times it goes last": (
        [node("a", failures={"w": 5}), node("b", web=2, others=5)],
        web(2),
        {"b": 2},
        None,
    ),
    "but it goes there where there is no other": (
        [node("a", failures={"w": 9})], web(), {"a": 1}, None,
    ),
    "one failure counts, too: it is several restarts there (Swarm: from five on)": (
        [node("a", failures={"w": 1}), node("b", web=2)],
        web(),
        {"b": 1},
        None,
    ),
    "failures of another spec do not count": (
        [node("a", failures={"x": 9}), node("b", web=1)], web(), {"a": 1}, None,
    ),
    "zones get equal numbers however many nodes they have": (
        [node("a", zone="x"), node("b", zone="y"), node("c", zone="y"), node("d", zone="y")],
        web(6, preferences=ZONES),
        {"a": 3, "b": 1, "c": 1, "d": 1},
        None,
    ),
    "a zone that has some gets fewer": (
        [node("a", zone="x", web=2), node("b", zone="y")],
        web(4, preferences=ZONES),
        {"a": 1, "b": 3},
        None,
    ),
    "what a full zone cannot take the others get": (
        [node("a", zone="x", memory=2 * GIB), node("b", zone="y")],
        web(5, preferences=ZONES, memory=2 * GIB),
        {"a": 1, "b": 4},
        None,
    ),
    "racks within zones": (
        [node("a", zone="x", rack="1"), node("b", zone="x", rack="2"),
         node("c", zone="x", rack="2"), node("d", zone="y", rack="1")],
        web(8, preferences=RACKS),
        {"a": 2, "b": 1, "c": 1, "d": 4},
        None,
    ),
    "nodes without the label are a zone of their own": (
        [node("a", zone="x"), B], web(4, preferences=ZONES), {"a": 2, "b": 2}, None,
    ),
    "a port of the machine is taken once on each": (
        [A, B], web(3, ports=(HTTP,)), {"a": 1, "b": 1},
        "no node fits: of 2 nodes, 2 have port 80/tcp taken by another task (a, b)",
    ),
    "max_replicas_per_node": (
        [A, B], web(3, max_per_node=1), {"a": 1, "b": 1},
        "no node fits: of 2 nodes, 2 have max_replicas_per_node = 1 tasks of the service already",
    ),
    "start-first with it: it waits, and says for what (Swarm: silently)": (
        [node("a", web=1)], web(spec_hash="w2", max_per_node=1), {},
        "no node fits: of 1 node, 1 has max_replicas_per_node = 1 tasks of the service already",
    ),
    "stop-first with it: the old one's place is the new one's": (
        [node("a", web=1)], web(spec_hash="w2", max_per_node=1, instead_of="a"), {"a": 1}, None,
    ),
    "start-first on a full node: it waits, and says for what": (
        [node("a", web=1, memory_used=8 * GIB)], web(spec_hash="w2", memory=GIB), {},
        "no node fits: of 1 node, 1 lacks memory (needs 1 GiB, most unreserved is 0 B on a)",
    ),
    "stop-first on a full node": (
        [node("a", web=1, memory_used=8 * GIB)],
        web(spec_hash="w2", memory=GIB, instead_of="a", instead_use=(0.0, GIB)),
        {"a": 1},
        None,
    ),
    "an update that fits nowhere says why: every reason counted, the most frequent first": (
        [node("a", memory=GIB), node("b", memory=2 * GIB), node("c", status="down")],
        web(memory=4 * GIB),
        {},
        ("no node fits: of 3 nodes, 2 lack memory (needs 4 GiB, most unreserved is 2 GiB on b); "
         "1 is down (c)"),
    ),
    "a node that passes some tasks hides no reason of the others (Swarm: it does)": (
        [node("a", memory=GIB), node("b", availability="drain")],
        web(2, memory=GIB),
        {"a": 1},
        ("no node fits: of 2 nodes, 1 lacks memory (needs 1 GiB, most unreserved is 0 B on a); "
         "1 is draining (b)"),
    ),
    "a constraint nobody satisfies": (
        [A, B], web(constraints=("node.labels.zone == x",)), {},
        "no node fits: of 2 nodes, 2 do not satisfy 'node.labels.zone == x'",
    ),
    "and once somebody does, it goes there": (
        [A, node("b", zone="x")], web(constraints=("node.labels.zone == x",)), {"b": 1}, None,
    ),
    "a global service's task on its own node only": (
        [A, B], web(node="b"), {"b": 1}, None,
    ),
    "and where that one is paused it waits": (
        [A, node("b", availability="pause")], web(node="b"), {},
        "no node fits: of 2 nodes, 1 is not the node this task belongs to; 1 is paused (b)",
    ),
    "a volume's data is on one node, where tasks go that share it": (
        [A, B], web(3, homes=(Home("volume v", "v", "b"),)), {"b": 3}, None,
    ),
    "the first decides where a new volume is, the others follow": (
        [A, node("b", others=1, used=1.0)], web(3, homes=(Home("volume v", "v"),)), {"a": 3}, None,
    ),
    "another platform": (
        [node("a", arch="arm64")], web(platform="linux/amd64"), {},
        "no node fits: of 1 node, 1 is not linux/amd64",
    ),
    "no node at all": ([], web(), {}, "there is no node in the cluster"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_becomes_of_it(case):
    nodes, tasks, there, said = CASES[case]
    fleet = Fleet({each.id: each for each in nodes})
    found = place(fleet, tasks)
    assert Counter(found.assigned.values()) == there
    assert set(found.refused.values()) == ({said} if said else set())
    # Names and numbers of tasks decide nothing.
    other = place(fleet, [replace(task, task=f"x{task.task}") for task in reversed(tasks)])
    assert Counter(other.assigned.values()) == there
