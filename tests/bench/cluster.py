"""Three hosts joined over SSH: making them, 60 replicas over them, the control connections."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.bench import hosts
from tests.bench.machine import load, middle, spread, table

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost
    from orchestrator.lab.lab import Lab

NODES, REPLICAS, CONNECTIONS = 3, 60, 100
IDLE_SECONDS = 15.0
IDENTITY = "/root/.ssh/id_ed25519"


def run(*, runs: int = 5, replicas: int = REPLICAS) -> dict[str, Any]:
    """Measure everything about three hosts."""
    before, began = load(), time.monotonic()
    with hosts.lab(NODES) as lab:
        found: dict[str, Any] = {"replicas": replicas, "lab_up": [time.monotonic() - began]}
        first = lab.nodes[0]
        first.run([hosts.CORRAL, "controller", "start"], timeout=90)
        found["node_add"] = [_add(first, host) for host in lab.nodes[1:]]
        script = str(hosts.CHECKOUT / "scripts" / "base_images.py")
        first.run([sys.executable, script, "busybox", "guestbook"], timeout=300)
        found["image"] = _image(lab)
        found["stack"] = _stack(lab, replicas, runs)
        found["ssh"] = _ssh(lab)
        for name in ("n3", "n2"):
            found.setdefault("node_rm", []).append(
                hosts.command(first, [hosts.CORRAL, "node", "rm", name])
            )
        began = time.monotonic()
    found["lab_down"] = [time.monotonic() - began]
    found["load"] = (before, load())
    return found


def _add(first: LabHost, host: LabHost) -> float:
    words = [hosts.CORRAL, "node", "add", f"root@{host.name}", "--identity", IDENTITY]
    return hosts.command(first, [*words, "--host-key", host.fingerprint])


IMAGE = """\
name: big
services:
  one:
    image: corral/debian-base:12
    command: [sleep, "1000"]
    stop_grace_period: 0s
    deploy: {mode: global}
"""


def _image(lab: Lab) -> dict[str, float]:
    """A big image on n1 reaches the two others, at once; each node's CPU."""
    first = lab.nodes[0]
    first.write("/root/big/compose.yaml", IMAGE)
    words = [hosts.CORRAL, "-f", "/root/big/compose.yaml"]
    size = first.run(["du", "-sb", "/var/lib/corral/agent/images/blobs"], check=False).stdout
    used = {host.name: hosts.cpu(host) for host in lab.nodes}
    seconds = hosts.command(first, [*words, "up", "-d"])
    found = {f"cpu_{host.name}": hosts.cpu(host) - used[host.name] for host in lab.nodes}
    again = hosts.command(first, [*words, "down", "-t", "0"])
    return {"up": seconds, "down": again, "bytes": int((size or "0").split()[0]), **found}


def _stack(lab: Lab, replicas: int, runs: int) -> dict[str, Any]:
    first = lab.nodes[0]
    hosts.deploy(first, len(lab.nodes))  # the small image goes to the others
    hosts.down(first)
    figures: dict[str, Any] = {"up": [], "down": [], "up_cpu": [], "down_cpu": []}
    for _ in range(runs):
        used = sum(map(hosts.cpu, lab.nodes))
        figures["up"].append(hosts.deploy(first, replicas))
        up = sum(map(hosts.cpu, lab.nodes))
        words = [hosts.CORRAL, "-p", "bench", "ps", "--format", "json"]
        rows = [json.loads(line) for line in first.run(words).stdout.splitlines()]
        if sum(1 for row in rows if row["ready"]) != replicas:
            raise RuntimeError(f"up ended without {replicas} ready tasks")
        figures["nodes"] = sorted(
            sum(1 for row in rows if row["Node"] == host.name) for host in lab.nodes
        )
        figures["memory"] = {host.name: hosts.memory(host) for host in lab.nodes}
        again = sum(map(hosts.cpu, lab.nodes))
        figures["down"].append(hosts.down(first))
        figures["up_cpu"].append(up - used)
        figures["down_cpu"].append(sum(map(hosts.cpu, lab.nodes)) - again)
    return figures


def _ssh(lab: Lab) -> dict[str, Any]:
    """Hold many connections to the two other nodes' sshds for a while."""
    first = lab.nodes[0]
    nodes = [
        {
            "id": host.name,
            "name": host.name,
            "address": f"root@{host.address.ipv4}",
            "host_key": host.host_key,
        }
        for host in lab.nodes[1:]
    ]
    wanted = {
        "nodes": nodes,
        "count": CONNECTIONS,
        "seconds": IDLE_SECONDS,
        "key": "/var/lib/corral/controller/ssh_key",
    }
    words = [sys.executable, "-m", "tests.bench.ssh_load"]
    settings = {"PYTHONPATH": str(hosts.CHECKOUT)}
    done = first.run(words, stdin=json.dumps(wanted), env=settings, timeout=180)
    return dict(json.loads(done.stdout))


def report(found: dict[str, Any]) -> str:
    """Write the tables."""
    stack, image, ssh = found["stack"], found["image"], found["ssh"]
    rows = [
        (f"lab up, {NODES} hosts", spread(found["lab_up"]), ""),
        ("node add", spread(found["node_add"]), ""),
        (f"up -d, {found['replicas']} replicas", spread(stack["up"]), spread(stack["up_cpu"], 1)),
        ("down -t 0", spread(stack["down"]), spread(stack["down_cpu"], 1)),
        (
            f"first start of an image of {image['bytes'] / 2**20:.0f} MiB on n2 and n3, from n1",
            f"{image['up']:.2f}",
            ", ".join(f"{name} {image[f'cpu_{name}']:.1f}" for name in ("n1", "n2", "n3")),
        ),
        ("node rm", spread(found["node_rm"]), ""),
        ("lab down", spread(found["lab_down"]), ""),
    ]
    parts = [table(("three hosts on this machine", "wall, s", "CPU, s, all hosts"), rows)]
    rows = [
        (host, kind, int(entry["count"]), f"{entry['mib'] / entry['count']:.1f}")
        for host, kinds in sorted(stack["memory"].items())
        for kind, entry in sorted(kinds.items())
    ]
    parts.append(table(("host", f"PSS, {found['replicas']} up", "number", "MiB each"), rows))
    trips = ssh["trip_ms"]
    rows = [
        ("connections to two sshds", f"{ssh['connections']} of {CONNECTIONS}"),
        ("connect, CPU each", f"{ssh['connect_cpu_ms']:.1f} ms"),
        ("memory each", f"{ssh['memory_kib']:.0f} KiB"),
        ("round trip to an agent", f"{middle(trips):.2f} ms (p99 {trips[-3]:.2f})"),
        ("round trip, CPU", f"{ssh['trip_cpu_ms']:.2f} ms"),
        ("heartbeats received", f"{ssh['heartbeats_s']:.0f} /s"),
        ("CPU while idle", f"{ssh['idle_percent']:.1f} % of one core"),
    ]
    parts.append(table(("control connections of the controller", ""), rows))
    return "\n\n".join(parts)
