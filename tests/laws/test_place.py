"""Laws of placing: scheduler.place."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import constraints
from scheduler.place import place
from scheduler.view import Fleet, Home, HostPort, NodeUse, NodeView, Pending

GIB = 1 << 30
nodes = st.lists(
    st.builds(
        lambda cpus, memory, zone, status, availability, used, listening: {
            "cpus": float(cpus),
            "memory": memory * GIB,
            "labels": {"zone": zone} if zone else {},
            "status": status,
            "availability": availability,
            "use": NodeUse(
                cpus=min(used, cpus) / 2, memory=min(used, memory) * GIB // 2, tasks=used
            ),
            "listening": frozenset({"80/tcp"}) if listening else frozenset(),
        },
        st.integers(1, 8),
        st.integers(1, 8),
        st.sampled_from(["", "a", "b", "c"]),
        st.sampled_from(["ready", "ready", "ready", "unknown", "down"]),
        st.sampled_from(["active", "active", "active", "drain", "pause"]),
        st.integers(0, 4),
        st.booleans(),
    ),
    max_size=6,
)
groups = st.lists(
    st.builds(
        lambda count, cpus, memory, rules, spread, most, port, home: {
            "count": count,
            "cpus": cpus / 2,
            "memory": memory * GIB // 2,
            "constraints": rules,
            "preferences": spread,
            "max_per_node": most,
            "ports": (HostPort(80, "tcp"),) if port else (),
            "homes": (Home(f"volume {home}", home),) if home else (),
        },
        st.integers(1, 5),
        st.integers(0, 4),
        st.integers(0, 4),
        st.sampled_from([(), ("node.labels.zone == a",), ("node.labels.zone != a",)]),
        st.sampled_from([(), ("node.labels.zone",)]),
        st.integers(0, 2),
        st.booleans(),
        st.sampled_from(["", "", "v1", "v2"]),
    ),
    max_size=4,
)


def cluster(described) -> Fleet:
    views = {}
    for number, node in enumerate(described):
        node_id = f"n{number}"
        views[node_id] = NodeView(id=node_id, name=f"host{number}", **node)
    return Fleet(views)


def tasks(described) -> list[Pending]:
    found = []
    for number, group in enumerate(described):
        fields = dict(group)
        found += [
            Pending(
                task=f"t{number}.{slot}",
                service=f"app/s{number}",
                spec_hash=f"h{number}",
                slot=slot,
                **fields,
            )
            for slot in range(1, fields.pop("count") + 1)
        ]
    return found


@settings(deadline=None, max_examples=150)
@given(nodes, groups, st.integers(0, 3), st.randoms(use_true_random=False))
def test_placing(described_nodes, described_groups, seed, random):
    view, pending = cluster(described_nodes), tasks(described_groups)
    result = place(view, pending, seed)
    by_id = {task.task: task for task in pending}
    assert set(result.assigned) | set(result.refused) == set(by_id), "law: each gets an answer"
    assert not set(result.assigned) & set(result.refused), "law: one answer each"
    shuffled = list(pending)
    random.shuffle(shuffled)
    again = place(view, shuffled, seed)
    assert again == result, "law: the order of the input does not matter, same input same answer"
    assert all(result.refused.values()), "law: a refusal says why"

    cpus: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    services: Counter[tuple[str, str]] = Counter()
    ports: Counter[str] = Counter()
    homes: dict[str, set[str]] = {}
    for task_id, node_id in result.assigned.items():
        task, node = by_id[task_id], view.nodes[node_id]
        assert node.status == "ready", "law: nothing on a node that is not ready"
        assert node.availability == "active", "law: nothing on a paused or draining node"
        assert all(constraints.parse(c).admits(node) for c in task.constraints), (
            "law: constraints hold"
        )
        assert not (task.ports and node.listening), "law: no port a local process holds"
        cpus[node_id] += task.cpus
        memory[node_id] += task.memory
        services[(task.service, node_id)] += 1
        ports[node_id] += len(task.ports)
        for home in task.homes:
            homes.setdefault(home.key, set()).add(node_id)
        if task.max_per_node:
            assert services[(task.service, node_id)] <= task.max_per_node, "law: max_per_node"
    for node_id, node in view.nodes.items():
        if cpus[node_id]:
            assert node.use.cpus + cpus[node_id] <= node.cpus + 0.01, "law: CPUs not over-committed"
        if memory[node_id]:
            assert node.use.memory + memory[node_id] <= node.memory, (
                "law: memory not over-committed"
            )
        assert ports[node_id] <= 1, "law: a host port is taken once"
    assert all(len(where) == 1 for where in homes.values()), "law: a volume has one home"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 20), st.integers(0, 3))
def test_equals_are_spread_evenly(count, replicas, seed):
    view = cluster([{"cpus": 4.0, "memory": 8 * GIB}] * count)
    result = place(view, tasks([{"count": replicas}]), seed)
    found = Counter(result.assigned.values())
    levels = [found[node] for node in view.nodes]
    assert max(levels) - min(levels) <= 1, "law: counts differ by at most one among equals"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.integers(1, 12))
def test_preferences_spread_over_branches_before_nodes(zones, replicas):
    view = cluster([{"cpus": 4.0, "memory": 8 * GIB, "labels": {"zone": z}} for z in zones])
    group = {"count": replicas, "preferences": ("node.labels.zone",)}
    result = place(view, tasks([group]), 0)
    found = Counter(view.nodes[n].labels["zone"] for n in result.assigned.values())
    levels = [found[zone] for zone in set(zones)]
    assert max(levels) - min(levels) <= 1, "law: zones get equal numbers"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 20), st.integers(0, 3))
def test_what_is_packed_takes_no_node_more_than_it_needs(count, fit, replicas, seed):
    view = cluster([{"cpus": 4.0, "memory": 5 * GIB}] * count)
    group = {"count": replicas, "memory": 5 * GIB // fit, "pack": True}
    pending = tasks([group, {"count": 1, "memory": GIB, "pack": True}])
    result = place(view, pending, seed)
    found = Counter(node for task, node in result.assigned.items() if task.startswith("t0"))
    assert len(found) == min(count, -(-replicas // fit)), "law: as few nodes as there can be"
    assert len([n for n in found.values() if n < fit]) <= 1, "law: all but one are full"


def test_what_reserves_nothing_is_packed_until_a_node_counts_as_full():
    view = cluster([{"cpus": 1.0, "memory": 5 * GIB}] * 3)
    result = place(view, tasks([{"count": 45, "pack": True}]), 0)
    assert sorted(Counter(result.assigned.values()).values()) == [5, 20, 20]
    result = place(view, tasks([{"count": 63, "pack": True}]), 0)
    assert sorted(Counter(result.assigned.values()).values()) == [21, 21, 21]


def test_nothing_pending_means_nothing_moves():
    assert place(cluster([{}] * 3), []).assigned == {}


def test_a_thousand_tasks_on_a_hundred_nodes_are_placed_in_no_time():
    calls = 0

    class Counting(dict):
        def get(self, *args):
            nonlocal calls
            calls += 1
            return super().get(*args)

    failures = Counting()
    described = [{"cpus": 64.0, "memory": 256 * GIB, "failures": failures}] * 100
    result = place(cluster(described), tasks([{"count": 1000}]), 0)
    assert len(result.assigned) == 1000
    # Every score asks once: linear in nodes + tasks, not their product.
    assert calls < 5 * (100 + 1000)
