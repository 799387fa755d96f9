"""The mirror's indexes say what all records say, and keep nothing of what is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.observed import Observed
from orchestrator.control.mirror.records import LEASES, NETWORKS, RESTING, Lease, NetworkRecord
from orchestrator.control.mirror.records import Resting as Rests
from orchestrator.control.planning.addresses import _ends, empty_leases
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore
from specs.kit.clock import SystemClock
from specs.states import Desired, TaskState
from specs.task import Task, TaskStatus

NETS = ("x", "y")


def a_task(number: int, node: str | None, networks: tuple[str, ...]) -> Task:
    return Task(
        id=f"t{number}",
        stack="a",
        service="web",
        slot=number,
        name=f"a-web-{number}",
        release=1,
        spec_hash="",
        desired=Desired.RUNNING,
        node=node,
        addresses=dict.fromkeys(networks, f"10.0.0.{number}") if node else {},
        status=TaskStatus(state=TaskState.RUNNING if node else TaskState.PENDING),
    )


steps = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["put", "delete"]),
        st.sampled_from([None, "n1", "n2"]),
        st.sampled_from([(), ("x",), ("y",), NETS]),
    ),
    max_size=25,
)


@given(steps)
@settings(deadline=None)
def test_nodes_on_a_network_are_those_with_a_task_there(moves):
    async def play() -> None:
        cluster = await Cluster.open(MemoryStore(), SystemClock())
        for revision, (number, what, node, networks) in enumerate(moves, 1):
            task = a_task(number, node, networks) if what == "put" else None
            cluster.applied(revision, [(keys.task("a", f"t{number}"), task)])
            expected = {
                network: Counter(t.node for t in cluster.tasks.values() if network in t.addresses)
                for network in NETS
            }
            assert {n: dict(cluster.nodes_on.get(n, {})) for n in NETS} == expected

    asyncio.run(play())


async def test_of_a_network_that_is_gone_nothing_is_kept():
    cluster = await Cluster.open(MemoryStore(), SystemClock())
    observed = Observed(cluster, SystemClock())
    net = NetworkRecord(id="x", name="net", stack="a", key="net", pool="10.0.0.0/26")
    lease = Lease(network="x", cidr="10.0.0.0/29", node="n1")
    rests = Rests(network="x", address="10.0.0.9")
    task = a_task(2, "n1", ("x",))
    put = [
        (NETWORKS.key_of(net), net),
        (LEASES.key_of(lease), lease),
        (RESTING.key_of(rests), rests),
    ]
    cluster.applied(1, [*put, (keys.task("a", task.id), task)])
    empty_leases(Draft(cluster), observed.blocks_held)
    assert "x" in observed.blocks_held
    assert observed.resting_on["x"].keys() == {"10.0.0.9"}
    # In the order of a commit and in the other one: what is last takes the rest along.
    for order in (1, -1):
        gone = [*((key, None) for key, _ in put), (keys.task("a", task.id), None)]
        cluster.applied(cluster.revision + 1, gone[::order])
        for where in (
            *(cluster.leases, cluster.vips, cluster.resting, cluster.by_network),
            *(cluster.nodes_on, cluster.network_moves, observed.resting_on, cluster.by_stack),
        ):
            assert not where, where
        empty_leases(Draft(cluster), observed.blocks_held)
        assert not observed.blocks_held
        cluster.applied(cluster.revision + 1, [*put, (keys.task("a", task.id), task)])
        assert cluster.nodes_on == {"x": {"n1": 1}}


@given(st.integers(0, (1 << 24) - 1), st.integers(8, 32))
def test_the_ends_of_a_block(number, prefix):

    block = IPv4Network((number << 8, prefix), strict=False)
    assert _ends(str(block)) == (int(block.network_address), int(block.broadcast_address))
