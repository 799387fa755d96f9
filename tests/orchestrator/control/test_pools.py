"""Pools that start small and grow, subnets that cannot, ranges that are used up and extended."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.control.deploy.ranges import refusal
from orchestrator.control.mirror.records import NetworkRecord
from orchestrator.errors import Invalid
from orchestrator.keys.identity import ClusterRecord, decode, encode
from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.node import Node, NodeFacts
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


async def set_ranges(rig, record):
    result = await rig.store.txn((), (Put(keys.CLUSTER, encode(record)),))
    await rig.cluster.reached(result.revision)


async def test_a_network_starts_small_and_grows_while_its_tasks_run():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(30)))
        await rig.deployed()
        (network,) = rig.cluster.networks.values()
        assert network.pools == ("10.210.16.0/26",)
        first = {t.id: t.addresses for t in rig.live("web")}
        await rig.control.scale("app", {"web": 150})
        await rig.until(lambda: len(rig.ready("web")) == 150)

        (network,) = rig.cluster.networks.values()
        assert len(network.pools) == 2
        pools = [IPv4Network(pool) for pool in network.pools]
        addresses = [t.addresses[network.id] for t in rig.live("web")]
        assert len(set(addresses)) == 150
        assert all(any(IPv4Address(a) in pool for pool in pools) for a in addresses)
        assert all(rig.cluster.tasks[t].addresses == kept for t, kept in first.items())
        # Every node that has a task of it is told all its pools, and where each address is.
        for fake in rig.nodes.values():
            state = fake.wanted.networks[network.id]
            assert state.pools == network.pools
            for task in rig.live("web"):
                mine = IPv4Address(task.addresses[network.id])
                best = max(
                    (b for b in state.blocks if mine in IPv4Network(b.cidr)),
                    key=lambda b: IPv4Network(b.cidr).prefixlen,
                )
                assert best.node == task.node


async def test_hundreds_of_networks_fit_by_default():
    """That a thousand do is a law of the pools (tests/laws/test_addresses.py)."""
    async with Rig() as rig:
        names = [f"s{number}" for number in range(40)]
        for name in names:
            text = project(web=replicas(1))
            more = [f"net{number}" for number in range(6)]
            text["networks"].update({key: {"name": f"{name}_{key}"} for key in more})
            text["services"]["web"]["networks"].update(dict.fromkeys(more))
            await rig.up(text, name)
        await rig.until(lambda: all(len(rig.ready("web", name)) == 1 for name in names), within=600)
        assert len(rig.cluster.networks) == 280


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
async def test_five_updates_in_a_row_work_in_a_small_subnet(order):
    async with Rig(nodes=2) as rig:
        for number in range(6):
            text = project(
                web=replicas(4, update={"order": order, "parallelism": 1}, image=f"web:{number}")
            )
            text["networks"]["default"]["ipam"] = {"config": [{"subnet": "10.99.0.0/28"}]}
            begun = rig.clock.monotonic()
            await rig.up(text)
            await rig.deployed(within=120)
            took = rig.clock.monotonic() - begun
            assert took < 30, "addresses rest shorter where there are few"
            assert len(rig.ready("web")) == 4
        (network,) = rig.cluster.networks.values()
        assert network.pools == ("10.99.0.0/28",)


async def test_a_range_that_is_used_up_says_what_helps_and_that_helps():
    async with Rig(nodes=2) as rig:
        await set_ranges(rig, ClusterRecord(id="rig", pool="10.210.0.0/19"))
        # The nodes' part is half of it; what is left is taken but for one small pool.
        taken = [
            NetworkRecord(id=f"x{n}", name=f"x{n}", stack="x", key="x", pool=f"10.210.16.{n}/26")
            for n in (64, 128, 192)
        ]
        rest = [("17", 24), ("18", 23), ("20", 22), ("24", 21)]
        taken += [
            NetworkRecord(id=f"y{n}", name=f"y{n}", stack="x", key="y", pool=f"10.210.{n}.0/{bits}")
            for n, bits in rest
        ]
        await rig.store.txn((), [Put(keys.network(n.id), n.encode()) for n in taken])
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.up(project(web=replicas(1)), "late")
        end = await rig.end_of("late")
        assert not end.ok
        assert "no addresses are left in the cluster's range 10.210.0.0/19" in end.message
        assert "corral controller extend" in end.message
        # A network that is full waits, with the same words.
        await rig.control.scale("app", {"web": 70})
        await rig.until(
            lambda: any("corral controller extend" in t.pending_reason for t in rig.tasks("web"))
        )

        assert await rig.control.extend("10.211.0.0/16") == ("10.210.0.0/19", "10.211.0.0/16")
        await rig.until(lambda: len(rig.ready("web")) == 70)
        assert rig.nodes["n1"].agent.holdings.held.me.ranges == (
            "10.210.0.0/19",
            "10.211.0.0/16",
        )
        await rig.up(project(web=replicas(1)), "late")
        await rig.deployed("late")
        with pytest.raises(Invalid, match="which the cluster has already"):
            await rig.control.extend("10.211.64.0/18")


HOST = Node(
    id="n",
    name="host1",
    underlay="192.168.7.2",
    facts=NodeFacts(addresses=("10.5.0.1", "fe80::1", "192.168.7.2")),
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.211.0.0/16", ""),
        ("172.20.0.0/20", ""),
        ("10.211.0.1/16", "is not an IPv4 range"),
        ("fd00::/64", "is not an IPv4 range"),
        ("many", "is not an IPv4 range"),
        ("10.211.0.0/28", "is not between a /8 and a /20"),
        ("0.0.0.0/0", "is not between"),
        ("8.8.0.0/16", "is not a private range"),
        ("127.0.0.0/16", "is not a private range"),
        ("10.210.128.0/17", "overlaps 10.210.0.0/16, which the cluster has already"),
        ("10.0.0.0/8", "overlaps 10.210.0.0/16"),
        ("10.99.0.0/16", "overlaps 10.99.4.0/24 of network shop"),
        ("10.5.0.0/16", "has 10.5.0.1 in it, an address of node host1"),
        ("192.168.0.0/16", "has 192.168.7.2 in it"),
    ],
)
def test_which_range_a_cluster_can_be_given(text, says):
    shop = NetworkRecord(id="n", name="shop", stack="s", key="k", pool="10.98.0.0/24")
    why = refusal(text, ClusterRecord(), [shop.with_pool("10.99.4.0/24")], [HOST])
    assert says in why
    assert bool(why) == bool(says)


def test_a_record_that_was_never_extended_reads_as_before():
    plain = ClusterRecord(id="c", epoch=3, created_at=1.0)
    assert b"more" not in encode(plain)
    assert decode(encode(plain)) == plain
    more = replace(plain, more=("10.211.0.0/16",))
    assert decode(encode(more)) == more
    assert more.ranges == ("10.210.0.0/16", "10.211.0.0/16")
