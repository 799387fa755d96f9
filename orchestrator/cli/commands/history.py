"""`corral history`: a stack's releases, the newest first."""

from __future__ import annotations

import time

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import formats, table, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

STATES = {"rolled_back": "rolled back"}
SHA = 8  # characters of a commit


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("service", nargs="?", metavar="SERVICE", help="only releases that changed it")
    add("-n", "--limit", type=int, metavar="N", help="so many, the newest")
    add("-q", "--quiet", action="store_true", help="only numbers")
    formats.describe(parser)


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.limit is not None and args.limit < 1:
        raise CliError(f"-n {args.limit} shows none", hint="corral history -n 5", code=USAGE)
    query = {"service": args.service} if args.service else {}
    if args.limit is not None:
        query["limit"] = args.limit
    rows = session.client.get(session.path("history"), **query)["releases"]
    if args.quiet:
        table.show("\n".join(str(row["number"]) for row in rows))
    else:
        formats.show(args.format, rows, lambda: as_table(rows, time.time()))
    return 0


def as_table(rows: list[dict[str, Any]], now: float) -> str:
    return table.render(
        ("", "RELEASE", "STATE", "WHEN", "WHO", "CHANGED", "MESSAGE"),
        [
            (
                "*" if row.get("running") else "",
                row.get("number", ""),
                STATES.get(str(row.get("state")), row.get("state", "")),
                times.since(row.get("created_at"), now),
                row.get("who") or "",
                changed(row),
                message(row),
            )
            for row in rows
        ],
    )


def changed(row: Mapping[str, Any]) -> str:
    """Return what it changed, and why it came to nothing."""
    reason = table.first_line(str(row.get("reason") or ""))
    if not reason or row.get("state") == "deployed":
        return str(row.get("changed") or "")
    return f"{row.get('changed')}: {reason}" if row.get("changed") else reason


def message(row: Mapping[str, Any]) -> str:
    """Return why it was made, and from which commit."""
    by = row.get("by") or {}
    commit = str(by.get("commit") or "")[:SHA]
    if commit:
        branch = str(by.get("branch") or "")
        commit = f"{branch} {commit}".lstrip() + ("+" if by.get("dirty") else "")
    text = str(by.get("message") or "")
    return f"{text} ({commit})" if text and commit else text or commit
