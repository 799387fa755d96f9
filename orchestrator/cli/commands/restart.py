"""`corral restart`: end containers and start them again, in place.

The task, its address and its writable layer stay; changes in the file are not
picked up (that is `up`).
"""

from __future__ import annotations

import sys
import time

from orchestrator.cli.errors import ERROR, CliError
from orchestrator.cli.show import watch
from orchestrator.client.errors import NoAnswer
from specs.states import FINAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

PATIENCE = 120.0  # seconds beyond the grace period
LOOK = 0.2


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-t", "--timeout", type=float, metavar="S", help="grace period before the kill")
    add("-d", "--detach", action="store_true", help="do not wait until they run again")
    add("--no-deps", action="store_true", help="accepted; dependents are not restarted")


def run(args: argparse.Namespace, session: Invocation) -> int:
    path = session.path("tasks")
    before = {row["id"]: row.get("started_at") for row in _rows(session, path)}
    answer = session.client.request(
        "POST",
        session.path("restart"),
        body={"services": args.services, "timeout": args.timeout},
    )
    waiting = {str(task) for task in answer["tasks"]}
    if args.detach or not waiting:
        if not waiting:
            print(
                "nothing runs that could be restarted; what had ended is started again",
                file=sys.stderr,
            )
        return 0
    command = watch.command_prefix(session)
    until = time.monotonic() + PATIENCE + (args.timeout or 10.0)
    told = time.monotonic() + watch.PAUSE
    failed = []
    rows: list[dict[str, Any]] = []
    while waiting and time.monotonic() < until:
        time.sleep(LOOK)
        try:
            rows = _rows(session, path)
        except NoAnswer:
            continue
        for row in rows:
            if row["id"] not in waiting:
                continue
            started = row.get("started_at")
            again = started is not None and started != before.get(row["id"])
            if row.get("state") in FINAL:
                failed.append(row)
            elif not again:  # started is restarted: its health is another matter, as in Compose
                continue
            waiting.discard(row["id"])
            print(
                f"{row.get('name')}: {'restarted' if again else row.get('state')}", file=sys.stderr
            )
        waiting &= {row["id"] for row in rows}  # what was replaced meanwhile is not awaited
        if waiting and time.monotonic() > told:
            told = float("inf")
            names = ", ".join(sorted(str(row["name"]) for row in rows if row["id"] in waiting))
            print(f"waiting for {names} to end within the grace period", file=sys.stderr)
    if waiting:
        names = ", ".join(sorted(row["name"] for row in rows if row["id"] in waiting))
        raise CliError(f"not running again yet: {names}", hint=f"{command} ps", code=ERROR)
    bad = [row for row in failed if row.get("state") != "complete"]
    if bad:
        names = ", ".join(sorted(str(row.get("name")) for row in bad))
        raise CliError(f"did not come back: {names}", hint=f"{command} logs", code=ERROR)
    return 0


def _rows(session: Invocation, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = session.client.get(path, all=True)["tasks"]
    return rows
