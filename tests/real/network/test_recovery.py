"""Crashes, meddling and leaving: what must survive, be repaired, or be gone."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.network.conftest import NODES, left_on, processes_of, remains
from tests.real.network.hosts import ROOT, Refused, ask, sh, until
from tests.real.network.questions import lookup
from tests.real.network.states import vip

pytestmark = pytest.mark.real

FRONT = vip("net-a", 2)


def two(cluster):
    cluster.task("web", "n1", ["net-a", "net-b"], number=2)
    cluster.task("client", "n1", ["net-a"], number=3)
    ports = [{"target": 80, "published": 8080}]
    cluster.service("web", "net-a", ["web"], vip=FRONT, ports=ports)
    cluster.push()
    cluster.lab.serve(cluster.netns("web"), "web")


def works(cluster, *, patience=30.0):
    client = cluster.netns("client")
    return (
        ask(client, FRONT, timeout=patience)[0] == "web"
        and ask(cluster.stranger.ns, NODES["n1"], 8080, timeout=patience)[0] == "web"
        and lookup(client, "web") == [FRONT]
    )


def test_the_agents_death_changes_nothing_and_adoption_keeps_everything(single):
    two(single)
    host = single.host
    links = host.sh("ip", "-br", "link")
    dns = processes_of(host)
    host.kill()

    assert works(single)
    assert processes_of(host) == dns

    host.start()
    host.call("adopt", tasks=["web", "client"])
    host.call("apply", state=single.state("n1"))
    assert works(single)
    assert host.sh("ip", "-br", "link") == links
    assert processes_of(host) == dns
    host.call("attach", assignments=[single.tasks["web"][1].model_dump(mode="json")])
    assert works(single)


def test_adoption_removes_what_belongs_to_nobody(single):
    two(single)
    host = single.host
    host.kill()
    host.start()
    host.call("adopt", tasks=["client"])
    del single.tasks["web"], single.services["shop/web/net-a"]
    host.call("apply", state=single.state("n1"))

    assert not Path(host.netns("web")).exists()
    assert host.sh("ip", "-br", "link").count("cr-e") == 1
    assert "10.210.16.66" not in host.sh("nft", "list", "ruleset")
    assert host.call("dns")["pid"] == int(processes_of(host)[0])
    assert lookup(single.netns("client"), "web") == "SERVFAIL"  # asked upstream, nobody there


def test_agent_and_resolver_dead_together(single):
    two(single)
    host = single.host
    host.kill()
    for pid in processes_of(host):
        os.kill(int(pid), 9)
    host.start()
    host.call("adopt", tasks=["web", "client"])
    host.call("apply", state=single.state("n1"))

    until(lambda: works(single), 60, "names resolve again")


def test_a_resolver_crash_only_delays_an_answer(single):
    two(single)
    host = single.host
    for _ in range(3):
        (pid,) = processes_of(host)
        os.kill(int(pid), 9)
        # Asked of a dead process: the socket is still there, its answer comes from the next one.
        assert lookup(single.netns("client"), "web", again=60) == [FRONT]
        assert processes_of(host) != [pid]


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table inet corral",
        "nft flush chain inet corral dstnat",
        "nft delete element inet corral vips { 10.210.16.2 }",
        "ip route flush proto 98",
        "LINK web",
        "LINK-DOWN web",
    ],
)
def test_meddling_is_repaired(single, damage):
    two(single)
    host = single.host
    host.call("verify")
    host.call("watch", on=False)
    if damage.startswith("LINK"):
        links = [line.split("@")[0] for line in host.sh("ip", "-br", "link").splitlines()]
        for link in links:
            if link.startswith("cr-e"):
                verb = ["set", link, "down"] if "DOWN" in damage else ["delete", link]
                host.sh("ip", "link", *verb)
    else:
        host.sh(*damage.split(" ", 4) if "{" in damage else damage.split())
    assert not works(single, patience=0.5)

    assert host.call("verify")["repaired"]
    assert works(single)
    assert not host.call("verify")["repaired"]


def test_repair_needs_no_call(single):
    two(single)
    single.host.sh("nft", "flush", "ruleset")

    until(lambda: works(single, patience=2.0), 60, "repaired by itself")


def test_overlay_is_repaired(cluster):
    host = cluster.hosts["n1"]
    host.call("watch", on=False)
    for damage in (
        "ip link delete cr-vxlan",
        "bridge fdb del 02:63:0a:d2:00:02 dev cr-vxlan dst 10.77.0.2",
        "ip neigh flush dev cr-vxlan nud permanent",
        "ip rule del pref 11002",
        "ip link set cr-vxlan down",
        "ip addr flush dev cr-vxlan",
    ):
        host.sh(*damage.split())
        assert host.call("verify")["repaired"], damage
        assert not host.call("verify")["repaired"], damage
        client = cluster.netns("one-n1")
        assert ask(client, cluster.front["one-n2"][0])[0] == "one-n2", damage
        assert ask(cluster.stranger.ns, NODES["n2"], 8000)[0] == "one-n1", damage


def test_detach_leaves_nothing_of_the_task(single):
    two(single)
    host = single.host
    host.call("detach", tasks=["web"])
    del single.tasks["web"], single.services["shop/web/net-a"]
    host.call("apply", state=single.state("n1"))

    assert "10.210.16.66" not in host.sh("nft", "list", "ruleset")
    assert "10.210.16.66" not in host.sh("ip", "route", "show", "table", "all")
    assert host.sh("ip", "-br", "link").count("cr-e") == 1
    assert not Path(host.netns("web")).exists()
    host.call("detach", tasks=["web", "never-was"])


def test_leaving_restores_the_machine(single):
    host = single.host

    def machine():
        sysctls = subprocess.run(
            [
                "nsenter",
                f"--net={host.ns}",
                "sysctl",
                "-a",
                "--pattern",
                r"net\.ipv4\.(ip_forward|conf)",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return sysctls, host.sh("ip", "-br", "link"), host.sh("ip", "addr")

    before = machine()
    two(single)
    assert machine() != before
    host.call("leave")

    assert left_on(host) == []
    assert _stable(machine()) == _stable(before)


def _stable(machine):
    sysctls, links, addresses = machine
    # An address of a link that is new is tentative for a second.
    lines = addresses.replace(" tentative", "").splitlines()
    return sysctls, links, [a for a in lines if "valid_lft" not in a]


def test_an_interrupted_attach_is_finished_by_the_next(single):
    """Half of every kind: a link without routes or address, one gone, a file without mount."""
    two(single)
    host = single.host
    assignment = single.tasks["web"][1].model_dump(mode="json")
    for damage in (
        ["ip", "route", "flush", "table", "main"],
        ["ip", "link", "delete", "eth1"],
        ["ip", "addr", "flush", "dev", "eth0"],
    ):
        sh(single.netns("web"), *damage)
        host.call("attach", assignments=[assignment])
        assert works(single), damage
    host.call("detach", tasks=["web"])
    subprocess.run(
        ["nsenter", "-t", str(host.pid), "-m", "touch", f"{host.dir}/run/agent/netns/web"],
        check=True,
    )
    host.call("attach", assignments=[assignment])
    assert json.loads(json.dumps(host.call("verify")))["repaired"] == []


def test_an_unknown_network_is_asked_for_later(single):
    assignment = single.task("web", "n1", ["net-a"], number=2)
    single.host.call("apply", state={**single.state("n1"), "networks": {}, "assignments": {}})

    with pytest.raises(Refused, match="network net-a is not known") as refusal:
        single.host.call("attach", assignments=[assignment.model_dump(mode="json")])
    assert refusal.value.kind == "Later"
    del single.tasks["web"]


def test_encrypted_networks_fail_closed(single):
    single.networks["net-a"] = single.networks["net-a"].model_copy(update={"encrypted": True})
    single.task("web", "n1", ["net-a"], number=2)

    with pytest.raises(Refused, match="cannot encrypt") as refusal:
        single.push()
    assert refusal.value.kind == "Refusal"
    del single.tasks["web"]


@pytest.mark.parametrize("mode", ["none", "host"])
def test_other_network_modes(single, mode):
    single.task("odd", "n1", [], number=2, network_mode=mode)
    single.push()
    links = sh(single.netns("odd"), "ip", "-br", "link").split("\n")

    if mode == "none":
        assert [line.split()[0] for line in links if line] == ["lo"]
        assert "lo" in sh(single.netns("odd"), "ip", "-br", "addr", "show", "up")
    else:
        assert "eth0" in "".join(links)
        assert single.host.attach_answer["resolv_conf"] == "nameserver 127.0.0.1\n"
    single.host.call("detach", tasks=["odd"])
    assert not Path(single.netns("odd")).exists()


def test_a_machine_of_no_cluster_is_left_alone(single):
    before = single.host.sh("sysctl", "net.ipv4.ip_forward"), remains(single.host)
    nothing = {"networks": {}, "services": {}, "peers": {}, "assignments": {}, "ready": {}}
    single.host.call("apply", state={"me": {"node": "", "name": ""}, **nothing})

    assert (single.host.sh("sysctl", "net.ipv4.ip_forward"), remains(single.host)) == before


def test_a_resolver_of_an_older_version_hands_over(single, tmp_path):
    two(single)
    host = single.host
    host.kill()
    (old,) = processes_of(host)
    os.kill(int(old), 9)
    shutil.copytree(ROOT / "agent" / "dns", tmp_path / "agent" / "dns")
    with (tmp_path / "agent" / "dns" / "zone.py").open("a") as file:
        file.write("# another version\n")
    other = subprocess.Popen(
        [
            *("nsenter", "-t", str(host.pid), "-n", "-m", sys.executable, "-S"),
            *("-m", "agent.dns", str(host.dir / "run" / "agent" / "dns")),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    door = Path(f"/proc/{host.pid}/root{host.dir}/run/agent/dns/control.sock")
    until(lambda: listens(door), 60, "the other one runs")
    host.start()
    host.call("adopt", tasks=["web", "client"])
    host.call("apply", state=single.state("n1"))

    assert works(single)
    assert other.wait(60) == 0
    (new,) = processes_of(host)
    assert int(new) == host.call("dns")["pid"] != other.pid


def listens(door):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        return link.connect_ex(str(door)) == 0


def test_nothing_to_serve_leaves_nothing(single):
    two(single)
    host = single.host
    host.call("detach", tasks=["web", "client"])
    single.tasks.clear()
    single.services.clear()
    single.networks, networks = {}, single.networks
    host.call("apply", state=single.state("n1"))
    assert host.call("verify") == {"repaired": []}
    assert left_on(host) == []
    assert not (host.dir / "run" / "agent" / "dns").exists()

    single.networks = networks
    host.attached.clear()
    two(single)
    assert works(single)


def test_what_a_former_agent_left_goes_when_nothing_is_wanted(single):
    two(single)
    host = single.host
    host.kill()
    host.start()
    host.call("adopt", tasks=[])
    nothing = {"networks": {}, "services": {}, "peers": {}, "assignments": {}, "ready": {}}
    host.call("apply", state={"me": {"node": "n1", "name": "n1"}, **nothing})

    assert left_on(host) == []
