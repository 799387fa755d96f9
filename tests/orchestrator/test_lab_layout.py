"""The lab's pure parts: names, addresses, faults, cgroup hierarchies."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from orchestrator.lab import cgroups, faults, init
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
