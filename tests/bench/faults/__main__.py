"""`python -m tests.bench.faults`: every fault on four hosts under traffic, as one table.

    python -m tests.bench.faults [--only WORD]... [--profile default|fast] [--write-docs]

Everything runs in lab hosts (namespaces), nothing is left behind. The exit code is 1 when a goal
was missed, a law broken or a fault could not be run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.bench import docs
from tests.bench.faults.cases import Outcome, cases, run
from tests.bench.faults.stage import Stage, stage
from tests.bench.machine import load, machine, table

PAGE = docs.PAGE.with_name("reliability.md")
PROFILES = {
    # name: (the controller's environment, goal after silence, goal after a noticed end)
    "default": ({}, 18.0, 8.0),
    "fast": ({"CORRAL_HEARTBEAT": "1"}, 6.0, 6.0),
}
INSIDE = "CORRAL_BENCH_INSIDE"


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="WORD", help="of a fault's name")
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--write-docs", action="store_true", help="into docs/reliability.md")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("faults: needs root: it makes hosts out of namespaces", file=sys.stderr)
        return 2
    if not os.environ.get(INSIDE):  # the hosts' own disks are mounted where nobody else sees them
        words = [sys.executable, "-m", "tests.bench.faults", *sys.argv[1:]]
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", *words])
    settings, silent, noticed = PROFILES[arguments.profile]
    wanted = [
        case
        for case in cases(silent, noticed)
        if not arguments.only or any(word in case.name for word in arguments.only)
    ]
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    print(f"{about}\nload when it began: {load():.1f}", flush=True)
    before, failed = load(), False
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="corral-faults-") as folder,
        stage(Path(folder), settings) as made,
    ):
        for case in wanted:
            began = time.monotonic()
            try:
                outcomes.append(run(made, case))
            except Exception:
                traceback.print_exc()
                failed = True
                _repair(made)
                continue
            print(f"\n{time.monotonic() - began:.0f} s, load {load():.1f}", flush=True)
            print(report(outcomes[-1:]), flush=True)
    text = report(outcomes)
    print(f"\n{text}\nload at the end: {load():.1f}")
    missed = [sentence for outcome in outcomes for sentence in outcome.missed()]
    for sentence in missed:
        print(f"missed: {sentence}")
    if arguments.write_docs:
        raw = {arguments.profile: {"load": (before, load())}}
        kept = kept_rows(PAGE.read_text() if PAGE.exists() else "", arguments.profile)
        text = table(HEAD, merged(kept, rows(outcomes), [c.name for c in cases(silent, noticed)]))
        title = f"Profile {arguments.profile}"
        docs.write(about, {arguments.profile: (title, text)}, raw, file=PAGE)
    return int(failed or bool(missed))


def _repair(made: Stage) -> None:
    for host in made.lab.nodes:
        made.lab.heal(host.name)
        if host.pid is None:
            host.boot()
        host.freeze(frozen=False)
    for name in ("n1", "n4"):
        made.free(name)
    made.remount("n4", "/var/lib/corral/agent", "rw", check=False)
    made.no_controller.clear()
    made.cluster.begin()


HEAD = (
    "fault", "errors at the VIP", "errors at the port", "on the host itself", "all serve again",
    "copies", "same processes", "two writers", "as before",
)  # fmt: skip


def report(outcomes: list[Outcome]) -> str:
    """Write the table, and below it how what failed failed."""
    lines = [table(HEAD, rows(outcomes))]
    lines += [
        f"{o.case.name}: {where} {', '.join(f'{count} {why}' for why, count in found.reasons)}"
        f", from {found.at[0]:.1f} to {found.at[-1]:.1f} s after the fault"
        for o in outcomes
        for where, found in (("VIP", o.vip), ("port", o.port), ("itself", o.own))
        if found.failed
    ]
    return "\n".join(lines)


def rows(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    return [
        (
            o.case.name,
            str(o.vip),
            str(o.port),
            str(o.own),
            "never" if o.again is None else f"{o.again:.1f} s" if o.again else "never fewer",
            f"{o.fewest} to {o.most}",
            o.kept,
            "yes" if o.writers > 1 or o.twice else "no",
            f"{o.settled:.1f} s",
        )
        for o in outcomes
    ]


def kept_rows(page: str, profile: str) -> list[tuple[str, ...]]:
    """Return the rows a page has already."""
    _, _, rest = page.partition(f"<!-- figures: {profile} -->")
    body, _, _ = rest.partition(f"<!-- end: {profile} -->")
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]


def merged(
    kept: list[tuple[str, ...]], new: list[tuple[str, ...]], order: list[str]
) -> list[tuple[str, ...]]:
    """Return the rows of both in order; a fault measured anew replaces its row."""
    by_name = {row[0]: row for row in (*kept, *new) if row[0] in order}
    return sorted(by_name.values(), key=lambda row: order.index(row[0]))


if __name__ == "__main__":
    sys.exit(main())
