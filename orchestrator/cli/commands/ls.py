"""`corral ls`: the stacks of the cluster."""

from __future__ import annotations

from orchestrator.cli.show import filters, formats, table, undecided

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation


FILTERS = ("name", "status")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="only names")
    add("-a", "--all", action="store_true", help="accepted; every stack is always listed")
    formats.describe(parser)
    filters.describe(parser, FILTERS)


def remarks(row: Mapping[str, Any]) -> str:
    """Return why the stack is as it is, and what of it no file has any more."""
    orphans = ", ".join(row.get("orphans") or ())
    kept = f"orphans: {orphans} (up --remove-orphans)" if orphans else ""
    return "; ".join(
        part for part in (table.first_line(str(row.get("reason") or "")), kept) if part
    )


def run(args: argparse.Namespace, session: Invocation) -> int:
    wanted = filters.parse(args.filter, FILTERS)
    rows = [
        row
        for row in undecided.listed(session.client, "stacks", "/v1/stacks")
        if filters.keeps(wanted, row)
    ]
    rows.sort(key=lambda row: str(row.get("name")))
    if args.quiet:
        table.show("\n".join(row["name"] for row in rows))
    else:
        formats.show(args.format, [as_compose(row) for row in rows], lambda: as_table(rows))
    return 0


def as_compose(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the keys of ``docker compose ls --format json`` beside our own."""
    counts = sorted((row.get("containers") or {}).items())
    return {
        **row,
        "Name": row.get("name", ""),
        "Status": ", ".join(f"{word}({n})" for word, n in counts) or row.get("status", ""),
        "ConfigFiles": ",".join(row.get("config_files") or ()),
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    return table.render(
        ("NAME", "STATUS", "RELEASE", "SERVICES", "TASKS", "REASON"),
        [
            (
                row.get("name", ""),
                row.get("status", ""),
                row.get("release", ""),
                row.get("services", ""),
                row.get("tasks", ""),
                remarks(row),
            )
            for row in rows
        ],
    )
