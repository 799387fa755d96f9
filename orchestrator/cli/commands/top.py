"""`corral top`: the processes of a stack's running containers, wherever they run."""

from __future__ import annotations

import time

from orchestrator.cli.show import formats, inside, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = (*("SERVICE", "#", "NODE", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"),)


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    formats.describe(parser)


def run(args: argparse.Namespace, session: Invocation) -> int:
    rows, code = inside.rows(session, "processes", args.services)
    shown = [
        {"Name": row["name"], "Service": row["service"], "Node": row["node"], **process}
        for row in rows
        for process in row.get("processes") or ()
    ]
    formats.show(args.format, shown, lambda: as_table(rows, time.time()) if rows else "")
    return code


def as_table(rows: list[dict[str, Any]], now: float) -> str:
    """Return the table, with the columns of ``ps -ef`` as ``docker top`` has them."""
    return table.render(HEADERS, [_line(r, p, now) for r in rows for p in r.get("processes") or ()])


def _line(row: Mapping[str, Any], process: Mapping[str, Any], now: float) -> tuple[Any, ...]:
    started, cpu = float(process.get("started") or now), float(process.get("cpu") or 0.0)
    seconds = int(cpu)
    return (
        row.get("service", ""),
        row.get("slot", ""),
        row.get("node", ""),
        process.get("user", ""),
        process.get("pid", ""),
        process.get("parent", ""),
        int(min(100 * cpu / max(now - started, 1.0), 9999)),
        _moment(started, now),
        "pts" if process.get("terminal") else "?",
        f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        process.get("command", ""),
    )


def _moment(started: float, now: float) -> str:
    """Return the time of day of the last 24 hours, else the day, as ps does."""
    return time.strftime("%H:%M" if now - started < 86_400 else "%b%d", time.localtime(started))
