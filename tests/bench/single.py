"""One host: a service of 50 replicas with a network, up and down, beside floor, Docker and Swarm.

corral is the real CLI, controller and agent in a lab host; the floor and the others run in the
same host, one after the other, each with the machine to itself as far as this bench goes.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from tests.bench import docker, hosts
from tests.bench.machine import DASH, load, middle, spread, table

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

REPLICAS = 50
PS_RUNS = 10
TAB = 0.06  # seconds of CPU of one completion
GOALS = {"up": 3.0, "down": 1.5}
# What corral has beyond the containers themselves: these go on when there is none.
DAEMONS = ("controller", "agent", "dns", "supervisor", "dockerd", "containerd")


def run(*, runs: int = 5, replicas: int = REPLICAS, others: bool = True) -> dict[str, Any]:
    """Measure everything about one host."""
    before = load()
    with hosts.lab(1) as lab:
        host = lab.nodes[0]
        hosts.prepare(host)
        found: dict[str, Any] = {
            "replicas": replicas,
            "corral": corral(host, replicas, runs),
            "floor": floor(host, replicas, runs),
        }
        host.run([hosts.CORRAL, "controller", "stop"], timeout=60)
    if others and docker.installed():
        with hosts.lab(1) as lab:  # a host of its own: nothing of corral's nft rules in the way
            found |= docker.run(lab.nodes[0], replicas, max(runs // 2, 1), swarm_runs=1)
    found["load"] = (before, load())
    return found


def corral(host: LabHost, replicas: int, runs: int) -> dict[str, Any]:
    """Up, look, down, again and again; the first round counts like the others."""
    figures: dict[str, Any] = {"up": [], "down": [], "up_cpu": [], "down_cpu": []}
    for _ in range(runs):
        used = hosts.cpu(host)
        figures["up"].append(hosts.deploy(host, replicas))
        up = hosts.cpu(host)
        _check_all_run(host, replicas)
        figures["memory"] = hosts.memory(host)
        again = hosts.cpu(host)
        figures["down"].append(hosts.down(host))
        figures["up_cpu"].append(up - used)
        figures["down_cpu"].append(hosts.cpu(host) - again)
    hosts.deploy(host, replicas)
    ps = hosts.timed(host, PS_RUNS, [hosts.CORRAL, "-p", "bench", "ps"])
    figures["ps"] = {key: [each[key] for each in ps] for key in ("wall", "cpu")}
    tab = [hosts.CORRAL, "__complete", "zsh", "-p", "bench", "ps", ""]
    hosts.timed(host, 1, tab)  # the first Tab after an upgrade reads all parsers
    tabs = hosts.timed(host, PS_RUNS, tab)
    figures["tab"] = {key: [each[key] for each in tabs] for key in ("wall", "cpu")}
    empty = hosts.timed(host, PS_RUNS, [sys.executable, "-I", "-S", "-c", ""])
    figures["python"] = {key: [each[key] for each in empty] for key in ("wall", "cpu")}
    hosts.down(host)
    return figures


def _check_all_run(host: LabHost, replicas: int) -> None:
    """A fast command that did not do its work would be a fine figure."""
    words = [hosts.CORRAL, "-p", "bench", "ps", "--format", "json"]
    rows = [json.loads(line) for line in host.run(words).stdout.splitlines()]
    ready = sum(1 for row in rows if row["ready"])
    sleeping = sum(1 for each in hosts.processes(host) if each["words"] == ["sleep", "1000"])
    if (ready, sleeping) != (replicas, replicas):
        raise RuntimeError(f"up ended with {ready} ready tasks and {sleeping} processes")


def floor(host: LabHost, replicas: int, runs: int) -> dict[str, Any]:
    """Run the floor script on the same disk, in namespaces of its own."""
    figures: dict[str, Any] = {"up": [], "down": [], "cpu": []}
    words = ["unshare", "-n", "-m", sys.executable, "-m", "tests.bench.floor", str(replicas)]
    settings = {"PYTHONPATH": str(hosts.CHECKOUT), "TMPDIR": "/var/lib/corral"}
    for _ in range(runs):
        used = hosts.cpu(host)
        done = json.loads(host.run(words, env=settings, timeout=120).stdout)
        figures["up"].append(done["up_s"])
        figures["down"].append(done["down_s"])
        figures["cpu"].append(hosts.cpu(host) - used)
    return figures


def report(found: dict[str, Any]) -> str:
    """Write the tables."""
    count = found["replicas"]
    names = {
        "corral": "corral up -d / down -t 0",
        "floor": "floor: netns, veth, overlay, conmon, crun",
        "docker": f"docker run -d, {docker.AT_ONCE} at a time / rm -f",
        "swarm": "docker service create / rm (overlay)",
    }
    rows = []
    for name, words in names.items():
        each = found.get(name)
        if each is None or "error" in each:
            rows.append((words, "not measured" if each is None else "failed", *[DASH] * 3))
            continue
        used = "up_cpu" in each
        both = "" if used else f"{middle(each['cpu']):.1f} together"
        rows.append(
            (
                words,
                spread(each["up"]),
                spread(each["down"]),
                spread(each["up_cpu"], 1) if used else both,
                spread(each["down_cpu"], 1) if used else "",
            )
        )
    head = (f"{count} containers", "up, s", "down, s", "CPU s up", "CPU s down")
    parts = [table(head, rows), _memory(found), _ps(found["corral"])]
    return "\n\n".join(parts)


def _memory(found: dict[str, Any]) -> str:
    rows = []
    for name in ("corral", "docker"):
        for kind, entry in sorted((found.get(name) or {}).get("memory", {}).items()):
            each = entry["mib"] / entry["count"]
            rows.append((name, kind, int(entry["count"]), f"{each:.1f}", f"{entry['mib']:.1f}"))
    return table(("", f"PSS with {found['replicas']} up", "number", "MiB each", "MiB"), rows)


def _ps(figures: dict[str, Any]) -> str:
    rows = [
        (words, *(spread([s * 1000 for s in figures[key][part]], 0) for part in ("wall", "cpu")))
        for key, words in (
            ("ps", "corral -p bench ps, 50 rows"),
            ("tab", "a Tab behind corral -p bench ps, with live names"),
            ("python", "python -I -S -c ''"),
        )
        if key in figures
    ]
    return table(("command", "wall, ms", "CPU, ms"), rows)


def verdict(found: dict[str, Any]) -> list[str]:
    """Say which goals are missed."""
    missed = [
        f"{name}: {middle(found['corral'][name]):.2f} s, the goal is {goal:g} s"
        for name, goal in GOALS.items()
        if middle(found["corral"][name]) > goal
    ]
    tab = middle((found["corral"].get("tab") or {}).get("cpu") or [0.0])
    if tab > TAB:
        missed.append(f"a Tab: {tab * 1000:.0f} ms of CPU, the goal is {TAB * 1000:.0f} ms")
    return missed
