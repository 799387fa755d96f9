"""The container's files, foreign firewalls, stale flows, names: small pure decisions."""

import errno
import json
import socket
from ipaddress import IPv4Address
from types import SimpleNamespace

import pytest

from agent.dns.zone import Zones
from agent.linux.netlink import attr, nest
from agent.network import conntrack, files
from agent.network.conntrack import Stale, flows, stale
from agent.network.endpoints import PerService
from agent.network.foreign import judge
from agent.network.ports import explain
from agent.network.records import service_part as names_of
from agent.network.records import snapshot
from agent.network.rules import PortKey
from tests.agent.network.test_rules import NODES, rules, shop, wanted
from tests.real.network.states import Cluster, vip

NODE = """\
# made by hand
nameserver 192.0.2.53
nameserver 192.0.2.54 # spare
search example.com corp
"""


def task(**spec):
    return Cluster(NODES).task("t", "n1", ["net-a"], number=2, **spec)


def test_a_container_asks_our_resolver_and_searches_where_the_node_does():
    assert files.resolv_conf(task(), NODE) == (
        "nameserver 127.0.0.11\nsearch example.com corp\noptions ndots:0\n"
    )


def test_own_dns_settings_win():
    spec = task(dns=("198.51.100.1",), dns_search=("shop.test",), dns_opt=("ndots:2", "rotate"))
    assert files.resolv_conf(spec, NODE) == (
        "nameserver 127.0.0.11\nsearch shop.test\noptions ndots:2 rotate\n"
    )
    assert "search" not in files.resolv_conf(task(dns_search=(".",)), NODE)


def test_without_a_network_of_ours_servers_are_written_as_they_are():
    assert files.resolv_conf(task(network_mode="host"), NODE) == NODE
    assert files.resolv_conf(task(network_mode="host", dns=("198.51.100.1",)), NODE) == (
        "nameserver 198.51.100.1\nsearch example.com corp\n"
    )


def test_hosts():
    text = files.hosts(
        task(
            hostname="box",
            domainname="test",
            extra_hosts=(("old", "192.0.2.9"), ("node", "host-gateway")),
        ),
        host_gateway="10.77.0.1",
    )

    assert "10.210.16.66\tbox.test box shop-t t\n" in text
    assert text.endswith("192.0.2.9\told\n10.77.0.1\tnode\n")


def test_name_servers_of_a_broken_file():
    assert files.nameservers("nameserver\n;nameserver 1.1.1.1\noptions x\n") == ()
    assert files.nameservers(NODE) == ("192.0.2.53", "192.0.2.54")


def chain(hook, **more):
    return {
        "family": "ip",
        "table": "filter",
        "name": "FORWARD",
        "hook": hook,
        "policy": "drop",
        **more,
    }


@pytest.mark.parametrize(
    ("chains", "overlay", "count"),
    [
        ([chain("forward")], False, 1),
        ([chain("forward", policy="accept")], False, 0),
        ([chain("forward", family="ip6")], False, 0),
        ([chain("forward", table="corral", family="inet")], False, 0),
        ([chain("input", family="inet")], True, 1),
        ([chain("input", family="inet")], False, 0),
        ([{"family": "ip", "table": "filter", "name": "USER"}], True, 0),
    ],
)
def test_foreign_firewalls_that_drop_are_named(chains, overlay, count):
    found = judge(chains, overlay=overlay, opened=False, pool="10.210.0.0/16")

    assert len(found) == count
    assert all("filter" in sentence and "accept" in sentence for sentence in found)


def test_the_advice_is_the_other_tools_own_command():
    def advice(*chains, **more):
        arguments = {"overlay": True, "opened": False, "pool": "10.210.0.0/16", **more}
        return "; ".join(judge(chains, **arguments))

    ufw = {"family": "ip", "table": "filter", "name": "ufw-user-forward"}
    assert "ufw route allow from 10.210.0.0/16" in advice(chain("forward"), ufw)
    assert "ufw allow 4789/udp" in advice(chain("input"), ufw)
    firewalld = chain("forward", family="inet", table="firewalld", policy="accept")
    assert "--add-source=10.210.0.0/16" in advice(firewalld)
    assert not advice(chain("forward"), opened=True)
    assert advice(chain("forward", table="mine"), opened=True)


def test_port_sentences_say_what_to_do():
    key = PortKey("tcp", 80, "192.0.2.1")
    assert "another program" in explain(key, OSError(errno.EADDRINUSE, ""))
    assert "no address 192.0.2.1" in explain(key, OSError(errno.EADDRNOTAVAIL, ""))
    assert "root" in explain(key, OSError(errno.EACCES, ""))


UDP = ({"target": 53, "published": 53, "protocol": "udp"},)


def test_a_backend_that_left_makes_its_flows_stale():
    old = rules(wanted(shop(UDP)))
    cluster = shop(UDP)
    cluster.ready["w1"] = False
    found = stale(old, rules(wanted(cluster)))

    gone = "10.210.16.66"
    assert found == Stale(gone=frozenset({(vip("net-a", 2), gone), (":53", gone)}))
    assert found.covers(vip("net-a", 2), 9, gone)
    assert found.covers("10.77.0.1", 53, gone)
    assert not found.covers("10.77.0.1", 53, "10.210.16.130")
    assert not found.covers(gone, 80, gone)


TCP = ({"target": 80, "published": 8080, "protocol": "tcp"},)


def test_a_backend_that_left_makes_connections_to_it_stale():
    old = rules(wanted(shop(TCP)))
    cluster = shop(TCP)
    cluster.ready["w1"] = False
    found = stale(old, rules(wanted(cluster)))

    gone = "10.210.16.66"
    assert found.gone == {(vip("net-a", 2), gone), (":8080/tcp", gone)}
    assert found.covers("10.77.0.1", 8080, gone, "tcp")
    assert found.covers(vip("net-a", 2), 80, gone, "tcp")
    assert not found.covers("10.77.0.1", 8080, gone, "udp")
    assert not found.covers("10.77.0.1", 8080, "10.210.16.130", "tcp")
    assert not found.covers("10.77.0.1", 8081, gone, "tcp")


def _flow(protocol, status):
    address = [attr(1, IPv4Address("192.0.2.9").packed), attr(2, IPv4Address("10.77.0.1").packed)]
    ends = attr(1, bytes([protocol])) + attr(3, (8080).to_bytes(2, "big"))
    there = nest(1, b"".join(address)) + nest(2, ends)
    back = nest(1, attr(1, IPv4Address("10.210.16.66").packed)) + nest(2, ends)
    return bytes(4) + nest(1, there) + nest(2, back) + attr(3, status.to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("protocol", "status", "forgotten"),
    [
        (socket.IPPROTO_UDP, 0, True),
        (socket.IPPROTO_UDP, 2, True),  # its client keeps it alive
        (socket.IPPROTO_TCP, 0, True),  # the first packet is on its way to nobody
        (socket.IPPROTO_TCP, 8, True),  # confirmed, not answered
        (socket.IPPROTO_TCP, 2, False),  # it was answered: it may finish
        (socket.IPPROTO_TCP, 2 | 4 | 8, False),
        (socket.IPPROTO_ICMP, 0, False),
    ],
)
def test_a_connection_is_forgotten_only_while_nobody_answered(protocol, status, forgotten):
    link = SimpleNamespace(stream=lambda *_: [_flow(protocol, status)])
    found = [(where, port, by, name) for _, where, port, by, name in flows(link)]
    name = "udp" if protocol == socket.IPPROTO_UDP else "tcp"
    assert found == ([("10.77.0.1", 8080, "10.210.16.66", name)] if forgotten else [])


def test_a_first_backend_makes_untranslated_flows_stale():
    dead = shop(UDP)
    dead.services.clear()
    dead.service("web", "net-a", [], vip=vip("net-a", 2), ports=UDP)
    found = stale(rules(wanted(dead)), rules(wanted(shop(UDP))))

    assert found == Stale(fronts=frozenset({vip("net-a", 2)}), ports=frozenset({53}))
    assert found.covers(vip("net-a", 2), 80, vip("net-a", 2))
    assert found.covers("10.77.0.1", 53, "10.77.0.1")
    assert not found.covers("10.77.0.1", 53, "10.210.16.66")


def test_nothing_changed_is_nothing_stale():
    found = rules(wanted(shop(UDP)))

    assert not stale(found, found)
    assert not stale(None, found)


def names(cluster):
    parts, _ = PerService(names_of).update(wanted(cluster))
    return snapshot(wanted(cluster), parts, ["192.0.2.53"])


def test_names_of_a_service():
    cluster = shop()
    cluster.ready["w1"] = False
    found = names(cluster)["services"]["shop/web/net-a"]["names"]

    assert found["web"] == [[vip("net-a", 2)], 5]
    assert found["shop_web"] == found["web"]
    assert found["tasks.web"] == [["10.210.16.130"], 2]
    assert found["shop-w1"] == [["10.210.16.66"], 2]


def test_without_a_vip_the_name_means_the_ready_tasks():
    cluster = shop()
    cluster.service("web", "net-a", ["w1", "w2"])

    assert names(cluster)["services"]["shop/web/net-a"]["names"]["web"] == [
        ["10.210.16.130", "10.210.16.66"],
        2,
    ]


def test_views():
    cluster = shop()
    cluster.task("inner", "n1", ["net-i"], number=3)
    cluster.task("own", "n1", ["net-b"], number=3, dns=("198.51.100.1",))
    cluster.task("bare", "n1", [], number=4, network_mode="none")
    views = names(cluster)["views"]

    assert views["w1"]["networks"] == ["net-a"]
    assert views["w1"]["forward"]
    assert views["w1"]["upstreams"] == ["192.0.2.53"]
    assert not views["inner"]["forward"]
    assert views["own"]["upstreams"] == ["198.51.100.1"]
    assert "bare" not in views


def test_a_link_is_a_name_for_one_task_alone():
    cluster = shop()
    cluster.task("linked", "n1", ["net-a"], number=5, links=(("MySQL", "web"), ("gone", "no")))
    zones = Zones()
    zones.load(json.loads(json.dumps(names(cluster))))
    assert zones.lookup("linked", "mysql") == zones.lookup("linked", "web") is not None
    assert zones.lookup("w1", "mysql") is None
    assert zones.lookup("linked", "gone") is None


@pytest.mark.parametrize(
    ("count", "asked"), [("0\n", False), ("1\n", True), ("12\n", True), (None, True)]
)
def test_flows_are_listed_only_where_there_is_one(tmp_path, monkeypatch, count, asked):
    class Link:
        def __init__(self, *_, **__):
            found.append(True)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def stream(self, *_):
            return iter(())

        def run(self, messages):
            assert messages == []

    found = []
    counted = tmp_path / "nf_conntrack_count"
    if count is not None:
        counted.write_text(count)
    monkeypatch.setattr(conntrack, "COUNT", counted)
    monkeypatch.setattr(conntrack, "NetlinkSocket", Link)
    assert conntrack.delete(Stale(fronts=frozenset({"10.210.0.9"}))) == 0
    assert bool(found) is asked
