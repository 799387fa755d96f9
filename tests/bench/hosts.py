"""Lab hosts to measure in: commands of this checkout, CPU by control group, memory by process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lab.lab import Lab, down_stale

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.lab.host import LabHost

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CORRAL = str(Path(sys.prefix) / "bin" / "corral")
INSIDE = str(Path(__file__).with_name("inside.py"))
FILE = "/root/bench/compose.yaml"
STACK = """\
name: bench
services:
  web:
    image: busybox:latest
    command: [sleep, "1000"]
    stop_grace_period: 0s
    networks: [front]
    deploy:
      replicas: {replicas}
networks:
  front: {{}}
"""
# By a word of the command line, in this order; what matches nothing is not ours.
KINDS = (
    ("dockerd", "dockerd"),
    ("containerd-shim", "shim"),
    ("containerd", "containerd"),
    ("/conmon", "conmon"),
    ("agent.dns", "dns"),
    ("orchestrator/embedded/supervisor.py", "supervisor"),
    ("-m orchestrator", "controller"),
    ("-m agent", "agent"),
)


@contextmanager
def lab(nodes: int, *, client: bool = False) -> Iterator[Lab]:
    """Make a lab, and take it down whatever happens."""
    down_stale()
    name = f"bench-{uuid.uuid4().hex[:10]}"
    made = Lab.up(name, nodes, client=client, owner=os.getpid())
    try:
        yield made
    finally:
        made.down()


def prepare(host: LabHost) -> None:
    """Start the controller and put the image there: neither is part of any figure."""
    host.run([CORRAL, "controller", "start"], timeout=90)
    script = str(CHECKOUT / "scripts" / "base_images.py")
    host.run([sys.executable, script, "busybox"], timeout=60)
    deploy(host, 1)
    down(host)


def deploy(host: LabHost, replicas: int) -> float:
    """Bring the stack up with so many replicas; return the seconds the command took."""
    host.write(FILE, STACK.format(replicas=replicas))
    return command(host, [CORRAL, "-f", FILE, "up", "-d"])


def down(host: LabHost) -> float:
    """Remove the stack without a grace period; return the seconds the command took."""
    return command(host, [CORRAL, "-f", FILE, "down", "-t", "0"])


def command(host: LabHost, argv: Sequence[str], timeout: float = 180) -> float:
    """Run a command in the host; return its wall time as the host saw it."""
    return float(timed(host, 1, argv, timeout)[0]["wall"])


def timed(
    host: LabHost, count: int, argv: Sequence[str], timeout: float = 180
) -> list[dict[str, float]]:
    """Run a command ``count`` times inside; return wall and CPU seconds of each run."""
    words = [sys.executable, "-I", "-S", INSIDE, "time", str(count), *argv]
    return list(json.loads(host.run(words, timeout=timeout).stdout))


def seconds(output: str) -> float:
    """Return the wall time out of what ``inside.py time 1`` printed (last line)."""
    return float(json.loads(output.strip().splitlines()[-1])[0]["wall"])


def busybox_archive() -> Path:
    """Return the root file system the image is made of."""
    script = str(CHECKOUT / "scripts" / "base_images.py")
    done = subprocess.run(
        [sys.executable, script, "--archive-only", "busybox"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return Path(json.loads(done.stdout)["busybox"])


def memory(host: LabHost) -> dict[str, dict[str, float]]:
    """Return by kind of process how many there are and their PSS in MiB together."""
    found: dict[str, dict[str, float]] = {}
    for process in processes(host):
        if process["kind"]:
            entry = found.setdefault(process["kind"], {"count": 0, "mib": 0.0})
            entry["count"] += 1
            entry["mib"] += process["pss"] / 1024
    return found


def processes(host: LabHost) -> list[dict[str, Any]]:
    """Return every process of the host with its kind, PSS and CPU time."""
    words = [sys.executable, "-I", "-S", INSIDE, "processes"]
    found = json.loads(host.run(words).stdout)
    for process in found:
        process["kind"] = _kind(process["words"])
    return list(found)


def _kind(words: Sequence[str]) -> str:
    start = " ".join(words[:5])
    return next((kind for word, kind in KINDS if word in start), "")


def cpu(host: LabHost) -> float:
    """Return the CPU seconds of everything that ever ran in the host (its control group)."""
    for path in Path("/sys/fs/cgroup").glob(f"*/{host.cgroup}/cpuacct.usage"):
        return int(path.read_text()) / 1e9
    for path in Path("/sys/fs/cgroup").glob(f"**/{host.cgroup}/cpu.stat"):
        return int(path.read_text().split()[1]) / 1e6
    return 0.0


@contextmanager
def stopwatch(host: LabHost, into: dict[str, list[float]], name: str) -> Iterator[None]:
    """Note wall and CPU seconds of a block under ``name`` and ``name_cpu``."""
    used, began = cpu(host), time.monotonic()
    yield
    into.setdefault(name, []).append(time.monotonic() - began)
    into.setdefault(f"{name}_cpu", []).append(cpu(host) - used)
