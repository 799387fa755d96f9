"""Runs the checks and the tests by area and prints the wall-clock of each.

`make test` runs what must pass before a change lands; `make test-slow` (--slow) the
long lanes. Extra words are test areas to run alone: `scripts/test.py unit real`.
Ends with 1 when anything failed, but always runs every area.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
PYTEST = [str(BIN / "python"), "-m", "pytest", "-q", "--no-header", "--durations=5"]
PURE = ["tests/specs", "tests/scheduler", "tests/orchestrator", "tests/agent", "tests/laws"]

AREAS: dict[str, list[list[str]]] = {
    "check": [
        [str(BIN / "ruff"), "format", "--check", "-q", "."],
        [str(BIN / "ruff"), "check", "-q", "."],
        [str(BIN / "mypy")],
        [str(BIN / "lint-imports"), "--no-cache"],
        [*PYTEST, "tests/test_house.py"],
    ],
    "unit": [[*PYTEST, "-m", "not slow and not real", "-n", "2", *PURE]],
    "real": [[*PYTEST, "-m", "not slow", "tests/real"]],
    "e2e": [[*PYTEST, "-m", "not slow", "tests/e2e"]],
}
SLOW: dict[str, list[list[str]]] = {
    "unit-slow": [[*PYTEST, "-m", "slow", "--timeout=1800", *PURE]],
    "explore": [
        ["env", "CORRAL_EXPLORE=1", *PYTEST, "-m", "not real and not slow", "--timeout=1800", *PURE]
    ],
    "real-slow": [[*PYTEST, "-m", "slow", "--timeout=1800", "tests/real", "tests/e2e"]],
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("areas", nargs="*")
    options = parser.parse_args()
    areas = SLOW if options.slow else AREAS
    if options.areas:
        areas = {name: {**AREAS, **SLOW}[name] for name in options.areas}
    rows = []
    for name, commands in areas.items():
        print(f"==> {name}", flush=True)
        began = time.monotonic()
        ok = True
        for command in commands:
            done = subprocess.run(
                command, cwd=ROOT, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            )
            # 5 = nothing collected in a lane that has no tests of this kind yet
            ok = ok and done.returncode in (0, 5)
        rows.append((name, time.monotonic() - began, ok))
    print("\narea        wall-clock  result")
    for name, seconds, ok in rows:
        print(f"{name:<10} {seconds:9.1f} s  {'ok' if ok else 'FAILED'}")
    print(f"{'all':<10} {sum(row[1] for row in rows):9.1f} s")
    return 0 if all(row[2] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
