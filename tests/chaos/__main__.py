"""``python -m tests.chaos``: faults, commands and requests on five lab hosts, from a seed.

    python -m tests.chaos --seed N --seconds S     one round, as the failing one said
    python -m tests.chaos --until S [--from N]     round after round, each with the next seed

The exit code is 1 when a law was broken. See docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import play
from tests.chaos.stage import stage


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults in a round")
    parser.add_argument("--until", type=float, help="go on with the next seed for so many seconds")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("chaos: needs root: it makes hosts out of namespaces", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # a script's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    return rounds(given.seed, given.seconds, given.until or 0.0)


def rounds(seed: int, seconds: float, until: float) -> int:
    """Play one round or more; print timelines as they go, and what was broken."""
    began, broken = time.monotonic(), 0
    while True:
        with tempfile.TemporaryDirectory(prefix="corral-chaos-") as folder:
            made = time.monotonic()
            with stage(Path(folder)) as standing:
                print(f"five hosts in {time.monotonic() - made:.0f} s", flush=True)
                found = play(standing, seed, seconds, lambda line: print(line, flush=True))
                found.broken += standing.left()
        for sentence in found.broken:
            print(f"BROKEN  {sentence}")
        print(f"{found}, load {os.getloadavg()[0]:.0f}", flush=True)
        if found.broken:
            broken += 1
            print(f"again: {found.replay}", flush=True)
        seed += 1
        if time.monotonic() - began >= until:
            return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
