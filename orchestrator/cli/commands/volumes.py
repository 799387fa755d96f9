"""`corral volumes [SERVICE...]`: the volumes of a stack, and the nodes they are on."""

from __future__ import annotations

from orchestrator.cli.commands import volume
from orchestrator.cli.errors import CliError
from orchestrator.cli.show import formats, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

HEADERS = ("DRIVER", "VOLUME NAME", "NODE")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only what these services use")
    add("-q", "--quiet", action="store_true", help="only names")
    formats.describe(parser)


def run(args: argparse.Namespace, session: Invocation) -> int:
    stack = session.client.get(session.path())  # a stack that is not there is said
    known = {row["name"] for row in stack["services"]}
    if wrong := [name for name in args.services if name not in known]:
        services = ", ".join(sorted(known)) or "none"
        raise CliError(f"no service {wrong[0]!r}", hint=f"services of {stack['name']}: {services}")
    wanted = {f"{stack['name']}/{name}" for name in args.services or known}
    found = [row for row in volume.rows(session) if wanted & set(row["services"])]
    if args.quiet:
        table.show("\n".join(row["name"] for row in found))
        return 0
    lines = [(row["driver"], row["name"], row["node"]) for row in found]
    both = [{**volume.dockers(row), **row} for row in found]
    formats.show(args.format, both, lambda: table.render(HEADERS, lines))
    return 0
