"""`corral schedule ls|run|pause|resume`: services with `x-corral.schedule`.

Each due time begins one *iteration*: a container of its own, named STACK-SERVICE-NUMBER. `ps` lists
those that run, `ps -a` and `logs` also those that are kept.
"""

from __future__ import annotations

import time

from orchestrator.cli.errors import CliError
from orchestrator.cli.show import formats, table, times
from orchestrator.client.http import quote
from specs.kit.amounts import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = ("STACK", "SERVICE", "CRON", "NEXT", "LAST", "RESULT", "MISSED")
LOOK = 0.5  # seconds between two looks at an iteration that is followed


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = kinds.add_parser("ls", help="when each is due, and what came of the last one")
    listing.add_argument("-q", "--quiet", action="store_true", help="only names of services")
    formats.describe(listing)
    now = kinds.add_parser("run", help="begin an iteration now, and end with its exit code")
    now.add_argument("service", metavar="SERVICE")
    now.add_argument("-d", "--detach", action="store_true", help="do not wait for its end")
    for action, text in (
        ("pause", "have none begin by itself"),
        ("resume", "have them begin again, from now on"),
    ):
        one = kinds.add_parser(action, help=text)
        one.add_argument("service", metavar="SERVICE")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.action == "ls":
        return _list(args, session)
    made = act(session, args.service, args.action)
    row = made["schedule"]
    if args.action != "run":
        print(f"{args.service}: {next_words(row, time.time())}")
        return 0
    number = int(made.get("number") or 0)
    name = f"{session.stack()}-{args.service}-{number}"
    print(f"{name} begins", flush=True)
    return 0 if args.detach else _follow(session, args.service, number)


def act(session: Invocation, service: str, action: str) -> dict[str, Any]:
    """Ask for something of a schedule; return the answer (specs.schedule.ScheduleActed)."""
    path = session.path("schedules", quote(service))
    done: dict[str, Any] = session.client.request("POST", path, body={"action": action})
    return done


def rows(session: Invocation, stack: str = "") -> list[dict[str, Any]]:
    """Return the schedules of a stack, or all."""
    found: list[dict[str, Any]] = session.client.get("/v1/schedules", stack=stack or None)[
        "schedules"
    ]
    return found


def _list(args: argparse.Namespace, session: Invocation) -> int:
    given = getattr(session.flags, "project_name", None)
    found = rows(session, str(given or ""))
    if args.quiet:
        table.show("\n".join(str(row.get("service")) for row in found))
        return 0
    now = time.time()
    formats.show(
        args.format,
        [{**row, "Name": row.get("service", ""), "Stack": row.get("stack", "")} for row in found],
        lambda: table.render(HEADERS, [_cells(row, now) for row in found]),
    )
    return 0


def _cells(row: Mapping[str, Any], now: float) -> tuple[str, ...]:
    last = row.get("last") or {}
    zone = row.get("timezone") or "UTC"
    cron = str(row.get("cron", ""))
    skipped = int(row.get("skipped") or 0)
    return (
        str(row.get("stack", "")),
        str(row.get("service", "")),
        cron if zone == "UTC" else f"{cron} {zone}",
        next_words(row, now),
        times.since(last.get("begun_at"), now),
        result_words(last),
        f"{skipped} ({row.get('skipped_why')})" if skipped else "",
    )


def next_words(row: Mapping[str, Any], now: float) -> str:
    """Return when the next one is due: ``in 3 h (2026-11-29 02:00:00Z)``, or why none is."""
    why, at = str(row.get("why") or ""), row.get("next_at")
    if not isinstance(at, int | float):
        return why or "not due by itself"
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
    words = f"in {span(max(0.0, at - now))} ({when})"
    return f"{words}; {why}" if why else words


def result_words(last: Mapping[str, Any]) -> str:
    """Return what came of an iteration: ``complete``, ``failed (exit code 3)``, ``running``."""
    if not last:
        return ""
    outcome, code = str(last.get("outcome") or ""), last.get("exit_code")
    if not outcome:
        return "running" if last.get("started_at") else "waiting"
    if outcome == "complete":
        return outcome
    note = f"exit code {code}" if code is not None and outcome == "failed" else last.get("reason")
    return f"{outcome} ({note})" if note else outcome


def _follow(session: Invocation, service: str, number: int) -> int:
    """Wait until an iteration has ended; return its exit code."""
    while True:
        row = next((r for r in rows(session, session.stack()) if r["service"] == service), None)
        known = (row or {}).get("iterations") or ()
        one = next((i for i in known if i.get("number") == number), None)
        if row is None or one is None:
            raise CliError(f"iteration {number} of {service} is not kept any more")
        if one.get("outcome"):
            print(f"{one['name']} {result_words(one)}")
            code = one.get("exit_code")
            return (int(code) & 0xFF) if code is not None else int(one["outcome"] != "complete")
        time.sleep(LOOK)
