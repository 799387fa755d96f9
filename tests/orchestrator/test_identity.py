"""The cluster's id, range and epoch."""

from __future__ import annotations

import random

import pytest

from orchestrator.keys import identity
from orchestrator.store.base import Put, StoreUnavailable
from orchestrator.store.memory import MemoryStore
from specs import subnets
from specs.kit.clock import ManualClock


async def load(store, routes=()):
    return await identity.load(store, clock=ManualClock(), rng=random.Random(1), routes=routes)


async def test_a_cluster_is_made_once():
    store = MemoryStore()
    first = await load(store)
    assert (first.epoch, first.pool) == (0, "10.210.0.0/16")
    assert await load(store, routes=["10.210.0.0/24"]) == first, "a range never moves"


async def test_epochs_rise_above_everything_seen():
    store = MemoryStore()
    cluster = await load(store)
    cluster = await identity.take_epoch(store, cluster, [])
    assert cluster.epoch == 1
    cluster = await identity.take_epoch(store, cluster, [0, 17, 3])
    assert cluster.epoch == 18
    assert (await identity.take_epoch(store, cluster, [2])).epoch == 19
    assert (await load(store)).epoch == 19


async def test_a_store_that_was_exchanged_is_noticed():
    store = MemoryStore()
    cluster = await load(store)
    other = identity.ClusterRecord("other", 0, "10.0.0.0/16", 0.0)
    await store.txn(writes=(Put("/cluster", identity.encode(other)),))
    with pytest.raises(StoreUnavailable, match="another cluster"):
        await identity.take_epoch(store, cluster, [])


@pytest.mark.parametrize(
    ("routes", "pool"),
    [
        ([], "10.210.0.0/16"),
        (["0.0.0.0/0", "192.168.1.0/24"], "10.210.0.0/16"),
        (["10.210.7.0/24"], "10.211.0.0/16"),
        (["10.210.0.0/15"], "10.212.0.0/16"),
        (["10.208.0.0/12"], "10.224.0.0/16"),
        (["10.0.0.0/8"], "10.210.0.0/16"),  # nowhere to go; node add will say it
    ],
)
def test_the_range_avoids_the_machines_networks(routes, pool):
    assert identity.choose_pool(routes) == pool


def test_the_kernels_route_table_is_read():
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    found = [str(route.network) for route in subnets.routes(table)]
    assert found == ["0.0.0.0/0", "192.168.2.0/24"]


def test_nodes_have_the_first_part_of_the_range():
    assert str(identity.node_network("10.210.0.0/16")) == "10.210.0.0/20"
    assert str(identity.node_network("10.210.0.0/24")) == "10.210.0.0/24"
