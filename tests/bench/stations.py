"""Where the time of one `corral run --rm` goes, station by station.

    python -m tests.bench.stations [RUNS]     by hand; a quarter of a minute

CALLS are wrapped in the command, the controller and the agent of a lab host (traced/), which all
use the same clock. Of the run whose whole time was the middle one it prints when each station
began and ended, in ms since the command was started; it costs the run about 3 ms.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import hosts
from tests.bench.once import CORRAL_RUN

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

INTO = "/root/bench/stations"
CALLS = {
    "orchestrator.cli.main": ["main", "dispatch"],
    "orchestrator.cli.project": ["with_profiles_of"],
    "orchestrator.cli.commands.run": ["run", "_request", "_make", "_attached"],
    "orchestrator.cli.commands.attach": ["Attached._open", "Attached._until_attached"],
    "orchestrator.control.control": [
        "ControlLoop.start_oneoff",
        "ControlLoop._pass",
        "ControlLoop.ingest",
        "ControlLoop._take_some",
        "ControlLoop.wanted",
    ],
    "orchestrator.control.deploy.commands": ["Commands.examine_oneoff", "Commands.start_oneoff"],
    "orchestrator.control.deploy.images": ["ReleaseImages.images"],
    "orchestrator.control.mirror.draft": ["Draft.commit"],
    "orchestrator.dispatch.agent": ["AgentClient.instruct"],
    "orchestrator.store.sqlite": ["SqliteStore.txn"],
    "agent.tasks.worker": ["Worker.accept"],
    "agent.tasks.journal": ["Journal.accept", "Journal.put", "Journal.forget"],
    "agent.tasks.networking": ["NetworkKeeper.apply", "NetworkKeeper.settled"],
    "agent.tasks.preparation": [
        "Preparation.prepare",
        "Preparation._make_root",
        "Preparation._network",
        "Preparation._bundle",
        "Preparation.tidy",
        "Preparation.erase",
    ],
    "agent.tasks.runner": ["Runner._launch", "Runner._heard", "Runner._start", "Runner._observe"],
    "agent.images.store": ["ImageStore.ensure", "ImageStore.mount", "ImageStore.unmount"],
    "agent.network.node": [
        "NodeNetwork._put_right",
        "NodeNetwork.attach",
        "NodeNetwork._publish_names",
        "NodeNetwork.detach",
        "NodeNetwork._hold",
    ],
    "agent.network.filtering": ["PacketFilter.apply"],
    "agent.network.nft": ["run"],
    "agent.network.attach": ["attach", "detach", "unsent", "resolver_sockets"],
    "agent.runtime.containers": [
        "OciContainers.create",
        "OciContainers.start",
        "OciContainers.clear",
        "OciContainers.erase",
        "OciContainers.follow",
    ],
    "agent.runtime.spawner": ["Spawner.spawn"],
    "agent.tasks.reports": ["Reports.changed"],
}


def measure(runs: int) -> list[tuple[dict[str, float], list[str]]]:
    """Return of each run its figures (as hosts.timed) and its lines, the clock first."""
    settings = {
        "PYTHONPATH": str(Path(__file__).with_name("traced")),
        "CORRAL_BENCH_INTO": INTO,
        "CORRAL_BENCH_CALLS": json.dumps(CALLS),
    }
    found = []
    with hosts.lab(1) as lab:
        host = lab.nodes[0]
        host.write(INTO, "")
        host.run([hosts.CORRAL, "controller", "start"], env=settings, timeout=90)
        hosts.prepare(host)
        for number in range(runs + 1):
            figures, lines = _one(host, settings)
            if number:
                found.append((figures, lines))
    return found


def _one(host: LabHost, settings: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    host.write(INTO, "")
    words = ["env", *(f"{name}={value}" for name, value in settings.items())]
    figures = hosts.timed(host, 1, [*words, *CORRAL_RUN])[0]
    host.run(["sleep", "0.7"])  # what goes on behind the end of the command
    return figures, host.run(["cat", INTO]).stdout.splitlines()


def report(figures: dict[str, float], lines: list[str]) -> str:
    """Return the stations in the order they began, in ms since the first."""
    rows: list[list[Any]] = []
    begun: dict[tuple[str, str], list[list[Any]]] = {}
    zero, end = figures["began"], figures["began"] + figures["wall"]
    processes: dict[str, int] = {}
    for line in sorted(lines, key=lambda line: int(line.split()[0])):
        when, pid, name, sign = line.split()
        at = (int(when) / 1e9 - zero) * 1000
        processes.setdefault(pid, len(processes))
        if sign == "+":
            row = [at, None, processes[pid], name.replace(":", " ")]
            rows.append(row)
            begun.setdefault((pid, name), []).append(row)
        elif begun.get((pid, name)):
            begun[pid, name].pop()[1] = at
    rows.append([(end - zero) * 1000, None, "", "the command has ended"])
    texts = []
    for began, ended, process, name in sorted(rows, key=lambda row: row[0]):
        took = "" if ended is None else f"{ended - began:8.1f}"
        texts.append(f"{began:8.1f} {took:>8}  {process!s:2} {name}")
    return "\n".join(["   began     took", *texts])


if __name__ == "__main__":
    all_of_them = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    all_of_them.sort(key=lambda one: one[0]["wall"])
    print(*(f"{one[0]['wall'] * 1000:.0f}" for one in all_of_them), "ms")
    print(report(*all_of_them[len(all_of_them) // 2]))
