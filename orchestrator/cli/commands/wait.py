"""`corral wait SERVICE...`: until all containers of the services have ended.

Ends with the exit code of the one that ended last, 1 where that is not known. What is restarted
has not ended.
"""

from __future__ import annotations

import argparse
import sys
import time

from orchestrator.cli import called
from orchestrator.cli.errors import CliError
from orchestrator.cli.show import containers, watch
from orchestrator.client.errors import ApiNotFound
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.cli.session import Invocation

LOOK = 0.3  # seconds


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="+", metavar="SERVICE")
    add("--down-project", action="store_true", help="remove the stack when the first one ends")


def run(args: argparse.Namespace, session: Invocation) -> int:
    told: set[str] = set()
    seen: dict[str, dict[str, Any]] = {}  # one-offs; `run --rm` leaves no row when it has ended
    first = True
    while True:
        mine = meant(_rows(session, seen, first=first), args.services)
        first = False
        seen |= {row["id"]: row for row in mine if row.get("oneoff")}
        ended = [row for row in mine if row.get("state") in containers.FINAL]
        for row in ended:
            if row["id"] not in told:
                told.add(row["id"])
                print(f"container {row['name']!r} {_how(row)}")
                sys.stdout.flush()
        if len(ended) == len(mine) or (args.down_project and ended):
            break
        time.sleep(LOOK)
    last = max(ended, key=lambda row: float(row.get("finished_at") or 0.0))
    if args.down_project:
        from orchestrator.cli.commands import down

        parser = argparse.ArgumentParser()
        down.describe(parser)
        down.run(parser.parse_args([]), session)
    return containers.code_of(last) & 0xFF


def _rows(
    session: Invocation, seen: dict[str, dict[str, Any]], *, first: bool
) -> list[dict[str, Any]]:
    """Return the stack's containers, and those of ``seen`` that have gone from it."""
    try:
        rows = watch.rows(session, every=True, oneoffs=True, first=first)
    except ApiNotFound:
        if not seen:
            raise
        rows = []  # it was the stack's last
    there = {row["id"] for row in rows}
    return rows + [_last(session, row) for key, row in seen.items() if key not in there]


def _last(session: Invocation, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as its record has it now: it is remembered longer than it is shown."""
    if row.get("state") in containers.FINAL:
        return row
    try:
        task = session.client.get(f"/v1/tasks/{quote(str(row['id']))}")
    except ApiNotFound:
        return {**row, "state": "failed", "finished_at": time.time()}
    runs: list[dict[str, Any]] = task["status"].get("runs") or [{}]
    known = {key: runs[-1].get(key) for key in ("exit_code", "finished_at")}
    return {**row, **known, "state": task["state"]}


def meant(rows: list[dict[str, Any]], services: list[str]) -> list[dict[str, Any]]:
    """Return the containers of the services, one a name. Raises CliError for one without any."""
    asked, single, missing = called.meant(services, rows)
    named = [row for row in rows if row.get("oneoff") and row["id"] in single]
    rows = [row for row in rows if not row.get("oneoff")]
    now = containers.now(rows)
    mine = [
        row
        for row in rows
        if row["id"] in now and (row.get("service") in asked or row["id"] in single)
    ]
    if missing:
        known = ", ".join(sorted({str(row.get("service")) for row in rows})) or "none"
        raise CliError(
            f"no containers of {', '.join(sorted(missing))}", hint=f"services with tasks: {known}"
        )
    return mine + named


def _how(row: dict[str, Any]) -> str:
    match containers.no_code(row):
        case "":
            return f"exited with status code {containers.code_of(row)}"
        case "unknown":
            return "ended, its exit code is unknown"
        case why:
            return why
