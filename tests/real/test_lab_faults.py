"""What ``corral lab fault`` breaks is broken on the real kernel, listed, and whole when healed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.lab.cli import FAULTS, main
from orchestrator.lab.host import kill_tree
from orchestrator.lab.layout import LabError, Layout
from tests.real.test_lab import gone, reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.lab.host import LabHost
    from orchestrator.lab.lab import Lab

pytestmark = pytest.mark.real

TAKE = """
import socket
with socket.create_server(("", 99)) as door:
    print("ready", flush=True)
    link, _ = door.accept()
    got = 0
    while data := link.recv(65536):
        got += len(data)
    print(got, flush=True)
"""
GIVE = """
import socket, sys
with socket.create_connection((sys.argv[1], 99), 60) as link:
    link.sendall(bytes(int(sys.argv[2])))
    link.shutdown(socket.SHUT_WR)
    link.recv(1)  # until the other side has it all: what is sent may wait in a buffer of ours
"""


def say(lab: Lab, *words: str) -> None:
    """Type ``corral lab fault``."""
    assert main(["fault", "--name", lab.name, *words]) == 0
    lab._faults = type(lab).open(lab.name).inflicted


def listed(lab: Lab, host: str, capsys: Any) -> str:
    """Return what status says of a host's faults, the same in both formats."""
    capsys.readouterr()
    assert main(["status", "--name", lab.name, "--format", "json"]) == 0
    (row,) = [r for r in json.loads(capsys.readouterr().out)["hosts"] if r["host"] == host]
    assert main(["status", "--name", lab.name]) == 0
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.split()[0] == host and line.split()[2] in ("on", "off")
    ]
    told = line.split(maxsplit=3)[3]
    assert (told == "-") == (row["faults"] == []), (told, row)
    return told


@contextmanager
def taking(host: LabHost) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-I", "-c", TAKE]
    with host.popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            kill_tree(process.pid)


def transfer(lab: Lab, source: str, target: str, size: int, *, patience: float = 60.0) -> float:
    """Send so many bytes; return the seconds until all are there. Raises LabError: never."""
    with taking(lab.host(target)) as process:
        began = time.monotonic()
        words = [sys.executable, "-I", "-c", GIVE, lab.host(target).address.ipv4, str(size)]
        lab.host(source).run(words, timeout=patience)
        assert process.stdout is not None
        assert process.stdout.readline() == f"{size}\n"
        return time.monotonic() - began


def pinged(lab: Lab, source: str, target: str, size: int, how: str = "do", count: int = 1) -> str:
    """Send pings of IP packets of ``size`` bytes and return what ping says."""
    words = ["ping", "-c", str(count), "-i", "0.02", "-W", "2", "-M", how, "-s", str(size - 28)]
    address = lab.host(target).address.ipv4
    return str(lab.host(source).run([*words, address], check=False, timeout=60).stdout)


def answered(lab: Lab, source: str, target: str, size: int, how: str = "do") -> bool:
    """Ask until an answer comes, a few times: a busy machine is slow to answer."""
    return any(" 1 received" in pinged(lab, source, target, size, how) for _ in range(3))


def test_a_slow_link_is_slow_both_ways_also_after_power_and_quick_when_healed(lab, capsys):
    size = 250_000  # two seconds of a megabit, less what fits into queues
    say(lab, "slow", "n2", "--rate", "1000", "--queue", "300")
    assert listed(lab, "n2", capsys) == "1000 kbit/s each way, a queue of 300 ms"
    assert transfer(lab, "n1", "n2", size) > 1.0
    assert transfer(lab, "n2", "n1", size) > 1.0
    lab.power_off("n2")
    lab.power_on("n2")
    assert transfer(lab, "n1", "n2", size) > 1.0
    assert transfer(lab, "n2", "n1", size) > 1.0
    say(lab, "slow", "n2", "--rate", "2000")  # in the place of the former
    assert listed(lab, "n2", capsys) == "2000 kbit/s each way, a queue of 400 ms"
    say(lab, "heal", "n2")
    assert listed(lab, "n2", capsys) == "-"
    for space, device in (
        (lab.layout.switch, "n2"),
        (f"/proc/{lab.host('n2').pid}/ns/net", "eth0"),
    ):
        words = ["nsenter", f"--net={space}", "tc", "qdisc", "show", "dev", device]
        assert "tbf" not in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_loss_loses_some_both_ways_or_one_way_and_heals(lab, capsys):
    def lost(source: str, target: str) -> int:
        out = pinged(lab, source, target, 100, count=200)
        (received,) = re.findall(r"(\d+) received", out)
        return 200 - int(received)

    say(lab, "loss", "n2", "--percent", "30")  # of each way: about half of the echoes
    assert listed(lab, "n2", capsys) == "any -> n2 loses 30 %, n2 -> any loses 30 %"
    assert 40 < lost("n1", "n2") < 180
    assert 40 < lost("n2", "client") < 180
    say(lab, "heal", "n2")
    assert lost("n1", "n2") < 20
    say(lab, "loss", "n2", "--percent", "50", "--peer", "n3", "--one-way")
    assert listed(lab, "n3", capsys) == "n2 -> n3 loses 50 %"
    assert 40 < lost("n2", "n3") < 180
    assert lost("n2", "n1") < 20
    say(lab, "heal", "n3")
    assert listed(lab, "n2", capsys) == "-"


@pytest.mark.parametrize("ways", [("n1", "n2"), ("n2", "n1"), ("client", "n2"), ("n2", "client")])
def test_a_router_says_that_a_packet_is_too_large(lab, capsys, ways):
    say(lab, "mtu", "n2", "--mtu", "1300")
    assert listed(lab, "n2", capsys) == 'a path of 1300 bytes, says "fragmentation needed"'
    assert "mtu = 1300" in pinged(lab, *ways, 1400)
    assert answered(lab, *ways, 1300)
    assert answered(lab, *ways, 1400, "dont")  # split on the way
    transfer(lab, *ways, 3_000_000)
    assert answered(lab, "n1", "n3", 1500)
    say(lab, "heal", "n2")
    for host in lab.hosts.values():
        host.run(["ip", "route", "flush", "cache"])
    assert answered(lab, *ways, 1500)
    rules = ["nsenter", f"--net={lab.layout.switch}", "ip", "rule"]
    shown = subprocess.run(rules, capture_output=True, text=True, check=True).stdout
    assert len(shown.splitlines()) == 3


@pytest.mark.parametrize("ways", [("n1", "n2"), ("n2", "n1")])
def test_a_black_hole_swallows_what_is_too_large(lab, capsys, ways):
    say(lab, "mtu", "n2", "--mtu", "1300", "--silent")
    assert listed(lab, "n2", capsys) == "a path of 1300 bytes, without a word"
    assert answered(lab, *ways, 1300)
    for how in ("do", "dont"):
        out = pinged(lab, *ways, 1301, how)
        assert "mtu = " not in out
        assert " 0 received" in out
    # No larger packet hides what is small on the wire, and none lets through what is not.
    with pytest.raises(LabError, match="took more than"):
        transfer(lab, *ways, 300_000, patience=6.0)
    lab.power_off("n1")
    lab.power_on("n1")  # and so it is for a host that boots meanwhile
    with pytest.raises(LabError, match="took more than"):
        transfer(lab, *ways, 300_000, patience=6.0)
    say(lab, "heal", "n2")
    transfer(lab, *ways, 3_000_000)
    for host in lab.hosts.values():
        assert "tcp-segmentation-offload: on" in host.run(["ethtool", "-k", "eth0"]).stdout


def test_what_is_cut_stays_cut_for_what_a_router_looks_at(lab):
    say(lab, "mtu", "n2", "--mtu", "1300")
    say(lab, "cut", "n1", "--peer", "n2")
    assert " 0 received" in pinged(lab, "n1", "n2", 1400, "dont")
    assert answered(lab, "n3", "n2", 1400, "dont")
    say(lab, "heal", "n2")
    assert reachable(lab, "n1", "n2")


SLEEPS = "import time\nwhile True: time.sleep(100)"
SET_UP = """
mkdir -p /tmp/fake/agent && cd /tmp/fake
cat > agent/__main__.py
cp agent/__main__.py supervisor.py; cp agent/__main__.py orchestrator.py
cp agent/__main__.py agent/dns.py; ln -sf /bin/sh conmon
setsid python3 -m agent </dev/null >/dev/null 2>&1 &
setsid python3 -m orchestrator --embedded </dev/null >/dev/null 2>&1 &
setsid python3 -m agent.dns </dev/null >/dev/null 2>&1 &
setsid python3 /tmp/fake/supervisor.py </dev/null >/dev/null 2>&1 &
for task in one two; do
  setsid ./conmon -c 'sleep 1001; exit' -n $task </dev/null >/dev/null 2>&1 &
done
"""


@pytest.mark.parametrize(
    ("words", "ended"),
    [
        ("agent", "-m agent"),
        ("controller", "-m orchestrator"),
        ("dns", "-m agent.dns"),
        ("supervisor", "supervisor.py"),
        ("conmon --word two", "conmon -n two"),
        ("task --word one", "sleep of one"),
    ],
)
def test_a_kill_ends_what_is_named_and_nothing_else(fresh_lab, capsys, words, ended):
    lab = fresh_lab(2)
    for host in lab.nodes:
        host.run(["sh", "-ec", SET_UP], stdin=SLEEPS)
    before = {host.name: running(host, 8) for host in lab.nodes}
    say(lab, "kill", "n1", *words.split())
    assert f"killed on n1: 1 {words.split()[0]}" in capsys.readouterr().out
    gone_now = before["n1"] - running(lab.host("n1"), 0)
    assert ended in gone_now
    # A monitor that is a shell ends with its child, which is a stranger's without it.
    beside = {"conmon -n one"} if "task" in words else {"sleep of two"}
    assert gone_now <= {ended, *beside}, gone_now
    assert running(lab.host("n2"), 0) == before["n2"]
    assert listed(lab, "n1", capsys) == "-"
    assert main(["fault", "--name", lab.name, "kill", "n1", "conmon", "--word", "none"]) == 1
    assert "no conmon with 'none' runs there" in capsys.readouterr().err


def running(host: LabHost, count: int) -> set[str]:
    """Return the stand-ins that run, by name, once there are so many."""
    deadline = time.monotonic() + 60
    while True:
        found = set()
        lines = host.run(["ps", "ax", "-o", "pid=,ppid=,args="]).stdout.splitlines()
        split = [line.split(maxsplit=2) for line in lines]
        names = {pid: args for pid, _, args in split}
        for _, parent, args in split:
            for word in ("-m agent.dns", "-m agent", "-m orchestrator", "supervisor.py"):
                if word in args and "setsid" not in args:
                    found.add(word)
                    break
            if "conmon -c" in args and "setsid" not in args:
                found.add(f"conmon -n {args.split()[-1]}")
            if args == "sleep 1001":
                found.add(f"sleep of {names.get(parent, '? none').split()[-1]}")
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_full_disk_is_one_hosts_own(lab_pool, capsys):
    name = f"disk-{time.monotonic_ns()}"
    assert main(["up", "--name", name, "--nodes", "2", "--disk", "64"]) == 0
    lab = type(lab_pool.get(1, client=False)).open(name)
    write = ["sh", "-c", "head -c 200000 /dev/zero > /var/lib/corral/more; echo $?; sync"]
    try:
        lab.host("n2").write("/var/lib/corral/kept", "kept")
        say(lab, "disk-full", "n2")
        assert listed(lab, "n2", capsys) == "a full disk"
        assert "No space left" in lab.host("n2").run(write).stderr
        assert lab.host("n1").run(write).stdout == "0\n"
        lab.power_off("n2")
        lab.power_on("n2")
        assert "No space left" in lab.host("n2").run(write).stderr
        say(lab, "heal", "n2")
        assert listed(lab, "n2", capsys) == "-"
        assert lab.host("n2").run(write).stdout == "0\n"
        assert lab.host("n2").read("/var/lib/corral/kept") == "kept"
        say(lab, "disk-full", "n1")
    finally:
        assert main(["down", "--name", name]) == 0
    gone(name)
    devices = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert str(Layout.of(name).disks) not in devices


NOW = "import time; print(int(time.time()), time.time_ns() // 10**9, int(time.clock_gettime(0)))"


@pytest.mark.parametrize("seconds", [-86400 * 400, 3600])
def test_a_clock_is_wrong_from_power_on_and_right_when_healed(fresh_lab, capsys, seconds):
    lab = fresh_lab(2)
    n1 = lab.host("n1")

    def off(python: str = sys.executable) -> set[int]:
        """Return how many hours the clock is off, by each of Python's ways to ask."""
        shown = n1.run([python, "-I", "-c", NOW]).stdout.split()
        return {round((int(word) - time.time()) / 3600) for word in shown}

    sleep = "import time; a = time.monotonic(); time.sleep(0.2); print(time.monotonic() - a)"
    say(lab, "clock", "n1", "--seconds", str(seconds))
    assert listed(lab, "n1", capsys) == f"a clock {seconds:+d} s off, from power-on"
    assert off() == {0}
    lab.power_off("n1")
    lab.power_on("n1")
    assert off() == off("python3") == {round(seconds / 3600)}
    assert 0.2 <= float(n1.run([sys.executable, "-c", sleep]).stdout) < 60
    assert lab.host("n2").run([sys.executable, "-c", NOW]).stdout.split()[0][:6] in str(time.time())
    say(lab, "heal", "n1")  # as a time server that is reached at last
    assert off() == {0}
    assert listed(lab, "n1", capsys) == "-"
    lab.power_off("n1")
    lab.power_on("n1")
    assert off() == {0}
    assert "lab-clock" not in n1.read("/proc/mounts")


def test_every_kind_of_fault_is_tested_here_or_with_the_lab():
    text = Path(__file__).read_text() + Path(__file__).with_name("test_lab.py").read_text()
    words = {"poweroff": "power_off(", "poweron": "power_on(", "thaw": "freeze(frozen=False)"}
    words |= {"freeze": ".freeze()"}
    assert [kind for kind in FAULTS if words.get(kind, f'"{kind}"') not in text] == []
