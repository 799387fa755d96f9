"""The command line of the simulation. See docs/simulation.md."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.sim import mutants
from tests.sim.run import LENGTH, run
from tests.sim.shrink import shrink

if TYPE_CHECKING:
    from tests.sim.run import Outcome


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say; 1 = a law was broken, or a mutant lived."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed, with its events")
    parser.add_argument("--seeds", default="1-10", help="A-B, or several with commas")
    parser.add_argument("--length", type=float, default=LENGTH, help="simulated seconds of faults")
    parser.add_argument("--only", help="of --seed only the events with these numbers")
    parser.add_argument("--exclusive", action="store_true", help="with a service that runs once")
    parser.add_argument("--trace", action="store_true", help="with all that happened, and logs")
    parser.add_argument("--shrink", action="store_true", help="drop events while it still fails")
    parser.add_argument("--counts", type=Path, help="a file to go on from, and to write to")
    parser.add_argument("--until", type=float, help="stop after so many seconds of the real clock")
    parser.add_argument("--mutant", choices=sorted(mutants.ALL), help="with this defect planted")
    parser.add_argument("--mutants", action="store_true", help="plant every defect, one by one")
    given = parser.parse_args(arguments)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as in the tests: it looked in vain, for a twentieth of all
    if given.mutants:
        return _mutants(given)
    with mutants.planted(given.mutant) if given.mutant else contextlib.nullcontext():
        return _one(given) if given.seed is not None else _many(given)


def _one(given: argparse.Namespace) -> int:
    only = None if given.only is None else {int(n) for n in given.only.split(",") if n}
    found = run(
        given.seed,
        length=given.length,
        only=only,
        log=given.trace,
        exclusive=_exclusive(given),
    )
    if given.trace:
        print("\n".join(found.trace))
    for event in found.events:
        print(f"  {event}")
    healed = f"healed in {found.healed:.0f} s, {found.checks} checks"
    print(found.words, found.digest[:16], healed)
    if found.broken is not None and given.shrink:
        _shrunk(found, given)
    return 1 if found.broken else 0


def _exclusive(given: argparse.Namespace) -> bool:
    return given.exclusive or bool(given.mutant and mutants.ALL[given.mutant].exclusive)


def _shrunk(found: Outcome, given: argparse.Namespace) -> None:
    least = shrink(found, length=given.length, exclusive=_exclusive(given))
    print(f"{len(least.events)} of {len(found.events)} events are enough:")
    for event in least.events:
        print(f"  {event}")
    only = ",".join(str(event.number) for event in least.events)
    more = "" if given.length == LENGTH else f" --length {given.length:g}"
    more += " --exclusive" if given.exclusive else ""
    more += f" --mutant {given.mutant}" if given.mutant else ""
    print(f"python -m tests.sim --seed {found.seed}{more} --only {only!r} --trace")


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _many(given: argparse.Namespace) -> int:
    """Run seeds; with a file of counts go on behind the last one that is in it."""
    counts: dict[str, Any] = {"length": given.length, "seeds": 0, "simulated": 0.0, "cpu": 0.0}
    counts |= {"last": 0, "longest_healing": 0.0, "broken": {}}
    if given.counts is not None and given.counts.exists():
        counts = json.loads(given.counts.read_text())
    began = time.monotonic()
    for seed in _seeds(given.seeds):
        if given.counts is not None and seed <= counts["last"]:
            continue
        if given.until is not None and time.monotonic() - began > given.until:
            break
        found = run(seed, length=given.length, exclusive=_exclusive(given))
        counts["seeds"] += 1
        counts["last"] = seed
        counts["simulated"] = round(counts["simulated"] + found.simulated, 1)
        counts["cpu"] = round(counts["cpu"] + found.cpu, 2)
        counts["longest_healing"] = max(counts["longest_healing"], round(found.healed, 1))
        if found.broken is not None:
            counts["broken"][str(seed)] = f"{found.broken.law}: {found.broken.words}"[:300]
            print(found.words, flush=True)
        elif given.counts is None:
            print(found.words, f"healed in {found.healed:.0f} s", flush=True)
        if given.counts is not None:
            fresh = given.counts.with_name(f".{given.counts.name}.new")
            fresh.write_text(json.dumps(counts, indent=1) + "\n")
            os.replace(fresh, given.counts)
    speed = counts["simulated"] / max(counts["cpu"], 0.01)
    print(f"{counts['seeds']} seeds, {len(counts['broken'])} broken, {speed:.0f} s a CPU second")
    return 1 if counts["broken"] else 0


def _mutants(given: argparse.Namespace) -> int:
    lived = []
    for name in sorted(mutants.ALL):
        caught = mutants.catch(name, length=given.length)
        print(f"{name}: {caught.words if caught else 'LIVES'}", flush=True)
        if caught is None:
            lived.append(name)
    print(f"{len(mutants.ALL) - len(lived)} of {len(mutants.ALL)} caught; alive: {lived}")
    return 1 if lived else 0


if __name__ == "__main__":
    sys.exit(main())
