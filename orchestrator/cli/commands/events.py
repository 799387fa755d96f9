"""`corral events`: follow what happens, in one stack or all (--all)."""

from __future__ import annotations

import sys

from orchestrator.cli.show import times
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
    add("--json", action="store_true", help="one JSON object a line")
    add("--format", choices=("text", "json"), default="text", help="json: one object a line")


def text(event: Mapping[str, Any]) -> str:
    """Return one event as a line."""
    where = "/".join(str(event[key]) for key in ("stack", "service") if event.get(key))
    parts = [
        times.rfc3339(float(event.get("time") or 0.0)),
        str(event.get("kind", "")),
        where,
        str(event.get("task") or ""),
        f"on {event['node']}" if event.get("node") else "",
        str(event.get("message") or ""),
    ]
    return " ".join(part for part in parts if part)


def run(args: argparse.Namespace, session: Invocation) -> int:
    as_json = args.json or args.format == "json"
    query = {} if args.all else {"stack": session.stack()}
    for event in session.client.stream("GET", "/v1/events", query=query):
        if args.services and event.get("service") not in args.services:
            continue
        print(jsontext.shown(event) if as_json else text(event))
        sys.stdout.flush()
    return 0
