"""How many tasks a second the scheduler gives a node, by what the tasks are like.

    python -m tests.bench.placing [NAME]     by hand; with a name, that case alone and its memory

The processor time of one call of ``scheduler.place.place`` on a cluster of half-used nodes with
tasks of others on them; wall time would tell of this machine's other work. The memory is that of a
process of its own that does nothing else, with the tasks it was asked for.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from scheduler.place import place
from scheduler.view import Fleet, NodeUse, NodeView, Pending
from tests.bench.machine import load, table

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 1 << 30
MIB = 1 << 20
ZONES, RACKS = 4, 40


class Case(NamedTuple):
    """``goal``: tasks a second; 0 = none was set."""

    nodes: int
    make: Callable[[int], list[Pending]]
    goal: int


def fleet(count: int) -> Fleet:
    """Return nodes of three sizes with twenty tasks of others, in zones and racks."""
    nodes = {}
    for number in range(count):
        services = {f"other/s{(number * 7 + n) % 997}": 1 for n in range(20)}
        name = f"node-{number:05}"
        nodes[name] = NodeView(
            id=name,
            name=name,
            cpus=float(16 << number % 3),
            memory=(64 << number % 3) * GIB,
            labels={
                "zone": f"z{number % ZONES}",
                "rack": f"r{number % RACKS}",
                "disk": "ssd" if number % 3 else "hdd",
            },
            images=frozenset(f"sha256:{(number + n) % 50}" for n in range(10)),
            use=NodeUse(
                cpus=1.0 + number % 5,
                memory=(2 + number % 7) * GIB,
                tasks=20,
                services=services,
                specs={f"hash {name}": 1 for name in services},
            ),
        )
    return Fleet(nodes)


def _tasks(services: int, replicas: int, **more: Any) -> list[Pending]:
    found = []
    for number in range(services):
        given = {key: value(number) if callable(value) else value for key, value in more.items()}
        name, spec = f"shop/service-{number}", f"spec-{number}"
        found += [
            Pending(task=f"{name}.{slot}", service=name, spec_hash=spec, slot=slot, **given)
            for slot in range(1, replicas + 1)
        ]
    return found


def _small(number: int) -> int:
    return (16 + number % 10) * MIB


CASES: dict[str, Case] = {
    "one service of 100,000": Case(1000, lambda _: _tasks(1, 100_000), 60_000),
    "one of 100,000, over zones": Case(
        1000, lambda _: _tasks(1, 100_000, preferences=("node.labels.zone",)), 0
    ),
    "1,000 services of one": Case(1000, lambda _: _tasks(1000, 1), 5000),
    "1,000 of one that reserve": Case(
        1000, lambda _: _tasks(1000, 1, memory=_small, cpus=0.01), 5000
    ),
    "1,000 of one, each with its image": Case(
        1000, lambda _: _tasks(1000, 1, image=lambda n: f"sha256:{n}"), 5000
    ),
    "1,000 of ten, each with a constraint": Case(
        1000,
        lambda _: _tasks(1000, 10, constraints=lambda n: (f"node.labels.rack == r{n % RACKS}",)),
        5000,
    ),
    "1,000 of ten, 1,000 constraints": Case(
        1000, lambda _: _tasks(1000, 10, constraints=lambda n: (f"node.name != node-{n:05}",)), 0
    ),
    "1,000 of one, one to a node": Case(
        1000, lambda _: _tasks(1000, 1, memory=_small, max_per_node=1), 0
    ),
    "1,000 of one that fit nowhere": Case(1000, lambda _: _tasks(1000, 1, memory=999 * GIB), 0),
    "1,000 of one, all different, where few nodes have room": Case(
        1000, lambda _: _tasks(1000, 1, memory=lambda n: 240 * GIB + n), 0
    ),
    "1,000 of one over every host": Case(
        1000, lambda _: _tasks(1000, 1, preferences=("node.hostname",)), 0
    ),
    "one on every node": Case(
        1000,
        lambda n: [
            Pending(task=f"g.{i}", service="shop/g", spec_hash="g", slot=i, node=f"node-{i:05}")
            for i in range(n)
        ],
        0,
    ),
    "1,000 services of one, 10,000 nodes": Case(10_000, lambda _: _tasks(1000, 1), 1500),
    "1,000 of one that reserve, 10,000 nodes": Case(
        10_000, lambda _: _tasks(1000, 1, memory=_small, cpus=0.01), 1500
    ),
    "one task": Case(1000, lambda _: _tasks(1, 1), 0),
}


def _once(view: Fleet, tasks: list[Pending]) -> float:
    began = time.process_time()
    found = place(view, tasks)
    _ = dict(found.refused)  # what is asked for why it waits
    took = time.process_time() - began
    if len(found.assigned) + len(found.refused) != len(tasks):
        raise RuntimeError("a task without an answer")
    return took


def run(*, runs: int = 5, **_: Any) -> dict[str, Any]:
    """Measure every case so many times, at most five."""
    before = load()
    found = {}
    for name, case in CASES.items():
        view, tasks = fleet(case.nodes), case.make(case.nodes)
        took = [_once(view, tasks) for _ in range(min(runs, 5))]
        found[name] = {"tasks": len(tasks), "seconds": took, "memory": _memory(name)}
    return {"cases": found, "load": (before, load())}


def _memory(name: str) -> float:
    words = [sys.executable, "-m", "tests.bench.placing", name]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout.rpartition(" ")[2])


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["tasks"] / max(median(figures["seconds"]), 1e-6))


def report(found: dict[str, Any]) -> str:
    """Write the table."""
    rows = []
    for name, figures in found["cases"].items():
        case = CASES[name]
        rows.append(
            (
                name,
                f"{case.nodes:,}",
                f"{median(figures['seconds']) * 1000:,.1f}",
                f"{_rate(figures):,.0f}",
                f"{case.goal:,}" if case.goal else "",
                f"{figures['memory']:.0f}",
            )
        )
    return table(("tasks", "nodes", "CPU ms", "tasks a second", "goal", "whole process, MiB"), rows)


def verdict(found: dict[str, Any]) -> list[str]:
    """Name what missed its goal."""
    return [
        f"{name}: {_rate(figures):,.0f} tasks a second, not {CASES[name].goal:,}"
        for name, figures in found["cases"].items()
        if _rate(figures) < CASES[name].goal
    ]


def _alone(name: str) -> None:
    case = CASES[name]
    view, tasks = fleet(case.nodes), case.make(case.nodes)
    took = _once(view, tasks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {took * 1000:.1f} ms of CPU, MiB {peak:.0f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _alone(sys.argv[1])
    else:
        print(report(run(runs=3)))
