"""The command line of the simulation. See docs/simulation.md."""

from __future__ import annotations

import argparse
import gc
import sys

from tests.sim.run import LENGTH, run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", help="A-B")
    parser.add_argument("--length", type=float, default=LENGTH)
    parser.add_argument("--only", help="numbers of events, with commas")
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args(arguments)
    gc.freeze()
    if given.seed is not None:
        only = None if given.only is None else {int(n) for n in given.only.split(",") if n}
        found = run(given.seed, length=given.length, only=only, log=given.trace)
        if given.trace:
            print("\n".join(found.trace))
        for event in found.events:
            print(f"  {event}")
        print(
            found.words, found.digest[:16], f"healed in {found.healed:.0f} s, {found.checks} checks"
        )
        return 1 if found.broken else 0
    failed = 0
    seeds = []
    for part in (given.seeds or "1-10").split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    for seed in seeds:
        found = run(seed, length=given.length)
        print(found.words, f"healed {found.healed:.0f} s", flush=True)
        failed += found.broken is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
