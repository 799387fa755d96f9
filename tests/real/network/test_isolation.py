"""What must not get through, and that it did not: counted where it would have arrived."""

import contextlib
import socket
import struct
import time

import pytest

from tests.real.network.conftest import NODES
from tests.real.network.hosts import Server, ask, inside, sh, until

pytestmark = pytest.mark.real

SHORT = 0.3
NO_WAY = ("timeout", "No route to host", "Network is unreachable", "Connection refused")


def raw(namespace):
    return inside(
        namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    )


def datagram(source, target, port, payload=b"forged", source_port=999):
    udp = struct.pack("!4H", source_port, port, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + udp


def send(namespace, payload, to):
    kind = socket.SOCK_DGRAM
    link = inside(namespace, lambda: socket.socket(socket.AF_INET, kind))
    with link, contextlib.suppress(OSError):
        link.sendto(payload, to)


def dropped(host, chain):
    text = host.sh("nft", "list", "chain", "inet", "corral", chain)
    return sum(
        int(line.split("packets ")[1].split()[0]) for line in text.splitlines() if "packets" in line
    )


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("target", ["one-n1", "one-n2"])
def test_no_shared_network_no_way(cluster, target, protocol):
    answer = ask(
        cluster.netns("apart-n1"), cluster.address(target), protocol=protocol, timeout=SHORT
    )

    assert answer in NO_WAY


@pytest.mark.parametrize("target", ["one-n1", "one-n2"])
def test_a_forged_source_goes_nowhere(cluster, target):
    server = next(s for s in cluster.lab.servers if s.name == target)
    before, seen = dropped(cluster.hosts["n1"], "guard_task"), server.seen
    forged = datagram(cluster.address("two-n1"), cluster.address(target), 80)

    with raw(cluster.netns("apart-n1")) as link:
        for _ in range(5):
            link.sendto(forged, (cluster.address(target), 0))

    until(lambda: dropped(cluster.hosts["n1"], "guard_task") >= before + 5, 60, "all dropped")
    assert server.seen == seen


def test_a_neighbour_routing_to_a_container_gets_nothing(cluster):
    task = cluster.address("one-n1")
    cluster.stranger.sh("ip", "route", "add", f"{task}/32", "via", NODES["n1"])
    try:
        assert ask(cluster.stranger.ns, task, timeout=SHORT) in NO_WAY
        assert ask(cluster.stranger.ns, cluster.front["one-n1"][0], timeout=SHORT) in NO_WAY
    finally:
        cluster.stranger.sh("ip", "route", "del", f"{task}/32")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_containers_cannot_reach_services_of_any_node(cluster, protocol):
    daemons = []
    for name, host in cluster.hosts.items():
        host.sh("ip", "addr", "add", "169.254.169.254/32", "dev", "lo")
        daemons.append(Server(host.ns, f"daemon-{name}", port=2222))
    try:
        client = cluster.netns("one-n1")
        targets = [*NODES.values(), "169.254.1.1", "169.254.169.254"]
        targets += [cluster.overlay_of(node) for node in NODES]
        answers = {t: ask(client, t, 2222, protocol=protocol, timeout=SHORT) for t in targets}

        assert set(answers.values()) <= set(NO_WAY), answers
        assert [daemon.seen for daemon in daemons] == [0, 0, 0]
    finally:
        for daemon in daemons:
            daemon.close()
        for host in cluster.hosts.values():
            host.sh("ip", "addr", "del", "169.254.169.254/32", "dev", "lo")


def test_an_internal_network_has_no_way_out(cluster):
    cluster.task("inner", "n1", ["net-i"], number=5)
    cluster.task("inner-too", "n2", ["net-i"], number=5)
    cluster.push()
    cluster.lab.serve(cluster.netns("inner-too"), "inner-too")
    outside = Server(cluster.stranger.ns, "outside")
    try:
        client = cluster.netns("inner")
        assert ask(client, cluster.address("inner-too"))[0] == "inner-too"
        assert ask(client, cluster.stranger.address, timeout=SHORT) in NO_WAY
        # Not even with a route of its own making.
        sh(
            client,
            *["ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "onlink"],
        )
        assert ask(client, cluster.stranger.address, timeout=SHORT) in NO_WAY
        assert ask(client, NODES["n1"], 8000, timeout=SHORT) in NO_WAY
        assert outside.seen == 0
    finally:
        outside.close()
        for task in ("inner", "inner-too"):
            node, _ = cluster.tasks.pop(task)
            cluster.hosts[node].call("detach", tasks=[task])
            cluster.hosts[node].attached.discard(task)
        cluster.push()


def test_egress_is_masqueraded(cluster):
    outside = Server(cluster.stranger.ns, "outside")
    try:
        for task in ("one-n1", "two-n2"):
            node = task[-2:]
            assert ask(cluster.netns(task), cluster.stranger.address) == ("outside", NODES[node])
    finally:
        outside.close()


def test_vxlan_only_from_members(cluster):
    """A frame with the right network identifier from a stranger, and from a container."""
    n1 = cluster.hosts["n1"]
    server = next(s for s in cluster.lab.servers if s.name == "one-n1")
    seen, before = server.seen, dropped(n1, "guard")
    inner = datagram(cluster.address("one-n2"), cluster.address("one-n1"), 80)
    frame = mac_of_overlay(n1) + bytes.fromhex("02630ad20002") + b"\x08\x00" + inner
    packet = struct.pack("!II", 0x08000000, 13710 << 8) + frame

    for namespace in (cluster.stranger.ns, cluster.netns("apart-n2")):
        for _ in range(5):
            send(namespace, packet, (NODES["n1"], 4789))

    until(lambda: dropped(n1, "guard") >= before + 5, 60, "all dropped")
    assert server.seen == seen
    # The same frame from a member's own address is what the overlay is made of.
    send(cluster.hosts["n2"].ns, packet, (NODES["n1"], 4789))
    until(lambda: server.seen == seen + 1, 60, "it arrives")


def mac_of_overlay(host):
    line = host.sh("ip", "-br", "link", "show", "cr-vxlan")
    return bytes.fromhex(line.split()[2].replace(":", ""))


def test_loopback_is_not_reachable_from_outside(cluster):
    """Although route_localnet is on for our devices."""
    n1 = cluster.hosts["n1"]
    daemon = Server(n1.ns, "daemon", port=3333, address="127.0.0.1")
    try:
        for namespace, source in (
            (cluster.netns("one-n1"), cluster.address("one-n1")),
            (cluster.stranger.ns, cluster.stranger.address),
        ):
            with raw(namespace) as link:
                packet = datagram(source, "127.0.0.1", 3333)
                gateway = "169.254.1.1" if "netns" in namespace else NODES["n1"]
                link.sendto(packet, (gateway, 0))
        time.sleep(0.1)
        assert daemon.seen == 0
    finally:
        daemon.close()
