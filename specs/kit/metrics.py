"""Figures of a daemon in the text form that Prometheus reads (exposition format 0.0.4).

Written by hand, for the few kinds there are: what is counted is kept by whoever counts it
(:class:`Histogram`), everything else is looked up when somebody asks. Label values may be
anybody's words (names of stacks, services, nodes) and are escaped; never put content in one.
Standard library only.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LAG_EVERY: Final = 5.0  # seconds between two looks at the loop: an idle daemon stays idle


@dataclass(frozen=True, slots=True)
class Family:
    """One figure and its samples; ``name`` without labels, in Prometheus' base units."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    samples: tuple[tuple[str, Mapping[str, str], float], ...] = ()  # suffix, labels, value


def gauge(name: str, text: str, value: float) -> Family:
    """Return a figure that goes up and down."""
    return Family(name, "gauge", text, (("", {}, value),))


def counter(name: str, text: str, value: float) -> Family:
    """Return a figure that only rises."""
    return Family(name, "counter", text, (("", {}, value),))


def by(name: str, text: str, label: str, values: Mapping[str, float]) -> Family:
    """Return a gauge with one label."""
    return Family(name, "gauge", text, tuple(("", {label: key}, v) for key, v in values.items()))


@dataclass(slots=True)
class Histogram:
    """How long something took, how often: seconds in the buckets of ``SECONDS``."""

    name: str
    text: str
    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        place = next((n for n, edge in enumerate(SECONDS) if seconds <= edge), len(SECONDS))
        self.counts[place] += 1
        self.total += seconds

    def family(self) -> Family:
        """Return it as it is now."""
        samples: list[tuple[str, Mapping[str, str], float]] = []
        below = 0
        for edge, count in zip((*SECONDS, float("inf")), self.counts, strict=True):
            below += count
            samples.append(("_bucket", {"le": _number(edge)}, below))
        samples += [("_sum", {}, self.total), ("_count", {}, below)]
        return Family(self.name, "histogram", self.text, tuple(samples))


class LoopLag:
    """How late the event loop comes to what is due; ``run`` looks until cancelled."""

    def __init__(self) -> None:
        self.histogram = Histogram("corral_loop_lag_seconds", "How late the event loop comes")

    async def run(self) -> NoReturn:
        """Look now and then."""
        while True:
            due = time.monotonic() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self.histogram.observe(max(0.0, time.monotonic() - due))


def process() -> list[Family]:
    """Return what the kernel says of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    times = os.times()
    return [
        gauge("process_resident_memory_bytes", "Resident memory", resident),
        counter("process_cpu_seconds_total", "Processor time", times.user + times.system),
        gauge("process_open_fds", "Open files", len(list(Path("/proc/self/fd").iterdir())) - 1),
    ]


def text(families: Iterable[Family]) -> str:
    """Return the figures as they are sent."""
    lines = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.text}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, labels, value in family.samples:
            inner = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items())
            shown = f"{{{inner}}}" if inner else ""
            lines.append(f"{family.name}{suffix}{shown} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
