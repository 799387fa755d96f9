"""`corral restart`: end containers and start them again, in place; start what had ended.

The task, its address and its writable layer stay where something runs; changes in the file
are not picked up (that is `up`). What ends as soon as it runs again did not come back: it is
watched as long as `start` watches it, though not until it is healthy.
"""

from __future__ import annotations

import time

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR, CliError
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch
from orchestrator.client.errors import NoAnswer
from specs.patience import MONITOR, TRIAL
from specs.states import BROKEN, FINAL

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
        said.tell("nothing runs or has run that could be restarted", said.WARNING)
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
        for line in asked.look(rows, time.monotonic()):
            said.tell(line)
        if asked.failed or asked.crashed:
            until = min(until, time.monotonic() + AFTER_FAILURE)
        if asked.left() and time.monotonic() > told:
            told = float("inf")
            said.tell(f"waiting for {', '.join(asked.names(rows))}")
    if bad := {**asked.failed, **asked.crashed}:
        return _tell_failure(session, bad, command)
    if asked.left():
        names = ", ".join(asked.names(rows))
        raise CliError(f"not running again yet: {names}", hint=f"{command} ps", code=ERROR)
    if asked.away:
        hint = "that is done when their node is back; corral node ls"
        raise CliError(f"not restarted yet: {', '.join(sorted(asked.away))}", hint=hint, code=ERROR)
    return 0


def _tell_failure(session: Invocation, bad: Mapping[str, Mapping[str, Any]], command: str) -> int:
    """Say what did not come back, as `start` does."""
    board = boards.Board(session.stack(), "restart")
    name, row = min(bad.items())
    code = row.get("exit_code")
    names = [
        one if (ended := bad[one].get("exit_code")) is None else f"{one} (exit code {ended})"
        for one in sorted(bad)
    ]
    board.end = {
        "ok": False,
        "message": f"did not come back: {', '.join(names)}",
        "service": row.get("service"),
        "task": row.get("id"),
        "name": name,
        "node": row.get("node"),
        "exit_code": code,
    }
    watch.last_words(session, board)
    return watch.report(board, good=False, seconds=0.0, command=command)


class _Asked:
    """What a restart was asked of, and how far it is."""

    def __init__(
        self, before: Mapping[str, Any], tasks: Iterable[str], services: Iterable[str]
    ) -> None:
        self._before = before
        self._tasks = set(tasks)  # restarted in place
        self._services = set(services)  # of these, tasks that are new
        self._tried: dict[str, tuple[float, int]] = {}  # runs again: since when, its restarts
        self._over: set[str] = set()  # not awaited any more
        self.failed: dict[str, Mapping[str, Any]] = {}  # name -> row of what will not come back
        self.crashed: dict[str, Mapping[str, Any]] = {}  # of what its policy starts yet again
        self.away: set[str] = set()  # without a node that could, and nothing is in their place

    def left(self) -> bool:
        """Say whether anything is awaited still."""
        return bool(self._tasks or self._services)

    def look(self, rows: list[dict[str, Any]], now: float) -> list[str]:
        """Take the present rows; return a line for each task that runs again, or failed."""
        lines = self._not_there(rows)
        for row in rows:
            if self._awaits(row) and row["id"] not in self._over:
                lines += self._judge(row, now, replaced=_replaced(row, rows))
        self._tasks &= {row["id"] for row in rows}  # what was replaced meanwhile is not awaited
        for name in list(self._services):
            new = [
                row["id"]
                for row in rows
                if row.get("service") == name and row["id"] not in self._before
            ]
            if new and self._over.issuperset(new):
                self._services.discard(name)
        return lines

    def _judge(self, row: Mapping[str, Any], now: float, *, replaced: bool) -> list[str]:
        if replaced:
            # A release that was made meanwhile runs another task in its place, and judges that.
            self._end(str(row["id"]))
            return []
        task, name, state = str(row["id"]), str(row.get("name")), row.get("state")
        again = row.get("started_at") not in (None, self._before.get(task))
        lines = []
        if again and task not in self._tried:
            self._tried[task] = (now, int(row.get("restarts") or 0))
            lines.append(f"{name}: restarted")
        if state in FINAL:
            self._end(task)
            self.crashed.pop(name, None)
            if state in BROKEN or (state != "complete" and not again):
                self.failed[name] = row
            if state in BROKEN or not again:
                lines.append(f"{name}: {row.get('status') or state}")
        elif again and self._stays(row, now):
            self._end(task)
            self.crashed.pop(name, None)
        return lines

    def _stays(self, row: Mapping[str, Any], now: float) -> bool:
        """Say whether a task that runs again came to stay; note that it ended and runs anew."""
        task, name = str(row["id"]), str(row.get("name"))
        since, known = self._tried[task]
        restarts = int(row.get("restarts") or 0)
        if restarts > known or row.get("exit_code") is not None:
            self._tried[task] = (now, max(restarts, known))
            self.crashed[name] = (
                row
                if row.get("exit_code") is not None
                else {
                    **row,
                    "exit_code": self.crashed.get(name, {}).get("exit_code"),
                }
            )
            return False
        if name in self.crashed:
            return now - since >= MONITOR
        return row.get("health") == "healthy" or now - since >= TRIAL

    def _end(self, task: str) -> None:
        self._over.add(task)
        self._tasks.discard(task)

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
            if self._awaits(row) and row["id"] not in self._over
        }
        return sorted(found) or sorted(self._services)

    def _awaits(self, row: Mapping[str, Any]) -> bool:
        """Say whether the task is one that was restarted in place, or a new one of what was not."""
        new = row.get("service") in self._services and row["id"] not in self._before
        return row["id"] in self._tasks or new


def _replaced(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether the task was told to go, and another has its place."""
    if row.get("state") in BROKEN or not (row.get("stopping") or row.get("state") in FINAL):
        return False
    place = (row.get("service"), row.get("slot"))
    return any(
        other["id"] != row["id"]
        and (other.get("service"), other.get("slot")) == place
        and float(other.get("created_at") or 0.0) > float(row.get("created_at") or 0.0)
        for other in rows
    )


def _away(row: Mapping[str, Any]) -> bool:
    """Say whether nothing can happen to the task now: its node is down, or none takes it."""
    return row.get("node_status") == "down" or row.get("state") == "pending"


def _rows(session: Invocation, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = session.client.get(path, all=True)["tasks"]
    return rows
