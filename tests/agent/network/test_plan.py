"""Links, routes and rules of the wanted state."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network import messages, names
from agent.network.objects import LinkAddress, Neighbour, Route, Rule
from agent.network.overlay import ingress_numbers, overlay_mtu, smallest_mtu, unfit
from agent.network.plan import container_routes, host_plan, task_plan
from specs.wire import Peer
from tests.agent.network.test_rules import NODES, wanted
from tests.real.network.states import Cluster


def test_a_container_of_two_networks_has_a_route_for_each_and_one_default():
    cluster = Cluster(NODES)
    task = cluster.task("t", "n1", ["net-a", "net-b"], number=2)
    plan = task_plan(task, cluster.networks, mtu=1450)

    assert [(link.name, link.address, link.mtu) for link in plan.links] == [
        ("eth0", "10.210.16.66", 1450),
        ("eth1", "10.210.32.66", 1450),
    ]
    assert container_routes(plan) == [
        Route("10.210.16.0/20", "eth0", names.GATEWAY, "10.210.16.66"),
        Route("10.210.32.0/20", "eth1", names.GATEWAY, "10.210.32.66"),
        Route("0.0.0.0/0", "eth0", names.GATEWAY, "10.210.16.66"),
    ]


def test_an_internal_network_gives_no_default_route():
    cluster = Cluster(NODES)
    plan = task_plan(cluster.task("t", "n1", ["net-i"], number=2), cluster.networks, mtu=1450)

    assert [route.destination for route in container_routes(plan)] == ["10.210.48.0/20"]


def test_a_networks_own_mtu_never_exceeds_what_the_overlay_carries():
    cluster = Cluster(NODES)
    cluster.networks["net-a"] = cluster.networks["net-a"].model_copy(update={"mtu": 9000})
    cluster.networks["net-b"] = cluster.networks["net-b"].model_copy(update={"mtu": 1280})
    task = cluster.task("t", "n1", ["net-a", "net-b"], number=2)

    assert [link.mtu for link in task_plan(task, cluster.networks, mtu=1450).links] == [1450, 1280]


def test_mtu_leaves_room_for_the_outer_headers():
    assert overlay_mtu("10.77.0.1", 1500) == 1450
    assert overlay_mtu("fd00::1", 1500) == 1430
    assert overlay_mtu("", 1500) == 1450


@pytest.mark.parametrize(
    ("underlay", "mtu", "present", "says"),
    [
        ("10.77.0.1", 1450, True, ""),
        ("10.77.0.1", 1230, True, ""),  # no IPv6 below 1280, and none is needed
        ("10.77.0.1", 576, True, ""),
        ("10.77.0.1", 575, True, "with 10.77.0.1 is 625; the overlay needs 626"),
        ("fd00::1", 575, True, "with fd00::1 is 645; the overlay needs 646"),
        ("10.77.0.1", 1450, False, "corral node set n1 --underlay-addr"),
        ("", 400, False, ""),  # a node alone has no overlay to fail
    ],
)
def test_a_node_that_cannot_take_part_says_why(underlay, mtu, present, says):
    cluster = Cluster({"n1": underlay, "n2": "10.77.0.2"}, overlay=bool(underlay))
    said = unfit(wanted(cluster), mtu=mtu, present=present)
    assert says in said
    assert bool(said) == bool(says)


@pytest.mark.parametrize(
    ("own", "others", "least"),
    [
        (1500, [], 1500),
        (1500, [0, 0], 1500),  # not told yet
        (9000, [1500, 9000], 1500),
        (1500, [9000], 1500),
        (1500, [1300, 1400], 1300),
        (1500, [600, 1400], 1400),  # that one cannot take part, and says so itself
        (600, [1500], 600),
    ],
)
def test_the_smallest_mtu_of_the_members_counts(own, others, least):
    peers = [Peer(node=f"n{m}", name="", underlay="u", overlay="o", mtu=m) for m in others]
    assert smallest_mtu(own, peers) == least


def test_a_network_that_grew_has_a_route_for_each_pool():
    cluster = Cluster(NODES)
    grown = cluster.networks["net-a"].model_copy(update={"more_pools": ("10.210.99.0/24",)})
    cluster.networks["net-a"] = grown
    task = cluster.task("t", "n1", ["net-a"], number=2)
    inside = container_routes(task_plan(task, cluster.networks, mtu=1450))
    assert [(r.destination, r.source) for r in inside] == [
        ("10.210.16.0/20", "10.210.16.66"),
        ("10.210.99.0/24", "10.210.16.66"),
        ("0.0.0.0/0", "10.210.16.66"),
    ]
    assert Route("10.210.99.0/24", blackhole=True) in plan(cluster).routes


def test_every_range_of_the_cluster_ends_here():
    state = wanted(Cluster(NODES))
    me = state.me.model_copy(update={"more_ranges": ("10.211.0.0/16",)})
    found = host_plan(dataclasses.replace(state, me=me), mtu=1450, present=frozenset())
    for whole in ("10.210.0.0/16", "10.211.0.0/16"):
        assert Route(whole, blackhole=True) in found.routes


def plan(cluster, name="n1", present=frozenset()):
    return host_plan(wanted(cluster, name), mtu=1450, present=present)


def test_peers_blocks_go_through_the_overlay_and_the_rest_into_the_void():
    found = plan(Cluster(NODES))

    via = "10.210.0.2"
    assert Route("10.210.16.128/26", names.VXLAN, via, "10.210.0.1") in found.routes
    assert Route("10.210.16.0/20", blackhole=True) in found.routes
    assert Route("10.210.0.2/32", names.VXLAN, source="10.210.0.1") in found.routes
    assert Neighbour(names.VXLAN, via, "02:63:0a:d2:00:02") in found.neighbours
    assert Neighbour(names.VXLAN, "10.77.0.2", "02:63:0a:d2:00:02", fdb=True) in found.neighbours
    assert found.addresses == {LinkAddress(names.VXLAN, "10.210.0.1/32")}
    assert not any(route.destination == "10.210.16.64/26" for route in found.routes)


def test_encrypted_networks_never_use_the_open_overlay():
    cluster = Cluster(NODES)
    cluster.networks["net-a"] = cluster.networks["net-a"].model_copy(update={"encrypted": True})
    routes = plan(cluster).routes

    assert Route("10.210.16.0/20", blackhole=True) in routes
    assert not any(r.destination.startswith("10.210.16.") and r.dev for r in routes)
    assert any(r.destination.startswith("10.210.32.") and r.dev for r in routes)


def test_unmarked_packets_skip_the_rules_of_the_peers():
    rules = sorted(plan(Cluster(NODES)).rules, key=lambda rule: rule.priority)

    assert rules[0] == Rule(names.RULE_SKIP, 0, names.INGRESS_MASK, goto=names.RULE_END)
    assert rules[-1] == Rule(names.RULE_END)
    assert [(rule.mark >> names.INGRESS_SHIFT, rule.table) for rule in rules[1:-1]] == [
        (2, 21002),
        (3, 21003),
    ]
    assert all(rules[0].priority < rule.priority < rules[-1].priority for rule in rules[1:-1])


def test_a_node_alone_has_no_overlay():
    found = plan(Cluster({"n1": "10.77.0.1"}, overlay=False))

    assert found.vxlan is None
    assert not found.rules
    assert {route.blackhole for route in found.routes} == {True}
    assert Route("10.210.0.0/16", blackhole=True) in found.routes


def test_only_links_that_exist_get_routes():
    cluster = Cluster(NODES)
    cluster.task("t", "n1", ["net-a"], number=2)
    link = names.veth("t", "net-a")

    assert Route("10.210.16.66/32", link, source="10.210.0.1") not in plan(cluster).routes
    with_link = plan(cluster, present=frozenset({link}))
    assert Route("10.210.16.66/32", link, source="10.210.0.1") in with_link.routes
    assert Neighbour(link, "10.210.16.66", "02:72:0a:d2:10:42") in with_link.neighbours


def test_a_link_keeps_its_route_when_the_node_is_not_told_of_the_network_any_more():
    cluster = Cluster(NODES)
    cluster.task("t", "n1", ["net-a"], number=2)
    link = names.veth("t", "net-a")
    del cluster.networks["net-a"]

    found = plan(cluster, present=frozenset({link}))
    assert Route("10.210.16.66/32", link, source="10.210.0.1") in found.routes
    assert Neighbour(link, "10.210.16.66", "02:72:0a:d2:10:42") in found.neighbours


OVERLAYS = st.lists(st.ip_addresses(v=4, network="10.210.0.0/16"), unique=True, max_size=60)


@given(OVERLAYS)
def test_ingress_numbers_are_distinct_and_in_range(addresses):
    peers = [Peer(node=str(a), name="", underlay="10.0.0.1", overlay=str(a)) for a in addresses]
    numbers = ingress_numbers(peers)

    assert len(set(numbers.values())) == len(peers)
    assert all(0 < number <= names.MAX_INGRESS for number in numbers.values())


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_link_names_fit_the_kernel_and_are_found_by_their_task(task, network):
    name = names.veth(task, network)

    assert len(name.encode()) == 15
    assert name.startswith(names.task_prefix(task))
    assert name != names.VXLAN


# --- what is sent reads back as what was wanted ---

IP = st.ip_addresses(v=4).map(str)
INDEX = {7: "cr-e7"}


@given(st.ip_addresses(v=4), st.integers(0, 32), IP, IP, st.sampled_from([254, 21001]))
def test_routes_survive_the_wire(address, bits, via, source, table):
    from ipaddress import IPv4Network

    wanted_route = Route(
        str(IPv4Network((address, bits), strict=False)), "cr-e7", via, source, table
    )
    message = messages.route(wanted_route, 7, protocol=98)

    assert messages.parse_route(message.body, INDEX) == (98, wanted_route)


def test_blackholes_survive_the_wire():
    hole = Route("10.210.16.0/20", blackhole=True)

    assert messages.parse_route(messages.route(hole, 0, protocol=98).body, INDEX) == (98, hole)


@given(IP, st.booleans())
def test_neighbours_survive_the_wire(address, fdb):
    entry = Neighbour("cr-e7", address, "02:63:0a:d2:00:02", fdb=fdb)

    assert messages.parse_neighbour(messages.neighbour(entry, 7).body, INDEX) == entry


def test_rules_survive_the_wire():
    for rule in (Rule(11002, 0x400000, 0x7FE00000, table=21002), Rule(1, 0, 0xFF, goto=9), Rule(9)):
        assert messages.parse_rule(messages.rule(rule, protocol=98).body) == (98, rule)
