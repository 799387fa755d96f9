"""`corral rollout status|pause|resume|abort|promote`: an update that is under way, by hand."""

from __future__ import annotations

import os
import time

from orchestrator.cli import said
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import formats, table, times, watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = ("SERVICE", "WAY", "STATE", "UPDATED", "MISSING", "WHAT IT WAITS FOR")
ACTIONS = {
    "pause": "begin no further replacement; what is under way is completed",
    "resume": "go on with what was paused, or failed",
    "promote": "replace the others, too: the canary is good",
}


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    sub = kinds.add_parser("status", help="how far it is, what it waits for, until when")
    sub.add_argument("services", nargs="*", metavar="SERVICE", help="only these services")
    formats.describe(sub)
    for name, text in ACTIONS.items():
        sub = kinds.add_parser(name, help=text)
        sub.add_argument("services", nargs="*", metavar="SERVICE", help="only these services")
        if name != "pause":
            sub.add_argument("-d", "--detach", action="store_true", help="do not wait for its end")
    sub = kinds.add_parser("abort", help="go back to what ran well before, all of the stack")
    sub.add_argument("-d", "--detach", action="store_true", help="do not wait until that runs")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.action == "status":
        return _status(args, session)
    board = boards.Board(session.stack(), "rollout")
    body = {
        "key": os.urandom(16).hex(),
        "action": args.action,
        "services": getattr(args, "services", []),
    }
    answer = session.client.persist("POST", session.path("rollout"), body=body) or {}
    if answer.get("message"):
        said.tell(f"{board.stack}: {answer['message']}")
    command = watch.command_prefix(session)
    if getattr(args, "detach", True):
        return 0
    if args.action == "abort" and answer.get("release") is None:
        return _back(session, board.stack)
    board.release = int(answer["release"])
    return watch.release(
        session,
        board,
        answer["release"],
        limit=None,
        late="is not updated",
        interrupted=lambda: f"it goes on in the background: {command} rollout status",
    )


def _back(session: Invocation, stack: str) -> int:
    """Wait until what ran before runs again; return the exit code."""
    while True:
        status = session.client.get(session.path("rollout"))
        if status.get("back") == "done" or status.get("state") != "rolled_back":
            said.tell(f"{stack}: release {status.get('running')} runs again")
            return 0
        if status.get("back") == "failed":
            said.tell(f"{stack}: going back failed: {status.get('back_reason')}", said.ERROR)
            return 1
        time.sleep(0.15)


def _status(args: argparse.Namespace, session: Invocation) -> int:
    status = session.client.get(session.path("rollout"))
    rows = [r for r in status["services"] if not args.services or r["service"] in args.services]
    shown = [{**row, "Name": row["service"]} for row in rows]
    formats.show(args.format, shown, lambda: "\n".join(_told(status, rows)))
    return 0


def _told(status: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    state = str(status["state"]).replace("_", " ")
    reason = table.first_line(str(status.get("reason") or ""))
    lines = [
        f"{status['stack']}: release {status['release']} is {state}"
        + (f": {reason}" if reason else "")
    ]
    back = {
        "going": "going back is under way",
        "done": f"release {status.get('running')} runs again",
        "failed": f"going back failed: {status.get('back_reason')}",
    }.get(str(status.get("back") or ""))
    lines += [back] if back else []
    if rows:
        lines.append(table.render(HEADERS, [_cells(row) for row in rows]))
    return lines


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    waits = str(row.get("waits") or "")
    if row.get("under_way"):
        names = ", ".join(row["under_way"])
        waits = f"{waits}; under way: {names}" if waits else f"under way: {names}"
    if row.get("until"):
        waits += f", until {times.of_day(row['until'])}"
    if row.get("kept_until"):
        kept = f"{len(row['kept'])} old tasks are kept until {times.of_day(row['kept_until'])}"
        waits = f"{waits}; {kept}" if waits else kept
    return (
        row["service"],
        row["way"],
        row["state"],
        f"{row['updated']}/{row['total']}",
        str(row["unavailable"]),
        waits,
    )
