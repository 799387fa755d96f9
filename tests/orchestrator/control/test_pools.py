"""Pools that start small and grow, subnets that cannot, ranges that are used up and extended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.control.deploy.ranges import refusal
from orchestrator.control.mirror.records import NetworkRecord
from orchestrator.control.planning import networks
from orchestrator.control.planning.networks import Rest, rested
from orchestrator.errors import Invalid
from orchestrator.keys.identity import ClusterRecord, decode, encode
from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.node import Node, NodeFacts
from specs.states import NodeStatus
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


@pytest.mark.parametrize(
    ("resting", "now", "early", "free", "due"),
    [
        # Where there is room everything rests a minute, and is let go by every ready node.
        ([Rest("a", 0.0)], 59.9, 0, "", 60.0),
        ([Rest("a", 0.0)], 60.0, 0, "a", None),
        ([Rest("a", 0.0, let_go=False)], 99.0, 0, "", None),
        # Where few are left the oldest go first, as many as are missing, and none before names
        # that lead to it are forgotten.
        ([Rest("a", 0.0)], 4.9, 1, "", 5.0),
        ([Rest("b", 2.0), Rest("a", 0.0), Rest("c", 4.0)], 9.0, 2, "ab", 64.0),
        ([Rest("b", 2.0), Rest("a", 0.0), Rest("c", 4.0)], 6.0, 3, "a", 7.0),
        ([Rest("b", 2.0), Rest("a", 0.0), Rest("c", 4.0)], 9.0, 9, "abc", None),
        # One that a node has not let go stays, however few there are; another goes for it.
        ([Rest("a", 0.0, let_go=False), Rest("b", 2.0), Rest("c", 4.0)], 9.5, 1, "b", 64.0),
        # What a service asks for by number waits for the nodes only, and is nobody else's.
        ([Rest("a", 0.0, fixed=True), Rest("b", 0.0)], 1.0, 0, "a", 60.0),
        ([Rest("a", 0.0, fixed=True), Rest("b", 0.0)], 5.0, 1, "ab", None),
        ([Rest("a", 0.0, fixed=True, let_go=False)], 99.0, 1, "", None),
        ([], 0.0, 3, "", None),
    ],
)
def test_how_long_an_address_rests(resting, now, early, free, due):
    assert rested(resting, now, early=early) == (set(free), due)


async def test_in_a_small_subnet_only_what_is_missing_rests_shorter():
    async with Rig(nodes=2) as rig:
        text = project(web=replicas(4))
        text["networks"]["default"]["ipam"] = {"config": [{"subnet": "10.99.0.0/28"}]}
        await rig.up(text)
        await rig.deployed()
        await rig.control.scale("app", {"web": 9})
        await rig.until(lambda: len(rig.ready("web")) == 9)
        (network,) = rig.cluster.networks
        await rig.control.scale("app", {"web": 2})
        # 13 can be used, 3 are: a quarter of them, and one, should be free.
        await rig.until(lambda: len(rig.cluster.resting[network]) == 7)
        await rig.until(lambda: len(rig.cluster.resting[network]) == 6, within=20)
        await asyncio.sleep(30)
        assert len(rig.cluster.resting[network]) == 6, "there are enough: they rest to the end"
        await rig.until(lambda: not rig.cluster.resting[network], within=60)


async def test_a_silent_node_lets_everything_rest_to_the_end():
    async with Rig(nodes=2) as rig:
        for number in range(2):
            text = project(web=replicas(4, image=f"web:{number}"))
            text["networks"]["default"]["ipam"] = {"config": [{"subnet": "10.99.0.0/28"}]}
            await rig.up(text)
            await rig.deployed()
        (network,) = rig.cluster.networks
        assert len(rig.cluster.resting[network]) == 4
        pass_ = rig.control._new_pass()
        nodes = set(rig.nodes)
        assert networks._missing(pass_, network, nodes) == 0
        held = pass_.addresses.held(network)
        held |= {int(IPv4Address(f"10.99.0.{n}")) for n in range(11, 14)}
        assert networks._missing(pass_, network, nodes) == 3
        heard = rig.cluster.conditions["n2"]
        rig.cluster.conditions["n2"] = heard.model_copy(update={"status": NodeStatus.UNKNOWN})
        assert networks._missing(pass_, network, nodes) == 0, "it may still send to them"
        rig.cluster.conditions["n2"] = heard.model_copy(update={"status": NodeStatus.DOWN})
        assert networks._missing(pass_, network, nodes) == 3, "nobody waits for it"
        rig.cluster.conditions["n2"] = heard


async def test_a_range_that_is_used_up_says_what_helps_and_that_helps():
    async with Rig(nodes=2) as rig:
        await set_ranges(rig, ClusterRecord(id="rig", pool="10.210.0.0/19"))
        # The nodes' part is half of it; what is left is taken but for one small pool.
        taken = [
            NetworkRecord(id=f"x{n}", name=f"x{n}", stack="", key="x", pool=f"10.210.16.{n}/26")
            for n in (64, 128, 192)
        ]
        rest = [("17", 24), ("18", 23), ("20", 22), ("24", 21)]
        taken += [
            NetworkRecord(id=f"y{n}", name=f"y{n}", stack="", key="y", pool=f"10.210.{n}.0/{bits}")
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
