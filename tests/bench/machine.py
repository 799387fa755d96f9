"""What the figures were taken on, how they are condensed, how tables are written."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DASH = "-"


def machine() -> dict[str, str]:
    """Return kernel, processors, memory and the versions of everything involved."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "kernel": platform.release().split("-", maxsplit=1)[0],
        "processors": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
    }
    for name, words in {
        "crun": ("crun", "--version"),
        "conmon": ("conmon", "--version"),
        "nft": ("nft", "--version"),
        "docker": ("dockerd", "--version"),
    }.items():
        version = _version(words)
        if version:
            found[name] = version
    return found


def _version(words: Sequence[str]) -> str:
    if shutil.which(words[0]) is None:
        return ""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    for word in done.stdout.split():
        if word[:1].isdigit() or (word[:1] == "v" and word[1:2].isdigit()):
            return word.strip("v,")
    return ""


def load() -> float:
    """Return how many processes wanted a processor in the last minute."""
    return os.getloadavg()[0]


def middle(values: Iterable[float]) -> float:
    """Return the median; a bench is repeated because single runs mislead."""
    return median(values)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write a median with the smallest and largest value beside it."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table whose columns line up on a terminal too."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
