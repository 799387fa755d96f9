"""A command once: `corral run --rm web true` beside `docker run --rm busybox true`, one at a time.

Wall time of the whole command, from the shell and back, with its network; the daemons run already.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.bench import docker, hosts
from tests.bench.machine import DASH, load, middle, spread, table

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

PART = 1 / 3  # of docker's time, at most
CORRAL_RUN = [hosts.CORRAL, "-f", hosts.FILE, "run", "--rm", "-T", "web", "true"]
DOCKER_RUN = [docker.DOCKER, "run", "--rm", "--network", "bench", "busybox:latest", "true"]


def run(*, runs: int = 5, others: bool = True) -> dict[str, Any]:
    """Measure both, each in a host of its own; the first of each is the warming up."""
    before = load()
    with hosts.lab(1) as lab:
        host = lab.nodes[0]
        hosts.prepare(host)
        found: dict[str, Any] = {"corral": _figures(host, runs, CORRAL_RUN)}
        host.run([hosts.CORRAL, "-f", hosts.FILE, "down", "-t", "0"])
        host.run([hosts.CORRAL, "controller", "stop"], timeout=60)
    if others and docker.installed():
        with hosts.lab(1) as lab, docker.daemon(lab.nodes[0]):
            found["docker"] = _docker(lab.nodes[0], runs)
    found["load"] = (before, load())
    return found


def _docker(host: LabHost, runs: int) -> dict[str, list[float]]:
    with hosts.busybox_archive().open("rb") as file:
        subprocess.run(
            host.argv([docker.DOCKER, "import", "-", "busybox:latest"], docker.ENVIRONMENT),
            stdin=file, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    host.run([docker.DOCKER, "network", "create", "bench"], env=docker.ENVIRONMENT)
    return _figures(host, runs, ["env", *_set(docker.ENVIRONMENT), *DOCKER_RUN])


def _set(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _figures(host: LabHost, runs: int, words: list[str]) -> dict[str, list[float]]:
    used = hosts.cpu(host)
    each = hosts.timed(host, runs + 1, words)[1:]
    return {
        "wall": [one["wall"] for one in each],
        "cpu": [one["cpu"] for one in each],
        "all_cpu": [(hosts.cpu(host) - used) / (runs + 1)],
    }


def report(found: dict[str, Any]) -> str:
    """Write the table."""
    rows = []
    names = {"corral": "corral run --rm web true", "docker": "docker run --rm busybox true"}
    for name, words in names.items():
        each = found.get(name)
        if each is None:
            rows.append((words, "not measured", DASH, DASH))
            continue
        rows.append((words, *(spread(each[key]) for key in ("wall", "cpu", "all_cpu"))))
    return table(("one command", "wall, s", "CPU s of it", "CPU s of the host"), rows)


def verdict(found: dict[str, Any]) -> list[str]:
    """Say whether the goal is missed."""
    if "docker" not in found:
        return []
    ours, theirs = (middle(found[name]["wall"]) for name in ("corral", "docker"))
    if ours <= theirs * PART:
        return []
    return [f"run: {ours:.2f} s, docker run: {theirs:.2f} s; the goal is a third of that"]


if __name__ == "__main__":
    print(report(run()), file=sys.stdout)
