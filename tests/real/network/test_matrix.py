"""Every way to a task, from every side, and whose address the task sees."""

import re

import pytest

from tests.real.network.conftest import NODES, STRANGER
from tests.real.network.hosts import ask
from tests.real.network.states import vip

pytestmark = pytest.mark.real

TASKS = ("one-n1", "two-n1", "one-n2", "two-n2")
both = pytest.mark.parametrize("protocol", ["tcp", "udp"])
each = pytest.mark.parametrize("task", TASKS)


@both
@each
@pytest.mark.parametrize("client", ["one-n1", "two-n1"])
def test_direct(cluster, client, task, protocol):
    answer = ask(cluster.netns(client), cluster.address(task), protocol=protocol)

    # A container that asks itself does so inside its own namespace.
    assert answer == (task, cluster.address(client))


@both
@each
@pytest.mark.parametrize("client", ["one-n1", "two-n1"])
def test_vip_keeps_the_clients_address(cluster, client, task, protocol):
    front, _ = cluster.front[task]

    answer = ask(cluster.netns(client), front, protocol=protocol)

    # Where a task is its own client the VIP stands in: else the answer would not come back through
    # the translation.
    assert answer == (task, front if client == task else cluster.address(client))


@both
@each
@pytest.mark.parametrize("node", NODES)
def test_published_port_from_outside_keeps_the_clients_address(cluster, node, task, protocol):
    _, port = cluster.front[task]

    answer = ask(cluster.stranger.ns, NODES[node], port, protocol=protocol)

    assert answer == (task, STRANGER)


@both
@each
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("to", ["127.0.0.1", "own", "other"])
def test_published_port_from_a_node(cluster, node, to, task, protocol):
    _, port = cluster.front[task]
    ingress = node if to != "other" else {"n1": "n2", "n2": "n3", "n3": "n1"}[node]
    address = to if to == "127.0.0.1" else NODES[ingress]

    answer = ask(cluster.hosts[node].ns, address, port, protocol=protocol)

    assert answer == (task, cluster.overlay_of(ingress))


@both
@each
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("client", ["one-n1", "two-n1", "apart-n1"])
def test_published_port_from_a_container(cluster, node, client, task, protocol):
    _, port = cluster.front[task]

    answer = ask(cluster.netns(client), NODES[node], port, protocol=protocol)

    assert answer == (task, cluster.overlay_of(node))


@both
def test_second_network_works_across_nodes(cluster, protocol):
    apart, two = cluster.netns("apart-n1"), cluster.netns("two-n1")

    assert ask(apart, cluster.address("two-n2", 1), protocol=protocol) == (
        "two-n2",
        cluster.address("apart-n1"),
    )
    assert ask(two, cluster.address("apart-n2"), protocol=protocol) == (
        "apart-n2",
        cluster.address("two-n1", 1),
    )


@both
def test_a_node_reaches_tasks_everywhere(cluster, protocol):
    for task in TASKS:
        answer = ask(cluster.hosts["n1"].ns, cluster.address(task), protocol=protocol)
        assert answer == (task, cluster.overlay_of("n1"))


@both
def test_a_service_spreads_over_its_tasks(cluster, protocol):
    front = vip("net-a", 30)
    cluster.service("all", "net-a", list(TASKS), vip=front)
    cluster.push()
    try:
        answers = [ask(cluster.netns("one-n1"), front, protocol=protocol)[0] for _ in range(8)]
    finally:
        del cluster.services["shop/all/net-a"]
        cluster.push()

    assert sorted(answers) == sorted(TASKS * 2)


def test_applying_again_changes_nothing(cluster):
    for name, host in cluster.hosts.items():
        before = [
            host.sh(*command.split())
            for command in (
                "nft -a list ruleset",
                "ip -d link",
                "ip route show table all",
                "ip rule",
                "bridge fdb",
            )
        ]
        host.call("apply", state=cluster.state(name))
        after = [
            host.sh(*command.split())
            for command in (
                "nft -a list ruleset",
                "ip -d link",
                "ip route show table all",
                "ip rule",
                "bridge fdb",
            )
        ]
        assert _settled(after) == _settled(before)


def _settled(texts):
    """What stays as it is: no counters, nor the host's own IPv6 address, which the kernel tries
    for a second or two before it has a route."""
    lines = (re.sub(r"packets \d+ bytes \d+", "", text).splitlines() for text in texts)
    return [[line for line in each if not line.startswith("local fe80:")] for each in lines]
