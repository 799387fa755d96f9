"""The lab itself: hosts like machines, faults, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.lab import cgroups
from orchestrator.lab.lab import Lab, down, names
from orchestrator.lab.layout import DISKS, LabError, Layout
from tests import leaks

pytestmark = pytest.mark.real


def reachable(lab: Lab, source: str, target: str, *, within: int = 30) -> bool:
    """Ask once a second until an answer comes; who is not to be reached is asked once."""
    address = lab.host(target).address.ipv4
    words = ["ping", "-c1", f"-w{within}", "-q", address]
    return lab.host(source).run(words, check=False, timeout=60).returncode == 0


def cut_off(lab: Lab, source: str, target: str) -> bool:
    return not reachable(lab, source, target, within=1)


def gone(name: str) -> None:
    layout = Layout.of(name)
    assert name not in names()
    assert not layout.root.exists()
    assert not (DISKS / name).exists()
    assert not cgroups.directories(layout.cgroup())
    assert f"corral-lab/{name}" not in Path("/proc/self/mountinfo").read_text()


def test_a_host_is_its_own_machine(host):
    machine = Path("/proc/sys/kernel/random/boot_id").read_text()
    assert host.read("/proc/sys/kernel/random/boot_id") != machine
    assert host.run(["hostname"]).stdout.strip() == host.name
    assert host.run(["cat", "/proc/self/cgroup"]).stdout.count(":/\n") >= 1
    assert "init.py" in host.read("/proc/1/cmdline")
    processes = host.run(["ps", "ax"]).stdout.splitlines()
    assert len(processes) < 6, processes
    links = host.run(["ip", "-br", "link"]).stdout
    assert {line.split("@")[0].split()[0] for line in links.splitlines()} == {"lo", "eth0"}


def test_a_host_cannot_change_the_machines_settings(host):
    assert host.run(["sysctl", "-w", "vm.swappiness=60"], check=False).returncode
    assert host.run(["sysctl", "-w", "kernel.panic=1"], check=False).returncode
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    host.run(["sysctl", "-w", "net.ipv4.ip_forward=1"])
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
    host.run(["sysctl", "-w", "net.ipv4.ip_forward=0"])


def test_mounts_inside_a_host_propagate_as_on_a_machine(host):
    script = """
    mkdir -p /run/p && mount -t tmpfs p /run/p && mkdir /run/p/sub
    unshare -m --propagation slave sh -c 'while [ ! -e /run/p/sub/seen ]; do sleep 0.02; done' &
    sleep 0.1
    mount -t tmpfs s /run/p/sub && touch /run/p/sub/seen && wait
    umount /run/p/sub && umount /run/p && rmdir /run/p
    """
    host.run(["sh", "-ec", script], timeout=60)


def test_overlayfs_works_on_the_hosts_disk(host):
    script = """
    cd /var/lib/corral && mkdir -p t/l t/u t/w t/m
    mount -t overlay o -o lowerdir=t/l,upperdir=t/u,workdir=t/w t/m && umount t/m && rm -r t
    """
    host.run(["sh", "-ec", script])


def test_a_command_that_hangs_is_ended_with_its_children(host):
    with pytest.raises(LabError, match="took more than"):
        host.run(["sh", "-c", "sleep 987 & sleep 987"], timeout=0.3)
    assert "987" not in host.run(["ps", "ax", "-o", "args"]).stdout


def test_ssh_between_hosts(lab):
    n2 = lab.host("n2")
    lab.host("n1").write("/tmp/known", f"n2 {n2.host_key}\n")
    out = lab.host("n1").run(["ssh", "-o", "UserKnownHostsFile=/tmp/known", "n2", "hostname"])
    assert out.stdout == "n2\n"
    lab.host("n1").run(["rm", "/tmp/known"])


def test_cut_heal_and_one_way(lab):
    assert reachable(lab, "n1", "n2")
    lab.cut("n2")
    assert cut_off(lab, "n1", "n2")
    assert reachable(lab, "n1", "n3")
    lab.heal("n2")
    assert reachable(lab, "n1", "n2")
    lab.cut("n1", "n2")
    assert cut_off(lab, "n1", "n2")
    assert reachable(lab, "n1", "n3")
    lab.heal("n1")
    lab.cut("n1", one_way=True)
    assert Lab.open(lab.name).drops == lab.drops
    assert cut_off(lab, "n1", "client")
    lab.heal("n1")
    assert reachable(lab, "n1", "client")


def test_power_off_keeps_the_disk_and_nothing_else(fresh_lab):
    lab = fresh_lab(1)
    host = lab.nodes[0]
    boot = host.boot_id
    host.write("/etc/kept", "1")
    host.write("/var/lib/corral/kept", "2")
    host.write("/run/lost", "3")
    host.run(["sh", "-c", "setsid unshare -mp --fork sleep 1000 >/dev/null 2>&1 </dev/null &"])
    lab.power_off("n1")
    assert not cgroups.processes(host.cgroup)
    with pytest.raises(LabError, match="n1 is off"):
        host.run(["true"])
    lab.power_on("n1")
    assert host.boot_id != boot
    assert host.read("/proc/sys/kernel/random/boot_id").strip() == host.boot_id
    assert host.read("/etc/kept") + host.read("/var/lib/corral/kept") == "12"
    assert host.run(["ls", "/run/lost"], check=False).returncode


def test_a_frozen_host_is_frozen_and_can_be_taken_down(fresh_lab):
    lab = fresh_lab(1)
    lab.nodes[0].freeze()
    assert cgroups.frozen(lab.nodes[0].cgroup)
    lab.nodes[0].freeze(frozen=False)
    assert not cgroups.frozen(lab.nodes[0].cgroup)
    lab.nodes[0].freeze()
    lab.down()
    gone(lab.name)


def test_down_leaves_nothing(lab_pool):
    lab = lab_pool.make(2)
    n1 = lab.host("n1")
    n1.run(["sh", "-ec", "mkdir /sys/fs/cgroup/pids/corral; ip netns add x; mount -t tmpfs t /mnt"])
    n1.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &"])
    lab.down()
    gone(lab.name)


@pytest.mark.parametrize("moment", [0.02, 0.06, 0.1, 0.14, 0.18, 0.22, 0.26, 0.3])
def test_up_killed_half_way_is_cleared(moment):
    name = f"killed-{os.getpid()}-{int(moment * 100)}"
    program = f"from orchestrator.lab.lab import Lab; Lab.up({name!r}, 2)"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    down(name)
    gone(name)


def test_two_labs_at_once_do_not_meet(fresh_lab):
    one, two = fresh_lab(1), fresh_lab(2)
    assert one.nodes[0].address == two.nodes[0].address
    assert reachable(two, "n1", "n2")
    assert (
        one.nodes[0]
        .run(["ping", "-c1", "-W1", two.host("n2").address.ipv4], check=False)
        .returncode
    )


def test_the_leak_check_sees_each_kind(host):
    before = leaks.of_host(host)
    make = """
    setsid sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid
    ip link add cr-vxlan type bridge; ip address add 10.99.0.1/24 dev cr-vxlan
    ip route add 10.98.0.0/24 dev lo; ip rule add fwmark 7 table 7
    nft add table inet corral; nft add chain inet corral c
    mkdir -p /run/corral; mount -t tmpfs t /run/corral
    mkdir /sys/fs/cgroup/pids/corral; touch /opt/file
    sysctl -qw net.ipv4.ip_forward=1
    """
    undo = """
    kill $(cat /tmp/pid); rm /tmp/pid /opt/file
    ip link del cr-vxlan; ip route del 10.98.0.0/24; ip rule del fwmark 7
    nft delete table inet corral; umount /run/corral; rmdir /run/corral /sys/fs/cgroup/pids/corral
    sysctl -qw net.ipv4.ip_forward=0
    """
    host.run(["sh", "-ec", make])
    kinds = {
        line.split(" ")[1].rstrip(":") for line in leaks.difference(before, leaks.of_host(host))
    }
    host.run(["sh", "-ec", undo])
    assert kinds >= {
        "processes",
        "links",
        "addresses",
        "routes",
        "rules",
        "nft",
        "mounts",
        "cgroups",
        "files",
        "sysctls",
    }
    left = leaks.settled(lambda: leaks.of_host(host), before)
    assert not left, "\n".join(left)


def test_power_comes_back_before_the_kernel_has_cleared_the_old_network_away(fresh_lab):
    lab = fresh_lab(2)
    with Path(f"/proc/{lab.host('n2').pid}/ns/net").open():  # keeps it, as slow clearing does
        lab.power_off("n2")
        lab.power_on("n2")
        assert reachable(lab, "n1", "n2")
