"""`corral volumes [SERVICE...]`: the volumes of a stack, and the nodes they are on."""

from __future__ import annotations

from orchestrator.cli.commands import volume
from orchestrator.cli.session import check_services
from orchestrator.cli.show import formats, objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

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
    check_services(args.services, known, stack["name"])
    wanted = {f"{stack['name']}/{name}" for name in args.services or known}
    found = [row for row in volume.rows(session) if wanted & set(row["services"])]
    return objects.listed(args, found, HEADERS, cells, volume.dockers)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["driver"], row["name"], row["node"])
