"""The ruleset: what services, ports and readiness put into it, and that changes add up."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.network.endpoints import PerService
from agent.network.rules import PortKey, change, full, port_targets, ruleset, service_part
from agent.network.wanted import Wanted
from specs.stack import Port
from specs.wire import Assignment, NodeSelf, Peer, ServiceEndpoints
from tests.real.network.states import Cluster, vip

NODES = {"n1": "10.77.0.1", "n2": "10.77.0.2", "n3": "10.77.0.3"}


def wanted(cluster, name="n1"):
    raw = cluster.state(name)
    mine = {key: a for key, (node, a) in cluster.tasks.items() if node == name}
    peers = {key: Peer.model_validate(value) for key, value in raw["peers"].items()}
    me = NodeSelf.model_validate(raw["me"])
    return Wanted(me, cluster.networks, dict(cluster.services), peers, mine, raw["ready"])


def rules(state, *, withheld=frozenset()):
    parts, _ = PerService(service_part).update(state)
    return ruleset(state, parts, port_targets(state, parts), withheld=withheld)


def shop(ports=({"target": 80, "published": 8080},)):
    cluster = Cluster(NODES)
    cluster.task("w1", "n1", ["net-a"], number=2)
    cluster.task("w2", "n2", ["net-a", "net-b"], number=2)
    cluster.service("web", "net-a", ["w1", "w2"], vip=vip("net-a", 2), ports=ports)
    return cluster


def backends(found, verdict):
    (rule,) = found.chains[verdict.removeprefix("goto ")]
    return set(re.findall(r"10\.\d+\.\d+\.\d+", rule))


def test_a_vip_leads_to_the_ready_endpoints_of_all_nodes():
    cluster = shop()
    found = rules(wanted(cluster))

    assert backends(found, found.sets["vips"][vip("net-a", 2)]) == {"10.210.16.66", "10.210.16.130"}
    assert found.sets["vip_dead"] == {}


def test_a_canarys_share_holds_for_vip_and_port_alike():
    cluster = shop()
    (key,) = [key for key in cluster.services if "/web/" in key]
    service = cluster.services[key]
    some = tuple(
        one.model_copy(update={"share": 20 if one.task == "w2" else 0}) for one in service.endpoints
    )
    cluster.services[key] = service.model_copy(update={"endpoints": some})
    found = rules(wanted(cluster))
    for element in (found.sets["vips"][vip("net-a", 2)], found.sets["ports"]["tcp . 8080"]):
        (rule,) = found.chains[element.removeprefix("goto ")]
        assert "numgen inc mod 5 map" in rule
        assert len(re.findall(r": 10\.210\.16\.130\b", rule)) == 1
        assert len(re.findall(r": 10\.210\.16\.66\b", rule)) == 4
    assert set(found.fronts[vip("net-a", 2)]) == {"10.210.16.66", "10.210.16.130"}


def test_local_unreadiness_overrides_the_controller():
    cluster = shop()
    cluster.ready["w1"] = False
    found = rules(wanted(cluster))
    assert backends(found, found.sets["vips"][vip("net-a", 2)]) == {"10.210.16.130"}

    # Another node only knows what the controller says.
    elsewhere = rules(wanted(cluster, "n3"))
    assert len(backends(elsewhere, elsewhere.sets["vips"][vip("net-a", 2)])) == 2


def test_a_local_endpoint_without_its_task_gets_nothing():
    cluster = shop()
    state = wanted(cluster)
    found = rules(Wanted(state.me, state.networks, state.services, state.peers, {}, {}))

    assert backends(found, found.sets["vips"][vip("net-a", 2)]) == {"10.210.16.130"}


def test_no_backend_is_refused_not_translated():
    cluster = shop()
    del cluster.services["shop/web/net-a"]
    cluster.service(
        "web", "net-a", [], vip=vip("net-a", 2), ports=[{"target": 80, "published": 80}]
    )
    found = rules(wanted(cluster))

    assert found.sets["vips"] == {}
    assert found.sets["ports"] == {}
    assert set(found.sets["vip_dead"]) == {vip("net-a", 2)}
    assert set(found.sets["port_dead"]) == {"tcp . 80"}


def test_a_withheld_port_is_neither_translated_nor_refused():
    found = rules(wanted(shop()), withheld=frozenset({PortKey("tcp", 8080)}))

    assert "tcp . 8080" not in found.sets["ports"]
    assert "tcp . 8080" not in found.sets["port_dead"]


def test_host_mode_ports_lead_to_this_nodes_task_while_it_is_ready():
    cluster = Cluster(NODES)
    port = Port(target=80, published=8090, mode="host")
    cluster.task("w1", "n1", ["net-b", "net-a"], number=2, host_ports=[port])
    found = rules(wanted(cluster))
    assert backends(found, found.sets["ports"]["tcp . 8090"]) == {"10.210.32.66"}
    assert rules(wanted(cluster, "n2")).sets["ports"] == {}

    cluster.ready["w1"] = False
    assert set(rules(wanted(cluster)).sets["port_dead"]) == {"tcp . 8090"}


def test_the_pools_of_a_grown_network_are_one_network():
    cluster = shop()
    grown = cluster.networks["net-a"].model_copy(update={"more_pools": ("10.210.99.0/24",)})
    cluster.networks["net-a"] = grown
    found = rules(wanted(cluster))
    one, other = "10.210.16.0/20", "10.210.99.0/24"
    assert {f"{a} . {b}" for a in (one, other) for b in (one, other)} <= set(found.sets["same_net"])
    assert f"{other} . 10.210.32.0/20" not in found.sets["same_net"]
    assert other in found.sets["egress"]
    assert other in found.sets["pools"]
    assert other in found.sets["insiders"]


def test_a_host_port_leads_to_the_ready_one_while_a_task_is_replaced():
    port = Port(target=80, published=8090, mode="host")
    for ready, backend in (("old", "10.210.32.66"), ("new", "10.210.32.67")):
        cluster = Cluster(NODES)
        cluster.task("old", "n1", ["net-b"], number=2, host_ports=[port])
        cluster.task("new", "n1", ["net-b"], number=3, host_ports=[port])
        cluster.ready.update({"old": False, "new": False, ready: True})
        found = rules(wanted(cluster))
        assert backends(found, found.sets["ports"]["tcp . 8090"]) == {backend}
        assert not found.sets["port_dead"]


def test_a_stopping_tasks_packets_pass_and_new_connections_are_refused():
    """Nothing of a connection that is there depends on the service having backends."""
    cluster = shop()
    serving = rules(wanted(cluster))
    del cluster.services["shop/web/net-a"]
    ports = [{"target": 80, "published": 8080}]
    cluster.service("web", "net-a", [], vip=vip("net-a", 2), ports=ports)
    cluster.ready["w1"] = False
    found = rules(wanted(cluster))

    assert found.sets["owned"] == serving.sets["owned"], "its own address is still its own"
    assert found.base == serving.base, "nothing is reloaded: connections are known by their marks"
    assert set(found.sets["vip_dead"]) == {vip("net-a", 2)}
    assert set(found.sets["port_dead"]) == {"tcp . 8080"}
    refusing = re.findall(r"(.*)jump refusals", found.base)
    assert len(refusing) == 2
    assert all("ct state new" in rule for rule in refusing)


def test_internal_networks_are_not_egress():
    found = rules(wanted(shop()))

    assert set(found.sets["internal"]) == {"10.210.48.0/20"}
    assert set(found.sets["egress"]) == {"10.210.16.0/20", "10.210.32.0/20"}


def test_who_names_the_machine_reaches_it_and_nobody_else():
    cluster = Cluster(NODES)
    cluster.task("asks", "n1", ["net-a"], number=1, extra_hosts=(("node", "host-gateway"),))
    cluster.task("other", "n1", ["net-a"], number=2, extra_hosts=(("node", "192.0.2.1"),))
    found = rules(wanted(cluster)).sets["host_clients"]
    assert set(found) == {p.address for p in wanted(cluster).assignments["asks"].networks}


def test_every_address_of_a_task_is_good_on_every_link_of_it_and_on_no_other():
    cluster = Cluster(NODES)
    cluster.task("a", "n1", ["net-a", "net-b"], number=2)
    cluster.task("b", "n1", ["net-a"], number=3)
    owned = rules(wanted(cluster)).sets["owned"]
    pairs = [tuple(element.split(" . ")) for element in owned]

    assert len(pairs) == 5
    assert len({link for link, _ in pairs}) == 3
    by_link = {}
    for link, address in pairs:
        by_link.setdefault(link, set()).add(address)
    assert sorted(map(len, by_link.values())) == [1, 2, 2]


def test_without_an_overlay_others_vxlan_is_not_touched():
    assert "4789" not in rules(wanted(Cluster({"n1": "10.77.0.1"}, overlay=False), "n1")).base
    assert "4789" in rules(wanted(shop())).base


def test_the_same_state_gives_the_same_text():
    assert full(rules(wanted(shop()))) == full(rules(wanted(shop())))


# --- changes ---


class Kernel:
    """As much of nftables as a change needs: refuses what the kernel would refuse."""

    def __init__(self, found):
        self.sets = {name: dict(elements) for name, elements in found.sets.items()}
        self.chains = {name: list(lines) for name, lines in found.chains.items()}

    def run(self, script):
        for line in script.splitlines():
            self.command(line)

    def command(self, line):
        verb, what, family, table, name, *rest = line.split(" ", 5)
        assert (family, table) == ("inet", "corral")
        text = rest[0] if rest else ""
        match verb, what:
            case "add", "chain":
                self.chains.setdefault(name, [])
            case "flush", "chain":
                self.chains[name].clear()
            case "add", "rule":
                self.chains[name].append(text)
            case "delete", "chain":
                used = {data for elements in self.sets.values() for data in elements.values()}
                assert f"goto {name}" not in used, "a chain that is led to cannot go"
                del self.chains[name]
            case "flush", ("set" | "map"):
                self.sets[name].clear()
            case (("add" | "delete"), "element"):
                for element in text.strip("{} ").split(", "):
                    key, _, data = element.partition(" : ")
                    if verb == "delete":
                        del self.sets[name][key]
                    else:
                        if data.startswith("goto "):
                            assert data[5:] in self.chains, "an element must lead somewhere"
                        assert self.sets[name].get(key, data) == data, (
                            "an element exists with other data"
                        )
                        self.sets[name][key] = data
            case _:
                raise AssertionError(line)


@st.composite
def states(draw):
    cluster = Cluster(NODES)
    for number in range(draw(st.integers(0, 4))):
        node = draw(st.sampled_from(["n1", "n2"]))
        task = f"{node}-{number}"
        host_port = Port(target=80, published=9000 + number, mode="host")
        ports = draw(st.sampled_from([(), (host_port,)]))
        cluster.task(
            task,
            node,
            draw(st.sampled_from([["net-a"], ["net-a", "net-b"]])),
            number=number,
            host_ports=ports,
        )
        cluster.ready[task] = draw(st.booleans())
    for number in range(draw(st.integers(0, 3))):
        tasks = (
            draw(st.lists(st.sampled_from(sorted(cluster.tasks)), unique=True))
            if cluster.tasks
            else []
        )
        port = {
            "target": draw(st.sampled_from([80, 81])),
            "published": 8000 + draw(st.integers(0, 3)),
            "protocol": draw(st.sampled_from(["tcp", "udp"])),
            "host_ip": draw(st.sampled_from([None, "10.77.0.1"])),
        }
        front = draw(st.sampled_from([None, vip("net-a", number)]))
        cluster.service(f"s{number}", "net-a", tasks, vip=front, ports=[port])
    if draw(st.booleans()):
        del cluster.networks["net-i"]
    return rules(wanted(cluster))


@settings(max_examples=150, deadline=None)
@given(states(), states())
def test_a_change_turns_the_old_ruleset_into_the_new(old, new):
    kernel = Kernel(old)

    kernel.run(change(old, new))

    assert kernel.sets == {name: dict(elements) for name, elements in new.sets.items()}
    assert kernel.chains == {name: list(lines) for name, lines in new.chains.items()}


@settings(max_examples=30, deadline=None)
@given(states())
def test_nothing_changed_needs_no_transaction(found):
    assert change(found, found) == ""


# --- work per service ---


def test_only_changed_services_are_computed_again():
    cluster = shop()
    cluster.service("other", "net-a", ["w2"], vip=vip("net-a", 3))
    computed = []
    parts = PerService(lambda seen: computed.append(seen.key))

    parts.update(wanted(cluster))
    assert sorted(computed) == ["shop/other/net-a", "shop/web/net-a"]
    _, changed = parts.update(wanted(cluster))
    assert not changed

    computed.clear()
    cluster.ready["w1"] = False
    assert parts.update(wanted(cluster))[1] == {"shop/web/net-a"}
    assert computed == ["shop/web/net-a"]
    del cluster.services["shop/web/net-a"]
    assert parts.update(wanted(cluster))[1] == {"shop/web/net-a"}


def test_models_used_here_are_the_wires():
    """Equal services compare equal, which the work-saving above relies on."""
    one = shop().services["shop/web/net-a"]

    assert ServiceEndpoints.model_validate(one.model_dump()) == one
    assert Assignment.model_validate(shop().tasks["w1"][1].model_dump()) == shop().tasks["w1"][1]


def test_what_comes_over_the_overlay_is_tracked_apart_by_peer():
    found = rules(wanted(shop()))
    (rule,) = found.chains["zones"]
    assert rule == (
        "ct original zone set ether saddr map { 02:63:0a:d2:00:02 : 2, 02:63:0a:d2:00:03 : 3 }"
    )
    alone = rules(wanted(Cluster({"n1": "10.77.0.1"}, overlay=False)))
    assert alone.chains["zones"] == ()
