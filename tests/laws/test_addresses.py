"""Laws of addresses: never given twice, whatever comes and goes."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.records import NETWORKS, RESTING, VIP, VIPS, NetworkRecord
from orchestrator.control.planning.addresses import Addresses, cut_pool, empty_leases, usable
from orchestrator.keys.identity import ClusterRecord
from orchestrator.store.memory import MemoryStore
from specs.kit.clock import ManualClock
from specs.states import TaskState
from specs.task import Task, TaskStatus


@settings(max_examples=60)
@given(
    st.sampled_from(["10.210.0.0/16", "10.0.0.0/14", "192.168.0.0/20", "192.168.4.0/22"]),
    st.integers(1, 120),
)
def test_pools_never_overlap_and_leave_the_nodes_their_own(whole, count):
    pools: list[str] = []
    for _ in range(count):
        pool = cut_pool([whole], pools)
        if pool is None:
            break
        assert IPv4Network(pool).subnet_of(IPv4Network(whole)), "law: pools are in the range"
        assert not any(IPv4Network(pool).overlaps(IPv4Network(p)) for p in pools), (
            "law: pools do not overlap"
        )
        pools.append(pool)
    nodes = next(IPv4Network(whole).subnets(new_prefix=20)) if whole[-2:] != "22" else None
    if nodes is not None and whole != "192.168.0.0/20":
        assert not any(IPv4Network(p).overlaps(nodes) for p in pools), (
            "law: the first /20 is the nodes' own"
        )


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["10.210.0.0/16", "10.64.0.0/18", "10.211.0.0/20", "10.3.0.0/24"]),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    st.lists(st.integers(0, 6), min_size=1, max_size=60),
)
def test_growing_pools_stay_apart_in_all_ranges_and_take_what_is_left(ranges, haves):
    pools: list[str] = []
    for have in haves:
        pool = cut_pool(ranges, pools, have=have)
        if pool is None:
            # Used up for good: a network that asks for the smallest one finds nothing either.
            assert cut_pool(ranges, pools) is None
            continue
        net = IPv4Network(pool)
        assert any(net.subnet_of(IPv4Network(one)) for one in ranges)
        assert not any(net.overlaps(IPv4Network(other)) for other in pools)
        pools.append(pool)


def test_a_thousand_networks_fit_by_default_and_the_next_ones_into_another_range():
    pools: list[str] = []
    while (pool := cut_pool(["10.210.0.0/16"], pools)) is not None:
        pools.append(pool)
    assert len(pools) == 960, "two hundred stacks of four networks each, and more"
    assert cut_pool(["10.210.0.0/16", "10.211.0.0/16"], pools) == "10.211.0.0/26"


def at_once(coroutine):
    """Run a coroutine that never waits, as those of the memory store: no loop is needed."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


class Giving(RuleBasedStateMachine):
    """Tasks, services and nodes come and go on one network."""

    @initialize(
        pool=st.sampled_from(["10.210.16.0/20", "10.210.16.0/26", "10.9.0.0/24", "10.9.0.0/28"]),
        more=st.sampled_from([(), ("10.211.0.0/24",)]),
        narrow=st.booleans(),
    )
    def start(self, pool, more, narrow):
        self.store = MemoryStore()
        self.cluster = at_once(Cluster.open(self.store, ManualClock()))
        # A range with room for two small pools, or a usual one.
        whole = "10.210.16.0/25" if narrow else "10.210.0.0/16"
        self.cluster.record = ClusterRecord(pool=whole, more=more)
        subnets = (pool,) if pool.startswith("10.9.") else ()
        self.network = NetworkRecord(
            id="n", name="net", stack="app", key="net", pool=pool, subnets=subnets
        )
        self.number = 0
        self.most = 0
        self.blocks_held = {}
        self.write(lambda draft: draft.put(NETWORKS, self.network))

    def write(self, change):
        draft = Draft(self.cluster)
        change(draft)
        assert at_once(draft.commit(self.store))

    @rule(
        nodes=st.lists(st.sampled_from(["n1", "n2", "n3"]), min_size=1, max_size=40),
        fixed=st.sampled_from([None, 5, 70, 71]),
    )
    def tasks_come(self, nodes, fixed):
        base = int(IPv4Network(self.network.pool).network_address)
        asked = str(IPv4Address(base + fixed)) if fixed is not None else None

        def change(draft):
            addresses = Addresses(draft)
            for node in nodes:
                given = addresses.for_task(self.network, node, asked if node == nodes[0] else None)
                if given.refused:
                    assert "network net" in given.refused
                    self.no_room(given.refused, fixed=asked if node == nodes[0] else None)
                    continue
                self.number += 1
                draft.put_task(
                    Task(
                        id=f"t{self.number}",
                        stack="app",
                        service="web",
                        slot=self.number,
                        name=f"app-web-{self.number}",
                        release=1,
                        spec_hash="h",
                        node=node,
                        addresses={"n": given.address},
                        status=TaskStatus(state=TaskState.ASSIGNED),
                    )
                )

        self.write(change)

    def no_room(self, refused, *, fixed):
        """A refusal names the way out."""
        if fixed is not None:
            return
        way = "larger subnet" if self.network.subnets else "corral controller extend"
        assert way in refused, "law: exhaustion names the way out"

    @rule(services=st.lists(st.sampled_from([f"s{i}" for i in range(90)]), max_size=30))
    def services_come(self, services):
        def change(draft):
            addresses = Addresses(draft)
            for service in services:
                first = addresses.for_service(self.network, "app", service)
                assert addresses.for_service(self.network, "app", service) == first or (
                    first.refused
                ), "law: a service keeps its VIP"

        self.write(change)

    @precondition(lambda self: self.cluster.tasks)
    @rule(data=st.data())
    def tasks_go(self, data):
        ids = sorted(self.cluster.tasks)
        gone = data.draw(st.sets(st.sampled_from(ids), max_size=50))
        self.write(lambda draft: [draft.delete_task(self.cluster.tasks[t]) for t in gone])

    @rule()
    def rest_is_over(self):
        resting = list(self.cluster.resting["n"].values())
        self.write(lambda draft: [draft.delete(RESTING, r) for r in resting])

    @rule()
    def services_go(self):
        vips = list(self.cluster.vips["n"].values())[:40]
        self.write(lambda draft: [draft.delete(VIP, v) for v in vips])

    @rule()
    def leases_go_back(self):
        self.write(lambda draft: empty_leases(draft, self.blocks_held))

    @invariant()
    def nothing_is_given_twice(self):
        if not hasattr(self, "cluster"):
            return
        tasks = [t.addresses["n"] for t in self.cluster.tasks.values()]
        vips = [v.address for v in self.cluster.vips["n"].values()]
        resting = list(self.cluster.resting["n"])
        everything = tasks + vips + resting
        assert len(everything) == len(set(everything)), "law: an address has one holder"
        record = self.cluster.networks["n"]
        pools = [IPv4Network(pool) for pool in record.pools]
        assert all(any(IPv4Address(a) in p for p in pools) for a in everything), (
            "law: addresses are in the pools"
        )
        assert not any(a.overlaps(b) for a, b in itertools.combinations(pools, 2)), (
            "law: pools of a network do not overlap"
        )
        self.most = max(self.most, len(everything))
        if self.network.subnets:
            assert not record.grown, "law: a network whose file names a subnet never leaves it"
        elif record.grown:
            before = sum(usable(pool) for pool in record.pools[:-1])
            # Three addresses may be kept for services that ask for them by number.
            assert self.most + 3 >= before, "law: a network grows only when it is full"

    @invariant()
    def every_address_is_routed_to_its_node(self):
        if not hasattr(self, "cluster"):
            return
        leases = [(IPv4Network(c), le.node) for c, le in self.cluster.leases["n"].items()]
        for task in self.cluster.tasks.values():
            address = IPv4Address(task.addresses["n"])
            best = max((le for le in leases if address in le[0]), key=lambda le: le[0].prefixlen)
            assert best[1] == task.node, "law: the longest lease of an address is its node's"
        blocks = [net for net, node in leases if net.prefixlen < 32]
        assert len(blocks) == len({str(b) for b in blocks})
        for vip in self.cluster.vips["n"].values():
            best = max(
                (le for le in leases if IPv4Address(vip.address) in le[0]),
                key=lambda le: le[0].prefixlen,
            )
            assert best[1] == VIPS, "law: VIPs come from blocks of their own"


TestGiving = Giving.TestCase
TestGiving.settings = settings(max_examples=30, stateful_step_count=25)
