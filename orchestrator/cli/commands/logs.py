"""`corral logs`: what the containers print, merged by time over all nodes."""

from __future__ import annotations

import sys
import time

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import output, times
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-f", "--follow", action="store_true", help="go on with what comes")
    add("-n", "--tail", default="all", metavar="N", help="last lines of each container (all)")
    add("--since", metavar="TIME", help="from this time on: 10m, 2026-01-31T12:00:00Z")
    add("--until", metavar="TIME", help="up to this time")
    add("-t", "--timestamps", action="store_true", help="show times")
    add("--index", type=int, metavar="N", help="only replica N")
    add("--no-color", action="store_true", help="no colours")
    add("--no-log-prefix", action="store_true", help="only the lines themselves")
    add("--format", choices=("text", "json"), default="text", help="json: one object a line")


def tail_count(text: str) -> int | None:
    """Return the number of lines --tail asks for; None = all."""
    if text == "all":
        return None
    if text.isdigit():
        return int(text)
    raise CliError(f"--tail {text!r} is not a number of lines", "--tail 100", code=USAGE)


def run(args: argparse.Namespace, session: Invocation) -> int:
    now = time.time()
    until = times.moment(args.until, now=now, flag="--until") if args.until else None
    query = {
        "service": args.services or None,
        "follow": args.follow,
        "tail": tail_count(args.tail),
        "since": times.moment(args.since, now=now, flag="--since") if args.since else None,
        "timestamps": args.timestamps,
    }
    painter = output.Painter(
        colour=session.colour and not args.no_color,
        prefix=not args.no_log_prefix,
        timestamps=args.timestamps,
        names=_names(session, args.services),
    )
    stream = session.client.stream("GET", session.path("logs"), query=query)
    ending = f"-{args.index}"
    for line in stream:
        if until is not None and float(line.get("time") or 0.0) > until:
            continue
        if args.index is not None and not str(line.get("name", "")).endswith(ending):
            continue
        text = jsontext.shown(line) if args.format == "json" else painter.text(line)
        # Like Compose, a container's standard error stays standard error.
        error = line.get("stream") == "stderr" and args.format != "json"
        if error:
            sys.stdout.flush()  # so that both keep their order on one terminal
        (sys.stderr if error else sys.stdout).write(text + "\n")
        if args.follow:
            sys.stdout.flush()
    return 0


def _names(session: Invocation, services: list[str]) -> list[str]:
    """Return the containers' names, so that the first line is aligned already."""
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    start = f"{session.stack()}-"
    known = {row.get("service") for row in rows}
    known |= {row.get("name") for row in rows if row.get("oneoff")}
    for name in services:
        if name not in known:
            shown = ", ".join(sorted(map(str, known))) or "none"
            raise CliError(f"{name} has no containers", hint=f"services with tasks: {shown}")
    return [
        str(row.get("name", "")).removeprefix(start)
        for row in rows
        if not services or row.get("service") in services
    ]
