"""Measurements taken inside a lab host; standard library only, started there as a program.

inside.py time N ARGV...     run ARGV N times; wall and CPU seconds of each, as JSON
inside.py processes          every process: command line, PSS in KiB, CPU seconds so far
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def timed(count: int, argv: list[str]) -> list[dict[str, float]]:
    """Run a program again and again; what it and its own children used."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        program = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(program.pid, 0)
        wall = time.monotonic() - began
        program.returncode = os.waitstatus_to_exitcode(status)
        if program.returncode:
            raise SystemExit(f"{' '.join(argv)} ended with {program.returncode}")
        cpu = usage.ru_utime + usage.ru_stime
        found.append({"wall": wall, "cpu": cpu, "began": began})
    return found


def processes() -> list[dict[str, Any]]:
    """Describe every process that has memory of its own."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            lines = (entry / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        pss = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        words = [word for word in words if word]
        found.append({"pid": int(entry.name), "words": words, "pss": pss, "cpu": cpu})
    return found


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1] == "time":
        print(json.dumps(timed(int(sys.argv[2]), sys.argv[3:])))
    else:
        print(json.dumps(processes()))


if __name__ == "__main__":
    main()
