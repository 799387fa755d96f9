"""What it costs that `up` waits until what it started came to stay (`scheduler.trial`).

Beside the command's time stands when the last container had started: the rest is the verdict's, and
what the command line itself takes to end. Compose's `up -d` returns with the start.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.bench import hosts
from tests.bench.machine import load, spread, table

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

CHECK = "healthcheck: {test: [CMD, 'true'], interval: 100ms, start_interval: 100ms}"
QUICK = "deploy: {update_config: {monitor: 0s}}"
SERVICE = """\
  s{number}:
    image: busybox:latest
    command: [sleep, "{seconds}"]
    stop_grace_period: 0s
    {more}
"""
# name -> (services, what they have besides, seconds they sleep first, seconds then; None: one `up`)
CASES: dict[str, tuple[int, str, int, int | None]] = {
    "1 service": (1, "", 1000, None),
    "1 service with a health check": (1, CHECK, 1000, None),
    "1 service, nothing changed": (1, "", 1000, 1000),
    "1 service, updated (monitor 5 s)": (1, "", 1000, 1001),
    "1 service, updated (monitor 0 s)": (1, QUICK, 1000, 1001),
    "50 services": (50, "", 1000, None),
    "50 services, nothing changed": (50, "", 1000, 1000),
    "50 services, updated (monitor 5 s)": (50, "", 1000, 1001),
}


def run(*, runs: int = 3, **_: Any) -> dict[str, Any]:
    """Measure every case so many times, each from nothing."""
    before = load()
    with hosts.lab(1) as lab:
        host = lab.nodes[0]
        hosts.prepare(host)
        found: dict[str, Any] = {name: {"up": [], "started": []} for name in CASES}
        for _ in range(min(runs, 3)):
            for name, (count, more, first, then) in CASES.items():
                up, started = _up(host, count, more, first)
                if then is not None:
                    up, started = _up(host, count, more, then)
                found[name]["up"].append(up)
                found[name]["started"].append(started)
                hosts.down(host)
    return {"cases": found, "load": (before, load())}


def _up(host: LabHost, count: int, more: str, seconds: int) -> tuple[float, float | None]:
    """Return the seconds the command took, and until its last container had started."""
    services = (SERVICE.format(number=n, seconds=seconds, more=more) for n in range(count))
    host.write(hosts.FILE, "name: bench\nservices:\n" + "".join(services))
    began = time.time()
    took = hosts.command(host, [hosts.CORRAL, "-f", hosts.FILE, "up", "-d"])
    words = [hosts.CORRAL, "-p", "bench", "ps", "--format", "json"]
    rows = [json.loads(line) for line in host.run(words).stdout.splitlines()]
    if len(rows) != count or not all(row["ready"] for row in rows):
        raise RuntimeError(f"up ended with {len(rows)} tasks that are not all ready")
    last = max(row["started_at"] for row in rows) - began
    return took, last if last > 0 else None


def report(found: dict[str, Any]) -> str:
    """Write the table."""
    rows = []
    for name, figures in found["cases"].items():
        started = [each for each in figures["started"] if each is not None]
        rows.append((name, spread(figures["up"]), spread(started) if started else ""))
    return table(("corral up -d", "the command, s", "last container started after, s"), rows)
