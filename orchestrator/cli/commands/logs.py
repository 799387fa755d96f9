"""`corral logs`: what the containers print, merged by time over all nodes."""

from __future__ import annotations

import sys
import time

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import output, times
from orchestrator.client.errors import NoAnswer
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

LATE = 2.0  # seconds a line may take from its node


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
    if text.isdecimal():
        return int(text)
    raise CliError(f"--tail {text!r} is not a number of lines", "--tail 100", code=USAGE)


def run(args: argparse.Namespace, session: Invocation) -> int:
    now = time.time()
    until = times.moment(args.until, now=now, flag="--until") if args.until else None
    follow, tail, over = args.follow, tail_count(args.tail), until is not None and until <= now
    query = {
        "service": args.services or None,
        "follow": follow and not over,  # nothing more can come
        "tail": None if over else tail,  # the last ones of those before that time, see _last
        "since": times.moment(args.since, now=now, flag="--since") if args.since else None,
        "timestamps": args.timestamps,
    }
    painter = output.Painter(
        colour=session.colour and not args.no_color,
        prefix=not args.no_log_prefix,
        timestamps=args.timestamps,
        names=_names(session, args.services),
    )
    lines = (line for line in _stream(session, query, until, now) if _meant(args, line, until))
    for line in _last(lines, tail) if over and tail is not None else lines:
        text = jsontext.shown(line) if args.format == "json" else painter.text(line)
        # Like Compose, a container's standard error stays standard error.
        error = line.get("stream") == "stderr" and args.format != "json"
        if error:
            sys.stdout.flush()  # so that both keep their order on one terminal
        (sys.stderr if error else sys.stdout).write(text + "\n")
        if args.follow:
            sys.stdout.flush()
    return 0


def _meant(args: argparse.Namespace, line: Mapping[str, Any], until: float | None) -> bool:
    if until is not None and float(line.get("time") or 0.0) > until:
        return False
    return args.index is None or line.get("slot") == args.index


def _stream(
    session: Invocation, query: Mapping[str, Any], until: float | None, now: float
) -> Iterator[Mapping[str, Any]]:
    """Yield lines, of what is followed until a moment after ``until``."""
    ends = None
    if query["follow"] and until is not None:
        ends = time.monotonic() + until - now + LATE
    path = session.path("logs")
    try:
        yield from session.client.stream("GET", path, query=query, until=ends)
    except NoAnswer:
        if ends is None or time.monotonic() < ends:
            raise


def _last(lines: Iterable[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Return the last lines of each container, in their order."""
    kept: dict[object, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, line in enumerate(lines):
        mine = kept.setdefault(line.get("task"), [])
        mine.append((number, line))
        del mine[: max(0, len(mine) - count)]
    found = [pair for mine in kept.values() for pair in mine]
    return [line for _, line in sorted(found, key=lambda pair: pair[0])]


def _names(session: Invocation, services: list[str]) -> list[str]:
    """Return the containers' names, so that the first line is aligned already."""
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    start = f"{session.stack()}-"
    if services:
        from orchestrator.cli import called  # most read all of them

        asked, single, unknown = called.meant(services, rows)
        asked |= {name for name in unknown if any(row.get("service") == name for row in rows)}
        if missing := [name for name in unknown if name not in asked]:
            known = {row.get("service") for row in rows}
            known |= {row.get("name") for row in rows if row.get("oneoff")}
            shown = ", ".join(sorted(map(str, known))) or "none"
            raise CliError(f"{missing[0]} has no containers", hint=f"services with tasks: {shown}")
        rows = [row for row in rows if row.get("service") in asked or row.get("id") in single]
    return [str(row.get("name", "")).removeprefix(start) for row in rows]
