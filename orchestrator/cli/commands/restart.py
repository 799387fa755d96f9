"""`corral restart`: end containers and start them again, in place; start what had ended.

The task, its address and its writable layer stay where something runs; changes in the file
are not picked up (that is `up`).
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
    from collections.abc import Iterable, Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

PATIENCE = 120.0  # seconds beyond the grace period
AFTER_FAILURE = 10.0  # of these, once something did not come back: who follows it may never
LOOK = 0.2


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these, and what follows them")
    add("-t", "--timeout", type=float, metavar="S", help="grace period before the kill")
    add("-d", "--detach", action="store_true", help="do not wait until they run again")
    add("--no-deps", action="store_true", help="not what has depends_on with restart: true")


def run(args: argparse.Namespace, session: Invocation) -> int:
    path = session.path("tasks")
    before = {row["id"]: row.get("started_at") for row in _rows(session, path)}
    answer = session.client.request(
        "POST",
        session.path("restart"),
        body={"services": args.services, "timeout": args.timeout, "no_deps": args.no_deps},
    )
    rows: list[dict[str, Any]] = []
    asked = _Asked(before, {str(task) for task in answer["tasks"]}, answer.get("started") or ())
    if not asked.left():
        print("nothing runs or has run that could be restarted", file=sys.stderr)
    if args.detach or not asked.left():
        return 0
    command = watch.command_prefix(session)
    until = time.monotonic() + PATIENCE + (args.timeout or 10.0)
    told = time.monotonic() + watch.PAUSE
    while asked.left() and time.monotonic() < until:
        time.sleep(LOOK)
        try:
            rows = _rows(session, path)
        except NoAnswer:
            continue
        for line in asked.look(rows):
            print(line, file=sys.stderr)
        if asked.failed:
            until = min(until, time.monotonic() + AFTER_FAILURE)
        if asked.left() and time.monotonic() > told:
            told = float("inf")
            print(f"waiting for {', '.join(asked.names(rows))}", file=sys.stderr)
    if asked.failed:
        names = ", ".join(sorted(asked.failed))
        raise CliError(f"did not come back: {names}", hint=f"{command} logs", code=ERROR)
    if asked.left():
        names = ", ".join(asked.names(rows))
        raise CliError(f"not running again yet: {names}", hint=f"{command} ps", code=ERROR)
    if asked.away:
        hint = "that is done when their node is back; corral node ls"
        raise CliError(f"not restarted yet: {', '.join(sorted(asked.away))}", hint=hint, code=ERROR)
    return 0


class _Asked:
    """What a restart was asked of, and how far it is."""

    def __init__(
        self, before: Mapping[str, Any], tasks: Iterable[str], services: Iterable[str]
    ) -> None:
        self._before = before
        self._tasks = set(tasks)  # restarted in place
        self._services = set(services)  # of these, tasks that are new
        self._told: set[str] = set()
        self.failed: set[str] = set()
        self.away: set[str] = set()  # without a node that could, and nothing is in their place

    def left(self) -> bool:
        """Say whether anything is awaited still."""
        return bool(self._tasks or self._services)

    def look(self, rows: list[dict[str, Any]]) -> list[str]:
        """Take the present rows; return a line for each task that is there, or failed.

        One that was started is restarted: its health is another matter, as in Compose.
        """
        lines = self._not_there(rows)
        for row in rows:
            task = str(row["id"])
            if not self._awaits(row) or task in self._told:
                continue
            started = row.get("started_at")
            again = started is not None and started != self._before.get(task)
            if not again and row.get("state") not in FINAL:
                continue
            self._told.add(task)
            self._tasks.discard(task)
            name = str(row.get("name"))
            if not again and row.get("state") != "complete":
                self.failed.add(name)
            lines.append(f"{name}: {'restarted' if again else row.get('state')}")
        self._tasks &= {row["id"] for row in rows}  # what was replaced meanwhile is not awaited
        for name in list(self._services):
            new = [
                row["id"]
                for row in rows
                if row.get("service") == name and row["id"] not in self._before
            ]
            if new and self._told.issuperset(new):
                self._services.discard(name)
        return lines

    def _not_there(self, rows: list[dict[str, Any]]) -> list[str]:
        """Wait for nothing that has no node, or one that is down; return who is nowhere else."""
        lost = [row for row in rows if row["id"] in self._tasks and _away(row)]
        here = {
            (row.get("service"), row.get("slot"))
            for row in rows
            if not _away(row) and row.get("state") not in FINAL
        }
        lines = []
        for row in lost:
            self._tasks.discard(str(row["id"]))
            name = str(row.get("name"))
            if (row.get("service"), row.get("slot")) not in here and name not in self.away:
                self.away.add(name)
                lines.append(f"warning: {name}: {row.get('status') or row.get('state')}")
        return lines

    def names(self, rows: list[dict[str, Any]]) -> list[str]:
        """Return what is not there yet, in words."""
        found = {
            f"{row.get('name')} ({row.get('status') or row.get('state')})"
            for row in rows
            if self._awaits(row) and row["id"] not in self._told
        }
        return sorted(found) or sorted(self._services)

    def _awaits(self, row: Mapping[str, Any]) -> bool:
        """Say whether the task is one that was restarted in place, or a new one of what was not."""
        new = row.get("service") in self._services and row["id"] not in self._before
        return row["id"] in self._tasks or new


def _away(row: Mapping[str, Any]) -> bool:
    """Say whether nothing can happen to the task now: its node is down, or none takes it."""
    return row.get("node_status") == "down" or row.get("state") == "pending"


def _rows(session: Invocation, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = session.client.get(path, all=True)["tasks"]
    return rows
