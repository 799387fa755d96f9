"""`corral config -q` beside `docker-compose config -q`, cold, on 10 and on 200 services.

    python -m tests.bench.config

Both run in the same loop, turn about, as processes of their own: what a user waits
for. Nothing else is measured and nothing is started. docker-compose is Debian's
package; where it is missing its column is empty.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (10, 50, 200)
RUNS = 9
GOAL = 0.35  # seconds, cold, for 10 services
CORRAL = Path(sys.executable).parent / "corral"


def compose_file(services: int) -> str:
    """Return a file with this many services, as people write them."""
    lines = ['version: "3.9"', "services:"]
    for number in range(services):
        lines += [
            f"  service-{number}:",
            f"    image: registry.example.test/shop/part-{number}:${{RELEASE:-1.0}}",
            f'    ports: ["{10000 + number}:8080"]',
            "    environment:",
            f"      NAME: service-{number}",
            "      LEVEL: ${LEVEL:-info}",
            "      DATABASE_URL: postgres://app@db/app",
            f"    volumes: ['data-{number}:/data', './conf:/conf:ro']",
            "    networks: [front, back]",
            "    restart: unless-stopped",
            "    healthcheck: {test: [CMD, /probe], interval: 10s, retries: 3}",
            "    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 128M}}}",
        ]
        if number:
            lines.append(f"    depends_on: [service-{(number - 1) // 2}]")
    lines += ["networks: {front: {}, back: {}}", "volumes:"]
    lines += [f"  data-{number}: {{}}" for number in range(services)]
    return "\n".join(lines) + "\n"


def measure(argv: list[str], folder: str) -> float:
    """Return the seconds one run takes; fails when the command fails."""
    environment = {key: value for key, value in os.environ.items() if "COMPOSE" not in key}
    began = time.perf_counter()
    subprocess.run(
        argv,
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def run(runs: int = RUNS, *, others: bool = True) -> dict[str, Any]:
    """Return the medians in seconds, by command and number of services."""
    commands = {"corral": [str(CORRAL), "config", "-q"]}
    other = shutil.which("docker-compose") if others else None
    if other is not None:
        commands["docker-compose"] = [other, "config", "-q"]
    medians: dict[str, dict[int, float]] = {name: {} for name in commands}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "compose.yaml").write_text(compose_file(size))
            Path(folder, "docker-compose.yml").symlink_to("compose.yaml")
            times: dict[str, list[float]] = {name: [] for name in commands}
            for turn in range(runs + 1):
                for name, argv in commands.items():
                    seconds = measure(argv, folder)
                    if turn:  # the first one fills the page cache for both
                        times[name].append(seconds)
        for name, seen in times.items():
            medians[name][size] = round(statistics.median(seen), 4)
    mine = medians["corral"]
    return {
        "runs": runs,
        "medians": medians,
        "goal": GOAL,
        "met": mine[10] <= GOAL,
        "milliseconds_per_service": round((mine[200] - mine[10]) / 190 * 1000, 2),
    }


def report(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    head = f"seconds, median of {result['runs']}"
    lines = [f"{head:<28}" + "".join(f"{size:>10}" for size in SIZES)]
    for name, row in result["medians"].items():
        lines.append(f"{name:<28}" + "".join(f"{row[size]:>10.3f}" for size in SIZES))
    state = "met" if result["met"] else "NOT met"
    lines.append(
        f"goal {result['goal']:.2f} s for 10 services: {state}; "
        f"{result['milliseconds_per_service']} ms for each service more"
    )
    return "\n".join(lines)


def verdict(result: dict[str, Any]) -> list[str]:
    """Return what missed its goal, a sentence each."""
    seconds = result["medians"]["corral"][10]
    return [] if result["met"] else [f"config of 10 services took {seconds:.3f} s, not {GOAL} s"]


if __name__ == "__main__":
    print(report(run()))
