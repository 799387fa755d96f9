"""`corral events`: what happened and what happens, in one stack or all (--all)."""

from __future__ import annotations

import sys
import time

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import table, times
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("--all", action="store_true", help="events of every stack and of the nodes")
    add("--since", metavar="TIME", help="also what is kept, from then on: 1h, 2026-01-31T12:00:00Z")
    add("--until", metavar="TIME", help="what is kept up to then, and end")
    add("-n", "--tail", metavar="N", help="also the last N of what is kept; all")
    add("-f", "--follow", action="store_true", help="go on with what comes: the default")
    add("--no-follow", action="store_true", help="print what is kept, and end")
    add(
        "--filter", action="append", default=[], metavar="WORD=VALUE", help="kind=task, node=n2 ..."
    )
    add("--json", action="store_true", help="one JSON object a line")
    add("--format", choices=("text", "json"), default="text", help="json: one object a line")


def text(event: Mapping[str, Any]) -> str:
    """Return one event as a line."""
    where = "/".join(str(event[key]) for key in ("stack", "service") if event.get(key))
    parts = [
        times.rfc3339(float(event.get("last") or event.get("time") or 0.0)),
        str(event.get("kind", "")),
        where,
        str(event.get("task") or ""),
        f"on {event['node']}" if event.get("node") else "",
        str(event.get("message") or ""),
        f"(by {event['by']})" if event.get("by") else "",
    ]
    if event.get("last"):
        first = times.rfc3339(float(event.get("time") or 0.0))
        parts.append(f"({event.get('count')} times since {first})")
    return table.printable(" ".join(part for part in parts if part))


def query_of(args: argparse.Namespace, now: float) -> dict[str, Any]:
    """Return what to ask for; `--until` and `--no-follow` end, everything else goes on."""
    if args.follow and args.no_follow:
        raise CliError("--follow and --no-follow exclude each other", code=USAGE)
    since = times.moment(args.since, now=now, flag="--since") if args.since else None
    until = times.moment(args.until, now=now, flag="--until") if args.until else None
    if args.tail not in (None, "all") and not args.tail.isdecimal():
        raise CliError(f"--tail {args.tail!r} is not a number", "--tail 100", code=USAGE)
    past = args.tail is not None or args.no_follow or since is not None or until is not None
    return {
        "history": past or None,
        "follow": None if until is None and not args.no_follow else False,
        "since": since,
        "until": until,
        "tail": None if args.tail in (None, "all") else int(args.tail),
        "filter": [*args.filter, *(f"service={name}" for name in args.services)] or None,
    }


def run(args: argparse.Namespace, session: Invocation) -> int:
    as_json = args.json or args.format == "json"
    query = query_of(args, time.time())
    query["stack"] = None if args.all else session.stack()
    for event in session.client.stream("GET", "/v1/events", query=query):
        print(jsontext.shown(event) if as_json else text(event))
        sys.stdout.flush()
    return 0
