"""`corral stats`: what a stack's running containers use, wherever they run.

Sums count from a container's beginning; the processors' share is of the time between two looks.
"""

from __future__ import annotations

import sys
import time

from orchestrator.cli import called
from orchestrator.cli.show import formats, inside, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

    Rows = list[dict[str, Any]]

HEADERS = (
    *("NAME", "NODE", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"),
)
FIRST = 0.5  # seconds between the two looks of the first table
EVERY = 1.0
HOME = "\033[H\033[J"


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-a", "--all", action="store_true", help="also what does not run, with nothing used")
    formats.describe(parser)
    add("--no-stream", action="store_true", help="once, and return")
    add("--no-trunc", action="store_true", help="do not cut lines to the terminal's width")


def run(args: argparse.Namespace, session: Invocation) -> int:
    before, _ = inside.rows(session, "usage", args.services, quiet=True)
    time.sleep(FIRST)
    live = sys.stdout.isatty() and not args.no_stream and args.format.kind == "table"
    while True:
        began = time.monotonic()
        rows, code = inside.rows(session, "usage", args.services, quiet=not args.no_stream)
        lines = compared(before, rows)
        if args.all:
            lines += _not_running(session, args.services, {str(row["id"]) for row in rows})
        limit = 0 if args.no_trunc else None
        text = args.format.text(lines, lambda: as_table(lines, limit), limit)  # noqa: B023 - at once
        table.show(f"{HOME}{text}" if live else text)
        sys.stdout.flush()
        if args.no_stream:
            return code
        before = rows
        time.sleep(max(0.0, EVERY - (time.monotonic() - began)))


def compared(before: Rows, rows: Rows) -> Rows:
    """Return each row with Docker's words; without two looks there is no share of processors."""
    known = {row["id"]: row.get("usage") for row in before}
    return [_line(row, known.get(row["id"])) for row in rows]


def _line(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    now = row.get("usage")
    base = {
        "ID": row["id"],
        "Container": row["id"],
        "Name": row["name"],
        "Service": row["service"],
        "Node": row["node"],
    }
    if not now:
        return {
            **base,
            **dict.fromkeys(("CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"), "--"),
            "reason": row.get("reason", ""),
        }
    limit = now.get("memory_limit") or 0
    return {
        **base,
        "CPUPerc": f"{share(before, now):.2f}%",
        "MemUsage": f"{binary(now['memory'])} / {binary(limit)}",
        "MemPerc": f"{100 * now['memory'] / limit if limit else 0:.2f}%",
        "NetIO": f"{decimal(now['received'])} / {decimal(now['sent'])}",
        "BlockIO": f"{decimal(now['read'])} / {decimal(now['written'])}",
        "PIDs": str(now["processes"]),
        "usage": now,
    }


def share(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> float:
    """Return how many hundredths of one processor were used between two looks."""
    passed = now["at"] - before["at"] if before else 0.0
    used = now["cpu"] - before["cpu"] if before else 0.0
    return 100 * used / passed if passed > 0 and used > 0 else 0.0


def as_table(lines: Rows, limit: int | None = None) -> str:
    keys = ("Name", "Node", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
    return table.render(HEADERS, [[line[key] for key in keys] for line in lines], limit)


def _not_running(session: Invocation, services: list[str], shown: set[str]) -> Rows:
    tasks = session.client.get(session.path("tasks"), all=True)["tasks"]
    asked, single, _ = called.meant(services, tasks)
    return [
        _line(task, None)
        for task in tasks
        if task["id"] not in shown
        and (not services or task["service"] in asked or task["id"] in single)
    ]


def binary(count: float) -> str:
    """Return bytes as Docker writes memory: ``1.2MiB``."""
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def decimal(count: float) -> str:
    """Return bytes as Docker writes traffic: ``1.45kB``."""
    return _scaled(count, 1000, ("B", "kB", "MB", "GB", "TB"))


def _scaled(count: float, base: int, units: tuple[str, ...]) -> str:
    place = 0
    while count >= base and place < len(units) - 1:
        count, place = count / base, place + 1
    return f"{count:.4g}{units[place]}"
