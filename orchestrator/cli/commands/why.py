"""`corral why`: why something is as it is, and what would help."""

from __future__ import annotations

import sys

from orchestrator.cli.errors import CliError
from orchestrator.cli.show import why
from orchestrator.client.http import quote
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "name",
        nargs="?",
        metavar="NAME",
        help="a service, a task, a node or a stack; or KIND/NAME. Without it: this stack",
    )
    add("--format", choices=("text", "json"), default="text", help="json: one object")


def run(args: argparse.Namespace, session: Invocation) -> int:
    try:
        stack = session.stack()
    except CliError:
        if args.name is None:
            raise
        stack = ""  # a node or a task by its id needs no file
    name = args.name or f"stack/{stack}"
    path = "/".join(quote(part) for part in name.split("/"))
    found = session.client.request("GET", f"/v1/why/{path}", query={"stack": stack or None})
    sys.stdout.write(jsontext.shown(found) + "\n" if args.format == "json" else why.text(found))
    return 0
