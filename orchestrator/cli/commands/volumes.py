"""`corral volumes [SERVICE...]`: the volumes of a stack, and the nodes they are on."""

from __future__ import annotations

from orchestrator.cli.commands import volume
from orchestrator.cli.errors import CliError
from orchestrator.cli.show import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

HEADERS = ("DRIVER", "VOLUME NAME", "NODE")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only what these services use")
    add("-q", "--quiet", action="store_true", help="only names")
    add("--format", choices=("table", "json"), default="table", help="json: one object a line")


def run(args: argparse.Namespace, session: Invocation) -> int:
    stack = session.client.get(session.path())  # a stack that is not there is said
    known = {row["name"] for row in stack["services"]}
    if wrong := [name for name in args.services if name not in known]:
        services = ", ".join(sorted(known)) or "none"
        raise CliError(f"no service {wrong[0]!r}", hint=f"services of {stack['name']}: {services}")
    found = [
        row
        for row in volume.rows(session)
        if any(
            user["stack"] == stack["name"] and (not args.services or user["service"] in args.services)
            for user in row["mounted_by"]
        )
    ]
    if args.quiet:
        table.show("\n".join(row["name"] for row in found))
    elif args.format == "json":
        table.show(table.json_lines({**volume.dockers(row), **row} for row in found))
    else:
        lines = [(row["driver"], row["name"], row["node"]) for row in found]
        print(table.render(HEADERS, lines))
    return 0
