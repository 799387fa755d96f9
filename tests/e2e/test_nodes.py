"""A cluster of three made by commands, as an operator makes it; and taken apart again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import leaks, warm
from tests.lab_fixtures import end_cluster

pytestmark = pytest.mark.real
CHECKOUT = Path(__file__).parents[2]
IDENTITY = "/root/.ssh/id_ed25519"


def node_rows(host):
    out = warm.corral(host, "node", "ls", "--format", "json", check=False).stdout
    return {row["Name"]: {**row, **row["corral"]} for row in map(json.loads, out.splitlines())}


def until(what, condition, timeout=240.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def first(lab):
    """The host that becomes the cluster; ended again, whatever the test did."""
    host = lab.host("n1")
    words = ("controller", "start")
    start = lambda: warm.corral(host, *words, check=False, timeout=240, daemons=True)  # noqa: E731
    until("a controller", lambda: start().returncode == 0)  # which gives up on a busy machine
    yield host
    end_cluster(host)


def add(first, host, *options):
    arguments = (f"root@{host.name}", "-i", IDENTITY, "--host-key", host.fingerprint, *options)
    return first.corral("node", "add", *arguments, timeout=240)


def test_three_machines_become_a_cluster_and_are_left_as_they_were(lab, first):
    n2, n3 = lab.host("n2"), lab.host("n3")
    before = {host.name: leaks.of_host(host) for host in (n2, n3)}
    add(first, n2, "--label", "zone=a")
    add(first, n3, "--name", "third")
    rows = node_rows(first)
    assert {name: row["status"] for name, row in rows.items()} == {
        "n1": "ready",
        "n2": "ready",
        "third": "ready",
    }
    assert rows["n2"]["labels"] == {"zone": "a"}
    assert len({row["version"] for row in rows.values()}) == 1
    first.corral("node", "label", "n2", "zone-", "disk=fast")
    assert node_rows(first)["n2"]["labels"] == {"disk": "fast"}
    first.corral("node", "rm", "n2", "third", timeout=240)
    assert set(node_rows(first)) == {"n1"}
    for host in (n2, n3):
        left = leaks.settled(lambda host=host: leaks.of_host(host), before[host.name])
        assert not left, "\n".join(left)


def test_an_unconfirmed_host_key_is_shown_and_nothing_happens(lab, first):
    done = first.corral("node", "add", "root@n2", "-i", IDENTITY, check=False)
    assert done.returncode == 1
    assert lab.host("n2").fingerprint in done.stderr
    assert "--host-key" in done.stderr
    assert set(node_rows(first)) == {"n1"}


def test_a_refusal_says_what_to_do(lab, first):
    n2 = lab.host("n2")
    n2.run(["sh", "-ec", "mkdir /srv/away; mv /usr/bin/conmon /srv/away"])
    done = first.corral(
        "node", "add", "root@n2", "-i", IDENTITY, "--host-key", n2.fingerprint, check=False
    )
    n2.run(["sh", "-ec", "mv /srv/away/* /usr/bin; rmdir /srv/away"])
    assert done.returncode == 1
    assert "missing on this machine: conmon" in done.stderr
    assert "apt-get install -y conmon" in done.stderr


def test_a_node_that_is_cut_off_or_loses_power_is_named_and_comes_back(lab, first):
    n2 = lab.host("n2")
    add(first, n2)

    def status():
        return node_rows(first)["n2"]["status"]

    lab.cut("n2")
    until("the cut is noticed", lambda: status() != "ready")
    lab.heal("n2")
    until("the healed node is ready", lambda: status() == "ready")
    lab.power_off("n2")
    until("the power cut is noticed", lambda: status() != "ready")
    lab.power_on("n2")
    until("the booted node is ready", lambda: status() == "ready")
    first.corral("node", "rm", "n2", timeout=240)


@pytest.mark.parametrize(
    "moment", [1.2, *(pytest.param(m, marks=pytest.mark.slow) for m in (0.6, 1.8, 2.4, 3.0))]
)
def test_a_controller_killed_while_it_adds_can_add_again(lab, first, moment):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    words = ["corral", "node", "add", "root@n2", "-i", IDENTITY, "--host-key", n2.fingerprint]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with first.popen(words, **quiet) as adding:
        time.sleep(moment)
        # The oldest: what it starts has its words for a moment, and may be gone in the next.
        first.run(["sh", "-c", "kill -9 $(pgrep -o -f '[-]m orchestrator --embedded')"])
        adding.wait(timeout=240)
    until("the controller is back", lambda: "n1" in node_rows(first))
    if "n2" not in node_rows(first):
        add(first, n2)
    until("both are ready", lambda: node_rows(first)["n2"]["status"] == "ready")
    first.corral("node", "rm", "n2", timeout=240)
    left = leaks.settled(lambda: leaks.of_host(n2), before)
    assert not left, "\n".join(left)


@pytest.mark.parametrize(
    "place",
    [
        "node.after_step",
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in ("node.after_login", "node.after_hello", "node.after_record")
        ),
    ],
)
def test_a_controller_killed_at_a_place_while_it_adds_can_add_again(lab, first, place):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    first.run(["mkdir", "-p", "-m", "700", "/root/fp", "/root/fp/controller"])
    first.run(["corral", "controller", "stop"], timeout=240)
    first.run(["env", "CORRAL_FAILPOINTS=/root/fp", "corral", "controller", "start"], timeout=240)
    first.write(f"/root/fp/controller/{place}", "kill 2" if place == "node.after_step" else "kill")
    words = ["corral", "node", "add", "root@n2", "-i", IDENTITY, "--host-key", n2.fingerprint]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with first.popen(words, **quiet) as adding:
        adding.wait(timeout=240)
    hit = first.run(["ls", "/root/fp/controller/hit"]).stdout.split()
    assert hit == [place], "the place is reached"
    until("the controller is back", lambda: "n1" in node_rows(first))
    if "n2" not in node_rows(first):
        add(first, n2)
    until("both are ready", lambda: node_rows(first)["n2"]["status"] == "ready")
    first.corral("node", "rm", "n2", timeout=240)
    first.run(["rm", "-rf", "/root/fp"])
    left = leaks.settled(lambda: leaks.of_host(n2), before)
    assert not left, "\n".join(left)


def test_the_controller_finds_its_nodes_again_after_it_was_killed(lab, first):
    n2 = lab.host("n2")
    add(first, n2)
    pid = first.run(["pgrep", "-o", "-f", "[-]m orchestrator --embedded"]).stdout.strip()
    first.run(["kill", "-9", pid])
    until(
        "the next controller has both",
        lambda: [row["status"] for row in node_rows(first).values()] == ["ready", "ready"],
    )
    first.corral("node", "rm", "n2", timeout=240)


def test_a_new_machine_takes_the_place_of_a_lost_one(lab, first):
    n2, n3 = lab.host("n2"), lab.host("n3")
    before = {host.name: leaks.of_host(host) for host in (n2, n3)}
    add(first, n2, "--label", "zone=a")
    first.corral("volume", "create", "--node", "n2", "app_data")
    words = ("node", "replace", "n2", "root@n3", "-i", IDENTITY, "--host-key", n3.fingerprint)
    done = first.corral(*words, check=False)
    assert done.returncode == 1
    assert "only a lost one is replaced" in done.stderr
    lab.power_off("n2")
    until("the power cut is noticed", lambda: node_rows(first)["n2"]["status"] == "down")
    done = first.corral(*words, timeout=240)
    assert "volume app_data: its data is on the machine that n2 replaces" in done.stderr
    row = node_rows(first)["n2"]
    assert (row["address"], row["labels"], row["status"]) == ("root@n3", {"zone": "a"}, "ready")
    first.corral("volume", "create", "--node", "n2", "app_data")  # the data is lost: empty, then
    first.corral("volume", "rm", "app_data")
    # It comes back after all: nobody of this cluster speaks to it any more.
    lab.power_on("n2")
    started = "test -S /run/corral/agent.sock && echo yes || true"
    until("its agent is back", lambda: n2.run(["sh", "-c", started]).stdout.strip() == "yes")
    assert set(node_rows(first)) == {"n1", "n2"}
    n2.run(["/opt/corral/uninstall", "--purge"])
    first.corral("node", "rm", "n2", timeout=240)
    for host in (n2, n3):
        left = leaks.settled(lambda host=host: leaks.of_host(host), before[host.name])
        assert not left, "\n".join(left)


RUNS = """
name: app
services:
  web:
    image: busybox
    command: [sleep, "100000"]
    stop_grace_period: 1s
    volumes: ["data:/data"]
    deploy: {mode: global, placement: {constraints: ["node.labels.zone == a"]}}
volumes: {data: {}}
"""
# The supervisor, the agent and its name server, all at once: nobody can start another.
KILL = "kill -9 $(pgrep -f '[s]upervisor.py|[-]m agent')"


@pytest.mark.timeout(400)  # two joins, two ends
def test_what_runs_on_a_machine_ends_with_uninstall_whoever_still_serves_there(lab, first):
    healthy, dead = hosts = lab.host("n2"), lab.host("n3")
    before = {host.name: leaks.of_host(host) for host in hosts}
    for host in hosts:
        add(first, host, "--label", "zone=a")
    first.run([sys.executable, str(CHECKOUT / "scripts/base_images.py"), "busybox"], timeout=240)
    first.write("/tmp/app/compose.yaml", RUNS)
    first.run(["sh", "-ec", "cd /tmp/app && corral up -d; rm -r /tmp/app"], timeout=240)
    for host in hosts:
        assert host.run(["pgrep", "-x", "conmon"]).stdout, "a container runs"
    dead.run(["sh", "-c", KILL])
    assert healthy.run(["/opt/corral/uninstall"], timeout=240, check=False).returncode == 0
    volumes = "/var/lib/corral/agent/volumes"
    assert healthy.run(["ls", volumes]).stdout, "named volumes stay"
    healthy.run(["rm", "-rf", "/var/lib/corral/agent"])
    done = dead.run(["/opt/corral/uninstall", "--purge"], timeout=240, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "cannot" not in done.stderr
    for host in hosts:
        left = leaks.settled(lambda host=host: leaks.of_host(host), before[host.name])
        assert not left, "\n".join(left)
