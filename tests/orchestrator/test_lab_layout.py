"""The lab's pure parts: names, addresses, faults, cgroup hierarchies."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time

import pytest

from orchestrator.lab import cgroups, faults, init, killing
from orchestrator.lab.cli import main
from orchestrator.lab.layout import LabError, Layout, addresses

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 / /mnt/again rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_hierarchies_of_a_hybrid_machine():
    found = cgroups.parse(HYBRID)
    assert [(h.mount.name, h.options, h.v2) for h in found] == [
        ("cpu,cpuacct", "cpu,cpuacct", False),
        ("systemd", "none,name=systemd", False),
        ("unified", "", True),
    ]
    assert not any(h.whole for h in found)


def test_the_hierarchy_of_a_v2_machine():
    (found,) = cgroups.parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
    assert found.whole


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "-a", "a" * 42, "a b"])
def test_names_that_could_not_be_paths_are_refused(name):
    with pytest.raises(LabError, match="lower-case"):
        Layout.of(name)


def test_addresses_are_distinct_up_to_the_largest_lab():
    hosts = addresses(150)
    assert len({a.ipv4 for a in hosts}) == len({a.mac for a in hosts}) == 151
    assert hosts[0].ipv4 == "10.77.0.11"
    assert hosts[-1].host == "client"


def test_a_cut_drops_both_ways_and_one_way_only_what_is_sent():
    assert 'iifname "n1" drop' in faults.table(faults.cut("n1"))
    assert 'oifname "n1" drop' in faults.table(faults.cut("n1"))
    one_way = faults.table(faults.cut("n1", one_way=True))
    assert "oifname" not in one_way
    between = faults.table(faults.cut("n1", "n2"))
    assert 'iifname "n1" oifname "n2" drop' in between
    assert 'iifname "n2" oifname "n1" drop' in between
    assert "numgen random mod 100 < 20 drop" in faults.table({faults.Drop("n1", "", 20)})


def test_healing_a_host_ends_every_fault_about_it():
    drops = faults.cut("n1", "n2") | faults.cut("n3")
    assert {d for d in drops if not d.about("n2")} == faults.cut("n3")


def test_the_command_line_names_what_is_wrong(capsys):
    assert main(["status", "--name", "no-such-lab"]) == 1
    assert "lab no-such-lab does not exist" in capsys.readouterr().err
    assert main(["up", "--nodes", "0"]) == 1
    assert "a lab has 1 to 150" in capsys.readouterr().err
    assert main(["down", "--name", "no-such-lab"]) == 0


def nobody() -> int:
    """Return the pid of a child that lives until it is ended."""
    return os.posix_spawn("/bin/sleep", ["sleep", "600"], {})


@pytest.mark.parametrize(
    ("listens", "lives", "seen"),
    [
        pytest.param("before", True, True, id="listens already"),
        pytest.param("later", True, True, id="listens in a moment"),
        pytest.param("", True, False, id="never listens"),
        pytest.param("", False, False, id="has ended"),
        pytest.param("before", False, True, id="another one listens"),
        pytest.param("bound", True, False, id="has the port and does not listen"),
    ],
)
def test_a_host_stands_when_its_sshd_listens(listens, lives, seen):
    pid = nobody()
    if not lives:
        os.kill(pid, signal.SIGKILL)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
        later = threading.Timer(0.1, door.listen)
        if listens == "before":
            door.listen()
        elif listens == "later":
            later.start()
        patience = 60.0 if seen or not lives else 0.2
        began = time.monotonic()
        assert init.await_listener(port, pid, patience, ("tcp",)) is seen
        if not seen and lives:
            assert time.monotonic() - began >= 0.2
        later.cancel()
        if later.ident is not None:
            later.join()
    if lives:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # it was not taken from whoever waits for it


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fault slow n1 --rate 4", "use 8 to"),
        ("fault slow n1 --queue 20000", "use 1 to"),
        ("fault loss n1 --percent 101", "use 1 to 100"),
        ("fault loss n1 --percent 0", "use 1 to 100"),
        ("fault loss n1 --percent -1", "use 1 to 100"),
        ("fault mtu n1 --mtu 1500", "use 576 to 1499"),
        ("fault clock n1", "say how far off"),
        ("fault clock n1 --seconds 0", "or negative"),
        ("fault clock n1 --seconds 99999999999", "or negative"),
        ("fault kill n1", "say what: agent, controller"),
        ("fault cut n1 --mtu 1300", "--mtu is for mtu, not for cut"),
        ("fault cut n1 agent", "a process is for kill, not for cut"),
        ("fault heal n1 --one-way", "--one-way is for cut and loss, not for heal"),
        ("fault slow n9", "has no host 'n9'; it has n1, client"),
        ("fault disk-full n1", "no disk of its own to fill: corral lab up --disk MIB"),
        ("up --disk 1", "use at least 64"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_what_can(
    monkeypatch, tmp_path, capsys, words, said
):
    monkeypatch.setattr("orchestrator.lab.layout.base", lambda: tmp_path)
    layout = Layout.of("pure")
    layout.root.mkdir()
    hosts = [vars(a) for a in addresses(1)]
    layout.record.write_text(json.dumps({"hosts": hosts, "drops": [], "owner": ""}))
    assert main([*words.split(), "--name", "pure"]) == 1
    assert said in capsys.readouterr().err
    assert json.loads(layout.record.read_text())["drops"] == []


def test_every_fault_comes_back_from_the_record():
    found = {
        faults.Drop("n1", "n2", 20),
        faults.Slow("n1", 64, 100),
        faults.SmallMtu("n2", 1280, silent=True),
        faults.WrongClock("n3", -3600),
        faults.FullDisk("n3"),
    }
    assert {fault.kind for fault in found} == set(faults.KINDS)
    record = json.loads(json.dumps(faults.record(found)))
    assert faults.recorded(record) == found
    assert faults.recorded({"drops": record["drops"]}) == {faults.Drop("n1", "n2", 20)}
    assert all(fault.about("n1") or fault.about("n2") or fault.about("n3") for fault in found)


def test_packets_that_are_too_large_vanish_or_go_to_the_router():
    hosts = addresses(2)
    silent = faults.table({faults.SmallMtu("n1", 1280, silent=True)}, hosts, "02:77:00:00:00:fe")
    assert 'iifname "n1" ip length > 1280 drop' in silent
    assert "ether daddr 02:77:00:00:00:0b ip6 length > 1240 drop" in silent
    told = {faults.SmallMtu("n1", 1280), *faults.cut("n1", "n2")}
    lines = faults.table(told, hosts, "02:77:00:00:00:fe").splitlines()
    # What is cut stays cut: the router's way does not pass the rules between two ports.
    cut = 'iifname "n1" iifname "n1" ether daddr 02:77:00:00:00:0c ip length > 1280 drop'
    way = 'iifname "n1" ip length > 1280 ether daddr set 02:77:00:00:00:fe meta pkttype set host'
    assert lines.index(cut) < lines.index(way)


def test_of_two_small_mtus_the_smaller_one_counts():
    n1, n2 = addresses(2, client=False)
    small = faults.routes(faults.SmallMtu("n1", 1280), n1)[0]
    large = faults.routes(faults.SmallMtu("n2", 1400), n2)[0]
    preference = lambda lines: {int(line.split()[3]) for line in lines if "rule" in line}  # noqa: E731 - two uses
    assert preference(small) < preference(large) or max(preference(small)) < min(preference(large))
    assert faults.undone(small)[0].startswith("rule delete pref 1280 from 10.77.0.11 ")


PYTHON = "/usr/bin/python3"


def process(pid: int, parent: int, *words: str) -> killing.HostProcess:
    made = object.__new__(killing.HostProcess)
    made.pid, made.parent, made.words = pid, parent, [*words, ""]
    return made


RUNNING = [
    process(10, 1, PYTHON, "-I", "/x/supervisor.py"),
    process(11, 10, PYTHON, "-m", "agent"),
    process(12, 11, PYTHON, "-m", "agent"),  # a child that has no words of its own yet
    process(13, 10, PYTHON, "-m", "orchestrator", "--embedded"),
    process(14, 11, PYTHON, "-m", "agent.dns"),
    process(20, 1, "/usr/bin/conmon", "-n", "app-web-1"),
    process(21, 20, "nginx"),
    process(22, 21, "nginx"),
    process(30, 1, "/usr/bin/conmon", "-n", "app-db-1"),
    process(31, 30, "redis", "app-web"),
]


@pytest.mark.parametrize(
    ("what", "word", "pids"),
    [
        ("agent", "", [11]),
        ("controller", "", [13]),
        ("dns", "", [14]),
        ("supervisor", "", [10]),
        ("conmon", "", [20]),
        ("conmon", "app-db", [30]),
        ("task", "", [21]),
        ("task", "app-db", [31]),
        ("task", "redis", []),  # a monitor's word is meant
        ("conmon", "nothing", []),
    ],
)
def test_what_a_name_means_among_a_hosts_processes(what, word, pids):
    assert killing.meant(what, word, RUNNING) == pids
