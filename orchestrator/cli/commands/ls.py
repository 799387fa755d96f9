"""`corral ls`: the stacks of the cluster."""

from __future__ import annotations

from orchestrator.cli.show import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="only names")
    add("-a", "--all", action="store_true", help="accepted; every stack is always listed")
    add("--format", choices=("table", "json"), default="table", help="json: one object a line")


def remarks(row: Mapping[str, Any]) -> str:
    """Return why the stack is as it is, and what of it no file has any more."""
    orphans = ", ".join(row.get("orphans") or ())
    kept = f"orphans: {orphans} (up --remove-orphans)" if orphans else ""
    return "; ".join(part for part in (str(row.get("reason") or ""), kept) if part)


def run(args: argparse.Namespace, session: Invocation) -> int:
    rows = sorted(session.client.get("/v1/stacks")["stacks"], key=lambda row: str(row.get("name")))
    if args.quiet:
        table.show("\n".join(row["name"] for row in rows))
    elif args.format == "json":
        table.show(table.json_lines(rows))
    else:
        print(
            table.render(
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
        )
    return 0
