"""A command once: `corral run --rm web true` beside `docker run --rm busybox true`, one at a time.

Wall time of the whole command, from the shell and back, with its network; the daemons run already.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.bench import docker, hosts
from tests.bench.machine import DASH, load, middle, spread, table

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

PART = 1 / 3  # of docker's time, at most
REST = 0.5  # seconds for what goes on behind the end of a command
CORRAL_RUN = [hosts.CORRAL, "-f", hosts.FILE, "run", "--rm", "-T", "web", "true"]
DOCKER_RUN = [docker.DOCKER, "run", "--rm", "--network", "bench", "busybox:latest", "true"]


def run(*, runs: int = 5, others: bool = True) -> dict[str, Any]:
    """Measure both, each in a host of its own, in turns: what else is going on meets both alike.

    The first of each is the warming up.
    """
    before = load()
    with hosts.lab(2) as lab, contextlib.ExitStack() as stack:
        ours, theirs = lab.nodes[:2]
        hosts.prepare(ours)
        commands = {"corral": (ours, CORRAL_RUN)}
        if others and docker.installed():
            stack.enter_context(docker.daemon(theirs))
            _prepare(theirs)
            words = ["env", *(f"{name}={value}" for name, value in docker.ENVIRONMENT.items())]
            commands["docker"] = theirs, [*words, *DOCKER_RUN]
        found: dict[str, Any] = {name: {"wall": [], "cpu": [], "all_cpu": []} for name in commands}
        for number in range(2 * runs + 1):
            for name, (host, words) in commands.items():
                used = hosts.cpu(host)
                one = hosts.timed(host, 1, words)[0]
                time.sleep(REST)
                if number:
                    found[name]["wall"].append(one["wall"])
                    found[name]["cpu"].append(one["cpu"])
                    found[name]["all_cpu"].append(hosts.cpu(host) - used)
    found["load"] = (before, load())
    return found


def _prepare(host: LabHost) -> None:
    with hosts.busybox_archive().open("rb") as file:
        subprocess.run(
            host.argv([docker.DOCKER, "import", "-", "busybox:latest"], docker.ENVIRONMENT),
            stdin=file, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    host.run([docker.DOCKER, "network", "create", "bench"], env=docker.ENVIRONMENT)


def part(found: dict[str, Any]) -> float:
    """Return how much of Docker's time it took, by pairs: the middle one."""
    both = zip(found["corral"]["wall"], found["docker"]["wall"], strict=True)
    return middle(ours / theirs for ours, theirs in both)


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
    text = table(("one command", "wall, s", "CPU s of it", "CPU s of the host"), rows)
    if "docker" in found:
        text += f"\n\nOf each pair, one after the other: {part(found):.2f} of Docker's time."
    return text


def verdict(found: dict[str, Any]) -> list[str]:
    """Say whether the goal is missed."""
    if "docker" not in found:
        return []
    if (took := part(found)) <= PART:
        return []
    return [f"run: {took:.2f} of the time of docker run; the goal is a third"]


if __name__ == "__main__":
    print(report(run()), file=sys.stdout)
