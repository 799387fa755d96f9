"""A cluster of three nodes and a stranger, and a single node; each leaves no trace."""

import subprocess
import time

import pytest

from tests.real.network.hosts import Lab
from tests.real.network.states import Cluster, vip

NODES = {"n1": "10.77.0.1", "n2": "10.77.0.2", "n3": "10.77.0.3"}
STRANGER = "10.77.0.9"


def remains(host):
    """What a node has beyond a fresh machine."""
    lines = []
    for command in ("ip -br link", "ip -4 route show table all", "ip rule", "nft list tables"):
        text = host.sh(*command.split())
        lines += [f"{command}: {line}" for line in text.splitlines() if is_ours(line)]
    mounts = subprocess.run(
        ["nsenter", "-t", str(host.pid), "-m", "cat", "/proc/self/mountinfo"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines += [line for line in mounts.splitlines() if str(host.dir) in line]
    lines += [f"process {pid}" for pid in processes_of(host)]
    return lines


def left_on(host):
    """What stays there; the end of an adopted resolver, nobody's child, takes a moment."""
    deadline = time.monotonic() + 60
    while (left := remains(host)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def is_ours(line):
    return "cr-" in line or "corral" in line or "proto 98" in line or "blackhole" in line


def processes_of(host):
    pattern = f"agent.dns {host.dir}"
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.fixture(scope="module")
def cluster():
    """Three nodes; on the first two a task of one network and one of two, and a client apart."""
    lab = Lab()
    try:
        hosts = {name: lab.host(name, address) for name, address in NODES.items()}
        stranger = lab.host("stranger", STRANGER, worker=False)
        made = Cluster(NODES)
        made.hosts, made.lab, made.stranger = hosts, lab, stranger
        made.front = {}
        for node in ("n1", "n2"):
            made.task(f"one-{node}", node, ["net-a"], number=2)
            made.task(f"two-{node}", node, ["net-a", "net-b"], number=3)
            made.task(f"apart-{node}", node, ["net-b"], number=4)
        for place, task in enumerate(("one-n1", "two-n1", "one-n2", "two-n2")):
            front, port = vip("net-a", 2 + place), 8000 + place
            ports = [{"target": 80, "published": port, "protocol": p} for p in ("tcp", "udp")]
            made.service(task, "net-a", [task], vip=front, ports=ports)
            made.front[task] = (front, port)
        made.push(hosts)
        for task in made.tasks:
            lab.serve(made.netns(task), task)
        yield made
        for host in hosts.values():
            host.call("leave")
        left = {name: left_on(host) for name, host in hosts.items()}
        assert not any(left.values()), left
    finally:
        lab.close()


class Bench:
    """A lab of one node and a stranger, used by test after test as long as it stays clean."""

    def __init__(self):
        self.lab = None

    def get(self):
        if self.lab is None:
            self.lab = Lab()
            self.host = self.lab.host("n1", NODES["n1"])
            self.stranger = self.lab.host("stranger", STRANGER, worker=False)
            self.fresh = self.look()
        return self

    def look(self):
        return [
            (host.sh("ip", "-4", "-br", "addr"), host.sh("ip", "-4", "route"))
            for host in self.both()
        ]

    def both(self):
        return self.host, self.stranger

    def clean_up(self):
        """After a test: nothing of ours may be left; what the test itself changed costs the lab."""
        self.lab.close_servers()
        if self.host.worker.poll() is not None:
            self.close()
            return
        self.host.call("leave")
        left = left_on(self.host)
        if left or self.look() != self.fresh:
            self.close()
        assert not left, left

    def close(self):
        if self.lab is not None:
            self.lab.close()
        self.lab = None


@pytest.fixture(scope="module")
def bench():
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def single(bench):
    """One node outside any overlay, nothing on it yet, and a stranger beside it."""
    bench.get()
    made = Cluster({"n1": NODES["n1"]}, overlay=False)
    made.lab, made.host, made.stranger = bench.lab, bench.host, bench.stranger
    made.hosts = {"n1": bench.host}
    bench.host.attached.clear()
    bench.host.call("watch", on=True)
    yield made
    bench.clean_up()
