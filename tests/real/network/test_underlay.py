"""Devices between nodes that change: MTU, addresses; networks that grow under running containers.

Two nodes: ``one`` and ``two`` are tasks of a network each, on n1 and n2, with a network more whose
default route they do not have, so that a missing pool route shows.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time

import pytest

from agent.network import reach
from specs.wire import Block
from tests.real.network.hosts import Lab, ask, inside, sh, until
from tests.real.network.states import Cluster

pytestmark = pytest.mark.real
NODES = {"n1": "10.77.0.1", "n2": "10.77.0.2"}
STRANGER = "10.77.0.9"


@pytest.fixture(scope="module")
def pair():
    lab = Lab()
    try:
        hosts = {name: lab.host(name, address) for name, address in NODES.items()}
        made = Cluster(dict(NODES))
        made.hosts, made.lab = hosts, lab
        made.stranger = lab.host("stranger", STRANGER, worker=False)
        for task, node in (("one", "n1"), ("two", "n2")):
            made.task(task, node, ["net-a", "net-b"], number=2)
        ports = [{"target": 80, "published": 8080}]
        made.service("web", "net-a", ["two"], ports=ports)
        made.push()
        for task in ("one", "two"):
            lab.serve(made.netns(task), task)
        yield made
    finally:
        lab.close()


def mtu_of(namespace, dev):
    return int(re.search(r"mtu (\d+)", sh(namespace, "ip", "link", "show", dev))[1])


def set_mtu(cluster, host, mtu):
    cluster.hosts[host].sh("ip", "link", "set", "eth0", "mtu", str(mtu))


def trouble(cluster, host):
    return cluster.hosts[host].call("trouble")["trouble"]


def carried(cluster, size=200_000):
    """Send so much from task two to task one and say whether all of it arrived."""

    def listen():
        link = socket.socket()
        link.bind(("0.0.0.0", 0))
        link.listen(1)
        link.settimeout(60)
        return link

    with inside(cluster.netns("one"), listen) as door:
        port = door.getsockname()[1]
        with inside(cluster.netns("two"), socket.socket) as link:
            link.settimeout(60)
            link.connect((cluster.address("one"), port))
            other, _ = door.accept()
            with other:
                other.settimeout(60)
                seen = 0
                link.setblocking(False)
                data = memoryview(bytes(size))
                while seen < size:
                    while data:
                        try:
                            data = data[link.send(data) :]
                        except BlockingIOError:
                            break
                    seen += len(other.recv(65536))
                return seen == size


@pytest.mark.parametrize(
    ("mtu", "inside_mtu"), [(1300, 1250), (1200, 1150), (700, 650), (1500, 1450)]
)
def test_the_overlay_follows_the_mtu_of_the_device_below_it(pair, mtu, inside_mtu):
    for host in NODES:
        set_mtu(pair, host, mtu)
        pair.hosts[host].call("verify")
    assert mtu_of(pair.hosts["n1"].ns, "cr-vxlan") == inside_mtu
    for task in ("one", "two"):
        assert mtu_of(pair.netns(task), "eth0") == inside_mtu
        assert mtu_of(pair.netns(task), "eth1") == inside_mtu
    assert ask(pair.netns("one"), pair.address("two"))[0] == "two"
    assert carried(pair)
    # A task that comes now works at once.
    late = pair.task(f"late-{mtu}", "n1", ["net-a"], number=10 + mtu % 7)
    pair.push()
    assert ask(pair.netns(late.id), pair.address("two"))[0] == "two"
    assert trouble(pair, "n1") == ""


def test_every_node_keeps_to_the_smallest_mtu_of_all(pair):
    """Also large packets to a node whose device takes less arrive, in connections there already."""
    set_mtu(pair, "n1", 1300)
    pair.hosts["n1"].call("verify")
    pair.mtus["n1"] = pair.hosts["n1"].call("trouble")["mtu"]
    assert pair.mtus["n1"] == 1300
    pair.push()
    assert mtu_of(pair.netns("two"), "eth0") == 1250
    assert carried(pair)
    set_mtu(pair, "n1", 1500)
    pair.hosts["n1"].call("verify")
    del pair.mtus["n1"]
    pair.push()
    assert mtu_of(pair.netns("two"), "eth0") == 1450


def test_an_mtu_too_small_for_anything_is_said_and_forgotten(pair):
    set_mtu(pair, "n1", 600)
    pair.hosts["n1"].call("verify")
    assert trouble(pair, "n1") == (
        "the MTU of the device with 10.77.0.1 is 600; the overlay needs 626 at least"
    )
    # The node's own tasks go on reaching each other.
    near = pair.task("near", "n1", ["net-a"], number=40)
    pair.push()
    assert ask(pair.netns(near.id), pair.address("one"))[0] == "one"
    set_mtu(pair, "n1", 1500)
    pair.hosts["n1"].call("verify")
    assert trouble(pair, "n1") == ""


def test_a_node_that_moves_is_reached_at_its_new_address(pair):
    two = pair.hosts["n2"]
    two.sh("ip", "addr", "add", "10.77.0.22/24", "dev", "eth0")
    two.sh("ip", "addr", "del", "10.77.0.2/24", "dev", "eth0")
    two.call("verify")
    said = trouble(pair, "n2")
    assert said.startswith("this machine does not have 10.77.0.2, the address other nodes reach")
    assert "corral node set n2 --underlay-addr" in said

    for address in ("10.77.0.22", "10.77.0.2"):
        two.sh("ip", "addr", "flush", "dev", "eth0", "scope", "global")
        two.sh("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        pair.nodes["n2"] = address
        pair.push()
        assert trouble(pair, "n2") == ""
        entries = pair.hosts["n1"].sh("bridge", "fdb", "show", "dev", "cr-vxlan")
        assert re.findall(r"dst (\S+)", entries) == [address], "no stale entry, and a new one"
        assert ask(pair.netns("one"), pair.address("two"))[0] == "two"
        assert ask(pair.netns("two"), pair.address("one"))[0] == "one"
        # By the published port of the other node too: the way back is by the new address.
        assert ask(pair.stranger.ns, NODES["n1"], 8080) == ("two", STRANGER)


def test_a_network_that_grows_is_one_network_for_containers_that_run(pair):
    """On net-b the old tasks have no default route: only a pool route leads to the new one."""
    grown = pair.networks["net-b"]
    blocks = (*grown.blocks, Block(cidr="10.210.99.0/26", node="n2"))
    changed = {"more_pools": ("10.210.99.0/24",), "blocks": blocks}
    pair.networks["net-b"] = grown.model_copy(update=changed)
    new = pair.task("new", "n2", ["net-b"], number=9)
    place = new.networks[0].model_copy(update={"address": "10.210.99.5"})
    pair.tasks["new"] = ("n2", new.model_copy(update={"networks": (place,)}))
    pair.push()
    pair.lab.serve(pair.netns("new"), "new")

    for task in ("one", "two"):
        found = ask(pair.netns(task), "10.210.99.5")
        assert found == ("new", pair.address(task, 1)), "with its address on that network"
        assert ask(pair.netns("new"), pair.address(task, 1))[0] == task
    # A restarted agent gives running containers the routes it finds missing.
    sh(pair.netns("one"), "ip", "route", "del", "10.210.99.0/24")
    host = pair.hosts["n1"]
    host.kill()
    host.start()
    host.call("adopt", tasks=[t for t, (node, _) in pair.tasks.items() if node == "n1"])
    host.call("apply", state=pair.state("n1"))
    assert ask(pair.netns("one"), "10.210.99.5") == ("new", pair.address("one", 1))


def test_a_peer_that_falls_silent_gets_nothing_new_and_is_used_again(pair):
    other = pair.task("here", "n1", ["net-a"], number=50)
    pair.service("both", "net-a", ["two", "here"], vip="10.210.16.9")
    pair.push()
    pair.lab.serve(pair.netns(other.id), "here")

    def answers():
        return {ask(pair.netns("one"), "10.210.16.9", timeout=0.3)[0] for _ in range(4)}

    until(lambda: answers() == {"two", "here"}, 60, "both serve")
    # A peer that never answered is not judged: the agent has asked at least once.
    known = pair.hosts["n1"].dir / "run" / "agent" / "network" / "peers.json"
    until(lambda: known.exists() and "n2" in known.read_text(), 60, "n2 has answered")
    pair.hosts["n2"].sh("ip", "link", "set", "eth0", "down")
    until(lambda: answers() == {"here"}, 60, "the silent one is left out")
    (warning,) = pair.hosts["n1"].call("trouble")["warnings"]
    assert warning.startswith("n2 does not answer over the overlay")
    pair.hosts["n2"].sh("ip", "link", "set", "eth0", "up")
    until(lambda: answers() == {"two", "here"}, 60, "it is used again")
    assert pair.hosts["n1"].call("trouble")["warnings"] == []

    # Its echoes are eaten, and it accepts connections: it is there. Without those nobody knows.
    eat = "add table ip eat; add chain ip eat o { type filter hook output priority 0; }"
    for _ in range(10):
        pair.hosts["n2"].sh("nft", f"{eat}; add rule ip eat o icmp type echo-reply drop")
        try:
            widest, warned = asked_for(pair, 4.0)
            if widest < reach.LOST_AFTER * 0.9:
                assert not warned
                until(lambda: pair.hosts["n1"].call("trouble")["warnings"], 60, "it is left out")
                break
        finally:
            pair.hosts["n2"].sh("nft", "delete table ip eat")
        until(lambda: answers() == {"two", "here"}, 60, "it is used again after our own standstill")
    else:
        pytest.fail("this machine never came to ask twice a second for four seconds")
    until(lambda: answers() == {"two", "here"}, 60, "it is used again once more")


def test_a_peer_that_booted_gets_nothing_new_before_its_tasks_are_ready(pair):
    host, known = (
        pair.hosts["n2"],
        pair.hosts["n1"].dir / "run" / "agent" / "network" / "peers.json",
    )
    until(lambda: known.exists() and "n2" in known.read_text(), 60, "n2 has answered")

    def warnings():
        return pair.hosts["n1"].call("trouble")["warnings"]

    until(lambda: warnings() == [], 60, "all is well")
    host.kill()
    (host.dir / "run" / "agent" / "network" / "returned").unlink()  # as a boot does
    host.start()
    host.call("adopt", tasks=[t for t, (node, _) in pair.tasks.items() if node == "n2"])
    pair.ready["two"] = False
    host.call("apply", state=pair.state("n2"))
    until(lambda: any(w.startswith("n2 does not answer") for w in warnings()), 60, "it is left out")
    pair.ready["two"] = True
    host.call("apply", state=pair.state("n2"))
    until(lambda: warnings() == [], 60, "it is used again")


# Where and what is lost of TCP over the overlay: what n2 gets, what it says, what leaves n1.
LOST = (
    ("n2", "forward priority -5", 'iifname "cr-vxlan" ip protocol tcp drop'),
    ("n2", "forward priority -5", 'oifname "cr-vxlan" ip protocol tcp drop'),
    ("n1", "postrouting priority 300", 'oifname "cr-vxlan" ip protocol tcp drop'),
)


def test_a_peer_that_echoes_and_whose_tasks_nothing_comes_through_to_gets_nothing_new(pair):
    """Law: an echo is not the traffic; one way lost is lost."""
    other = pair.task("beside", "n1", ["net-a"], number=60)
    pair.service("either", "net-a", ["two", "beside"], vip="10.210.16.10")
    pair.push()
    pair.lab.serve(pair.netns(other.id), "beside")

    def answers():
        return {ask(pair.netns("one"), "10.210.16.10", timeout=0.3)[0] for _ in range(4)}

    for where, hook, rule in LOST:
        until(lambda: answers() == {"two", "beside"}, 60, "both serve")
        time.sleep(2.0)  # it is knocked at twice a second; one that never answered is not judged
        eat = f"add table ip eat; add chain ip eat o {{ type filter hook {hook}; }}"
        pair.hosts[where].sh("nft", f"{eat}; add rule ip eat o {rule}")
        try:
            until(lambda: answers() == {"beside"}, 60, f"n2 is left out: {rule}")
            (warning,) = pair.hosts["n1"].call("trouble")["warnings"]
            assert warning.startswith("n2 does not answer over the overlay")
        finally:
            pair.hosts[where].sh("nft", "delete table ip eat")
    until(lambda: answers() == {"two", "beside"}, 60, "it is used again")


def asked_for(pair, seconds):
    """Connect all the while; return how long n2 accepted nothing, at most, and what n1 warned of.

    A busy machine may keep us from asking: then nobody can know that n2 is there.
    """
    began = last = time.monotonic()
    widest, warned = 0.0, []
    while time.monotonic() - began < seconds:
        asked = time.monotonic()
        if ask(pair.netns("one"), "10.210.16.9", timeout=0.3)[0] == "two":
            widest, last = max(widest, time.monotonic() - last), asked
        warned += pair.hosts["n1"].call("trouble")["warnings"]
    return max(widest, time.monotonic() - last), warned


def test_a_repair_that_fails_is_said_until_it_works(pair):
    host = pair.hosts["n1"]
    nft = shutil.which("nft")
    within = ("nsenter", "-t", str(host.pid), "-m")
    subprocess.run([*within, "mount", "--bind", "/bin/false", nft], check=True)
    try:
        host.sh("nft", "flush", "ruleset")  # ours, not the host's: that one is covered
        until(lambda: "cannot be repaired" in trouble(pair, "n1"), 60, "the failure is said")
    finally:
        subprocess.run([*within, "umount", nft], check=True)
    until(lambda: trouble(pair, "n1") == "", 60, "it is repaired")
    assert ask(pair.netns("one"), pair.address("two"))[0] == "two"
