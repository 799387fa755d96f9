"""Laws of rebalancing: scheduler.rebalance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import constraints
from scheduler.displaced import Settled
from scheduler.rebalance import rebalance
from scheduler.view import Fleet, Home, HostPort, NodeUse, NodeView, Pending

GIB = 1 << 30
NAMES = ["n1", "n2", "n3", "n4", "n5"]
nodes = st.lists(
    st.builds(
        dict,
        labels=st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}]),
        status=st.sampled_from(["ready", "ready", "ready", "unknown", "down"]),
        availability=st.sampled_from(["active", "active", "active", "drain"]),
        memory=st.sampled_from([2 * GIB, 8 * GIB]),
    ),
    min_size=1,
    max_size=5,
)
services = st.lists(
    st.builds(
        lambda on, more: (on, more),
        st.lists(st.integers(0, 4), min_size=1, max_size=9),
        st.builds(
            dict,
            memory=st.sampled_from([0, GIB // 4]),
            constraints=st.sampled_from([(), ("node.labels.zone == a",)]),
            preferences=st.sampled_from([(), ("node.labels.zone",)]),
            max_per_node=st.sampled_from([0, 0, 3]),
            ports=st.sampled_from([(), (), (HostPort(80, "tcp"),)]),
            homes=st.sampled_from([(), (), (Home("volume v", "v", "n1"),)]),
            pack=st.sampled_from([False, False, True]),
        ),
    ),
    max_size=3,
)


def running(fleet: dict[str, NodeView], described) -> list[Settled]:
    """Return the tasks, where the cluster has room for them already."""
    found = []
    for number, (on, more) in enumerate(described):
        for slot, place in enumerate(on, 1):
            wants = Pending(f"t{number}.{slot}", f"app/s{number}", f"h{number}", slot, **more)
            found.append(Settled(wants, NAMES[place % len(fleet)]))
    return found


def used(fleet: dict[str, NodeView], tasks: list[Settled]) -> Fleet:
    seen = {}
    for name, node in fleet.items():
        here = [task.wants for task in tasks if task.node == name]
        use = NodeUse(
            cpus=0.0,
            memory=sum(t.memory for t in here),
            tasks=len(here),
            services=Counter(t.service for t in here),
            specs=Counter(t.spec_hash for t in here),
            ports=frozenset(port for t in here for port in t.ports),
        )
        seen[name] = replace(node, use=use)
    return Fleet(seen)


def moved(tasks: list[Settled], moves) -> list[Settled]:
    where = {move.task: move.target for move in moves}
    return [replace(task, node=where.get(task.wants.task, task.node)) for task in tasks]


def uneven(task: Settled, fleet: Fleet, tasks: list[Settled]) -> tuple[int, int]:
    """Return how uneven the task's service is spread: over zones, where it asks, then nodes."""
    some = [t.node for t in tasks if t.wants.service == task.wants.service]
    zones = Counter(fleet.nodes[n].labels.get("zone", "") for n in some)
    over = sum(n * n for n in zones.values()) if task.wants.preferences else 0
    return over, sum(n * n for n in Counter(some).values())


@settings(deadline=None, max_examples=300)
@given(nodes, services, st.integers(0, 6), st.booleans())
def test_a_plan(described, of_services, most, brake):
    fleet = {
        n: NodeView(id=n, name=n, cpus=8.0, **d) for n, d in zip(NAMES, described, strict=False)
    }
    tasks = running(fleet, of_services)
    view = used(fleet, tasks)
    plan = rebalance(view, tasks, most=most, brake=brake)
    assert plan == rebalance(view, list(reversed(tasks)), most=most, brake=brake), "law: one answer"
    assert len(plan.moves) <= most, "law: bounded"
    assert len({move.task for move in plan.moves}) == len(plan.moves), "law: no task twice"
    assert not plan.stays.keys() & {move.task for move in plan.moves}, "law: goes or stays"
    assert all(plan.stays.values()), "law: who stays has a reason"
    assert not (brake and plan.moves), "law: nothing moves under the brake"
    by_id = {task.wants.task: task for task in tasks}
    for number, move in enumerate(plan.moves):
        before, after = moved(tasks, plan.moves[:number]), moved(tasks, plan.moves[: number + 1])
        task, target = by_id[move.task], view.nodes[move.target]
        assert move.source == task.node != move.target
        assert not task.wants.homes, "law: what is tied stays"
        assert not task.wants.pack, "law: what is packed stays"
        assert (target.status, target.availability) == ("ready", "active"), "law: hard rules"
        assert constraints.broken(task.wants.constraints, target) is None, "law: hard rules"
        there = [t for t in before if t.node == move.target]
        # Start-first: what leaves a node is still there.
        leaving = [by_id[m.task] for m in plan.moves[:number] if m.source == move.target]
        memory = sum(t.wants.memory for t in [*there, *leaving, task])
        assert not task.wants.memory or memory <= target.memory, "law: hard rules"
        assert not (task.wants.ports and any(t.wants.ports for t in there)), "law: hard rules"
        same = sum(t.wants.service == task.wants.service for t in there)
        assert not task.wants.max_per_node or same < task.wants.max_per_node, "law: hard rules"
        assert uneven(task, view, after) < uneven(task, view, before), "law: each makes it better"
    if len(plan.moves) < most:
        ended = moved(tasks, plan.moves)
        assert not rebalance(used(fleet, ended), ended, most=9, brake=brake).moves or plan.stays, (
            "law: nothing is left to plan, but what had no room beside what leaves"
        )


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 4), max_size=20), st.integers(1, 5))
def test_equal_nodes_end_level(on, count):
    fleet = {n: NodeView(id=n, name=n, cpus=64.0, memory=64 * GIB) for n in NAMES[:count]}
    tasks = running(fleet, [(on, {})] if on else [])
    plan = rebalance(used(fleet, tasks), tasks, most=99)
    found = Counter(task.node for task in moved(tasks, plan.moves))
    levels = [found[n] for n in fleet]
    assert max(levels) - min(levels) <= 1, "law: counts differ by at most one among equals"
    before = Counter(task.node for task in tasks)
    least = sum(max(0, before[n] - found[n]) for n in fleet)
    assert len(plan.moves) == least, "law: nobody goes who is replaced by another one there"


STAYS = {
    "a volume": (
        {"homes": (Home("volume v", "v", "n1"),)},
        {},
        "it stays with volume v",
    ),
    "no room": (
        {"memory": 2 * GIB},
        {"memory": GIB},
        "no node fits: of 1 node, 1 lacks memory (needs 2 GiB, most unreserved is 1 GiB on n2)",
    ),
    "a label": (
        {"constraints": ("node.labels.zone == a",)},
        {},
        "no node fits: of 1 node, 1 does not satisfy 'node.labels.zone == a'",
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_who_stays_says_why(case):
    wants, joined, said = STAYS[case]
    fleet = {
        "n1": NodeView(id="n1", name="n1", memory=8 * GIB, cpus=8.0, labels={"zone": "a"}),
        "n2": NodeView(id="n2", name="n2", cpus=8.0, **{"memory": 8 * GIB, **joined}),
    }
    tasks = running(fleet, [([0, 0, 0], wants)])
    plan = rebalance(used(fleet, tasks), tasks, most=9)
    assert plan.moves == ()
    assert set(plan.stays.values()) == {said}


def test_what_an_update_makes_is_not_moved_meanwhile():
    fleet = {n: NodeView(id=n, name=n, memory=8 * GIB, cpus=8.0) for n in NAMES[:2]}
    tasks = running(fleet, [([0, 0, 0], {})])
    tasks[0] = replace(tasks[0], wants=replace(tasks[0].wants, spec_hash="new"))
    assert rebalance(used(fleet, tasks), tasks, most=9).moves == ()
