"""VIPs and published ports while backends come, go and change their readiness."""

import socket

import pytest

from specs.stack import Port
from tests.real.network.conftest import NODES
from tests.real.network.hosts import Refused, Server, ask, asked, inside
from tests.real.network.states import vip

pytestmark = pytest.mark.real

FRONT = vip("net-a", 2)
both = pytest.mark.parametrize("protocol", ["tcp", "udp"])


def web(cluster, count=2, **service):
    for number in range(1, count + 1):
        cluster.task(f"web{number}", "n1", ["net-a"], number=number, service="web")
    cluster.task("client", "n1", ["net-a"], number=20)
    tasks = [f"web{number}" for number in range(1, count + 1)]
    service.setdefault(
        "ports", [{"target": 80, "published": 8080, "protocol": p} for p in ("tcp", "udp")]
    )
    cluster.service("web", "net-a", tasks, vip=FRONT, **service)
    cluster.push()
    for task in tasks:
        cluster.lab.serve(cluster.netns(task), task)
    return tasks


@both
def test_the_agents_own_view_of_readiness_overrides(single, protocol):
    web(single)
    client = single.netns("client")
    assert {ask(client, FRONT, protocol=protocol)[0] for _ in range(4)} == {"web1", "web2"}

    single.ready["web1"] = False  # the endpoint still says ready: the controller does not know yet
    single.push()

    assert {ask(client, FRONT, protocol=protocol)[0] for _ in range(4)} == {"web2"}


@both
def test_nothing_ready_is_refused_at_once_and_comes_back(single, protocol):
    tasks = web(single)
    client = single.netns("client")
    for task in tasks:
        single.ready[task] = False
    single.push()

    for namespace, address, port in (
        (client, FRONT, 80),
        (single.stranger.ns, NODES["n1"], 8080),
        (single.host.ns, "127.0.0.1", 8080),
    ):
        # A refusal, and not for want of an answer. A refused local UDP send is told as EPERM.
        assert ask(namespace, address, port, protocol=protocol) in (
            "Connection refused",
            "Operation not permitted",
        )

    single.ready["web2"] = True
    single.push()
    assert ask(client, FRONT, protocol=protocol)[0] == "web2"
    assert ask(single.stranger.ns, NODES["n1"], 8080, protocol=protocol)[0] == "web2"


@pytest.mark.parametrize("way", ["vip", "port", "localhost"])
def test_a_long_lived_udp_client_follows_the_backends(single, way):
    """Its packets keep the connection tracking entry alive: it must be deleted."""
    web(single)
    namespace, to = {
        "vip": (single.netns("client"), (FRONT, 80)),
        "port": (single.stranger.ns, (NODES["n1"], 8080)),
        "localhost": (single.host.ns, ("127.0.0.1", 8080)),
    }[way]

    def answer():
        return asked(link, to=to).split()[0].decode()

    link = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with link:
        first = answer()
        assert answer() == first
        single.ready[first] = False
        single.push()
        second = answer()
        assert {first, second} == {"web1", "web2"}


def test_a_udp_client_from_before_the_first_backend_is_translated(single):
    web(single, 1)
    single.ready["web1"] = False
    single.push()
    link = inside(single.netns("client"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with link:
        for _ in range(3):
            link.sendto(b"?", (FRONT, 80))
        single.ready["web1"] = True
        single.push()
        assert asked(link, to=(FRONT, 80)).startswith(b"web1")


def test_established_connections_are_left_to_drain(single):
    web(single, 2, ports=[])
    client = single.netns("client")

    def listen():
        made = socket.socket()
        made.bind(("0.0.0.0", 81))
        made.listen()
        return made

    with inside(single.netns("web1"), listen) as listener:
        single.ready["web2"] = False
        single.push()
        with inside(client, socket.socket) as link:
            link.settimeout(30)
            link.connect((FRONT, 81))
            served, _ = listener.accept()
            single.ready["web1"] = False
            single.push()
            served.sendall(b"still here")
            assert link.recv(100) == b"still here"
            served.close()


def test_a_port_of_a_host_program_is_never_taken_over(single):
    daemon = Server(single.host.ns, "daemon", port=8080)
    try:
        web(single)
        answer = single.host.call("apply", state=single.state("n1"))

        assert any("8080/tcp is in use" in warning for warning in answer["warnings"])
        assert ask(single.stranger.ns, NODES["n1"], 8080) == ("daemon", "10.77.0.9")
        assert ask(single.host.ns, "127.0.0.1", 8080) == ("daemon", "127.0.0.1")
    finally:
        daemon.close()

    # Once the program is gone the port is ours, without another word.
    single.host.call("apply", state=single.state("n1"))
    assert ask(single.stranger.ns, NODES["n1"], 8080)[0] in ("web1", "web2")


def test_a_published_port_cannot_be_bound_by_a_host_program(single):
    web(single)

    with pytest.raises(OSError, match="in use"):
        Server(single.host.ns, "late", port=8080)


def test_check_ports_tells_what_is_taken(single):
    daemon = Server(single.host.ns, "daemon", port=8080, address="127.0.0.1")
    try:
        ports = [Port(target=80, published=number) for number in (8080, 8081)]
        found = single.host.call("check_ports", ports=[p.model_dump() for p in ports])["found"]
    finally:
        daemon.close()

    assert [sentence.split()[1] for sentence in found] == ["8080/tcp"]


@both
def test_host_mode_port(single, protocol):
    port = Port(target=80, published=8090, protocol=protocol, mode="host")
    single.task("web", "n1", ["net-a"], number=2, host_ports=[port])
    single.push()
    single.lab.serve(single.netns("web"), "web")

    assert ask(single.stranger.ns, NODES["n1"], 8090, protocol=protocol) == ("web", "10.77.0.9")
    assert ask(single.host.ns, "127.0.0.1", 8090, protocol=protocol)[0] == "web"


def test_host_mode_port_in_use_refuses_the_task(single):
    daemon = Server(single.host.ns, "daemon", port=8090)
    try:
        port = Port(target=80, published=8090, mode="host")
        single.task("web", "n1", ["net-a"], number=2, host_ports=[port])
        with pytest.raises(Refused, match="8090/tcp is in use by another program") as refusal:
            single.push()
        assert refusal.value.kind == "Refusal"
        assert ask(single.stranger.ns, NODES["n1"], 8090)[0] == "daemon"
    finally:
        daemon.close()
    del single.tasks["web"]


def test_host_address_is_honoured_exactly(single):
    single.host.sh("ip", "addr", "add", "10.77.0.101/24", "dev", "eth0")
    web(
        single,
        1,
        ports=[
            {"target": 80, "published": 8081, "host_ip": "127.0.0.1"},
            {"target": 80, "published": 8082, "host_ip": "10.77.0.101"},
            {"target": 80, "published": 8083, "host_ip": "192.0.2.1"},  # another machine's
        ],
    )
    outside = Server(single.stranger.ns, "outside", port=8083)
    single.stranger.sh("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    single.host.sh("ip", "route", "add", "192.0.2.1/32", "via", "10.77.0.9")
    try:
        assert ask(single.host.ns, "127.0.0.1", 8081)[0] == "web1"
        assert ask(single.stranger.ns, NODES["n1"], 8081) == "Connection refused"
        assert ask(single.stranger.ns, "10.77.0.101", 8082)[0] == "web1"
        assert ask(single.stranger.ns, NODES["n1"], 8082) == "Connection refused"
        assert ask(single.host.ns, "127.0.0.1", 8082) == "Connection refused"
        # What only passes through on its way to the other machine is left alone.
        assert ask(single.netns("client"), "192.0.2.1", 8083)[0] == "outside"
    finally:
        outside.close()


def test_an_unready_port_of_one_address_leaves_the_others(single):
    """Two services on the same port of different addresses do not disturb each other."""
    single.host.sh("ip", "addr", "add", "10.77.0.101/24", "dev", "eth0")
    single.task("a", "n1", ["net-a"], number=2)
    single.task("b", "n1", ["net-a"], number=3)
    for task, address in (("a", NODES["n1"]), ("b", "10.77.0.101")):
        port = {"target": 80, "published": 8080, "host_ip": address}
        single.service(task, "net-a", [task], ports=[port])
    single.push()
    for task in ("a", "b"):
        single.lab.serve(single.netns(task), task)
    single.ready["b"] = False
    single.push()

    assert ask(single.stranger.ns, NODES["n1"], 8080)[0] == "a"
    assert ask(single.stranger.ns, "10.77.0.101", 8080) == "Connection refused"
