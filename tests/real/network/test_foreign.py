"""Beside other programs' firewalls."""

import pytest

from tests.real.network.conftest import NODES
from tests.real.network.hosts import ask
from tests.real.network.states import vip

pytestmark = pytest.mark.real


def iptables(host, *arguments, check=True):
    return host.sh("iptables", "-w", *arguments, check=check)


@pytest.fixture
def docker(single):
    """A machine as Docker leaves it: forwarding is dropped but for what its chains accept."""
    iptables(single.host, "-N", "DOCKER-USER")
    iptables(single.host, "-P", "FORWARD", "DROP")
    iptables(single.host, "-A", "FORWARD", "-j", "DOCKER-USER")
    yield single
    iptables(single.host, "-P", "FORWARD", "ACCEPT")
    iptables(single.host, "-F")
    iptables(single.host, "-X", "DOCKER-USER")


def shop(cluster):
    for number in (2, 3):
        cluster.task(f"web{number}", "n1", ["net-a"], number=number)
    ports = [{"target": 80, "published": 8080}]
    cluster.service("web", "net-a", ["web2"], vip=vip("net-a", 2), ports=ports)
    cluster.push()
    cluster.lab.serve(cluster.netns("web2"), "web2")


def works(cluster, *, patience=30.0):
    outside = ask(cluster.stranger.ns, NODES["n1"], 8080, timeout=patience)
    inside = ask(cluster.netns("web3"), vip("net-a", 2), timeout=patience)
    return outside[0] == inside[0] == "web2"


def test_dockers_forward_drop_is_opened_through_its_own_door(docker):
    shop(docker)
    assert works(docker)
    answer = docker.host.call("apply", state=docker.state("n1"))
    assert answer["warnings"] == []

    iptables(docker.host, "-F", "DOCKER-USER")  # as a restart of Docker might
    assert not works(docker, patience=0.5)
    docker.host.call("verify")
    assert works(docker)
    assert iptables(docker.host, "-S", "DOCKER-USER").count("corral") == 2

    docker.host.call("leave")
    assert "corral" not in iptables(docker.host, "-S")


def test_a_drop_policy_of_somebody_else_is_named(single):
    hook = "{ type filter hook forward priority 0; policy drop; }"
    single.host.sh("nft", f"add table inet mine; add chain inet mine lan {hook}")
    try:
        shop(single)
        answer = single.host.call("apply", state=single.state("n1"))
        assert "chain lan of table inet mine drops forwarded packets" in answer["warnings"][0]
    finally:
        single.host.sh("nft", "delete", "table", "inet", "mine")
    single.host.call("verify")
    assert single.host.call("apply", state=single.state("n1"))["warnings"] == []
