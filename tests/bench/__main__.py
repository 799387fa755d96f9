"""`make bench`: every subject's figures, printed as tables; --write-docs keeps them.

    python -m tests.bench [--only NAME]... [--runs N] [--no-others] [--write-docs] [--json FILE]

Everything runs in lab hosts (namespaces), nothing is left behind, and a subject that fails does
not keep the others from being measured. The exit code is 1 when one failed or missed its goal.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.bench import docs
from tests.bench.machine import load, machine

# A subject is a module with run(**options) -> dict and report(dict) -> str.
SUBJECTS = {
    "single": "One host",
    "cluster": "Three hosts over SSH",
    "config": "corral config",
    "once": "A command once",
    "placing": "What the scheduler places",
    "verdict": "What the verdict of `up` costs",
}
LIMIT = 600.0  # seconds for everything; what would begin later is left out and said


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[*SUBJECTS], help="repeatable")
    parser.add_argument("--runs", type=int, default=5, help="how often; medians are shown")
    parser.add_argument("--no-others", action="store_true", help="no Docker, no Swarm")
    parser.add_argument("--write-docs", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all raw figures")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root: it makes hosts out of namespaces", file=sys.stderr)
        return 2
    about = machine()
    line = ", ".join(f"{name} {value}" for name, value in about.items())
    print(f"{line}\nload when it began: {load():.1f}", flush=True)
    began, failed = time.monotonic(), False
    raw: dict[str, Any] = {"machine": about}
    texts: dict[str, str] = {}
    for name, title in SUBJECTS.items():
        module = _module(name)
        if module is None or (arguments.only and name not in arguments.only):
            continue
        print(f"\n== {title}", flush=True)
        if time.monotonic() - began > LIMIT:
            print(f"left out: the bench has taken {LIMIT:g} s", flush=True)
            failed = True
            continue
        try:
            raw[name] = found = module.run(**_options(name, arguments))
            texts[name] = module.report(found)
            print(texts[name], flush=True)
            missed = module.verdict(found) if hasattr(module, "verdict") else []
        except Exception:
            traceback.print_exc()
            failed = True
            continue
        for sentence in missed:
            print(f"missed: {sentence}")
            failed = True
    print(f"\nload at the end: {load():.1f}; {time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(raw, indent=1) + "\n")
    if arguments.write_docs:
        docs.write(line, {name: (SUBJECTS[name], text) for name, text in texts.items()}, raw)
    return int(failed)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"tests.bench.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"tests.bench.{name}":
            raise
        return None


def _options(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"runs": arguments.runs}
    if name in ("single", "config", "once"):
        options["others"] = not arguments.no_others
    return options


if __name__ == "__main__":
    sys.exit(main())
