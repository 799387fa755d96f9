"""`corral images [SERVICE...]`: the image of each container of a stack, wherever it is.

What is in the nodes' stores beside these is not asked: sizes and dates are not known here.
"""

from __future__ import annotations

from orchestrator.cli.session import check_services
from orchestrator.cli.show import formats, table
from orchestrator.cli.show.order import natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = ("CONTAINER", "REPOSITORY", "TAG", "IMAGE ID", "NODE")
SHORT = 12  # letters of a digest that people are shown


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-q", "--quiet", action="store_true", help="only the images' ids, each once")
    formats.describe(parser)


def run(args: argparse.Namespace, session: Invocation) -> int:
    stack = session.client.get(session.path())  # a stack that is not there is said
    rows = session.client.get(session.path("tasks"), all=True)["tasks"]
    known = {str(row["name"]) for row in stack["services"]} | {str(r["service"]) for r in rows}
    if args.services:
        from orchestrator.cli import called  # lists without words need none of it

        services, single, unknown = called.meant(args.services, rows, known)
        check_services(unknown, known, stack["name"])
        rows = [row for row in rows if row["service"] in services or row["id"] in single]
    rows = sorted(rows, key=lambda row: natural(str(row["name"])))
    found = [_shown(row) for row in rows]
    if args.quiet:
        ids = (str(one["ID"]).removeprefix("sha256:") for one in found if one["ID"])
        table.show("\n".join(dict.fromkeys(ids)))
        return 0
    formats.show(args.format, found, lambda: table.render(HEADERS, [_cells(o) for o in found]))
    return 0


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a container's image, with Docker's keys."""
    name, _, digest = str(row.get("image") or "").partition("@")
    digest = digest or str(row.get("image_digest") or "")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return {
        "ID": digest,
        "ContainerName": str(row.get("name") or ""),
        "Repository": f"{head}{slash}{last}",
        "Tag": tag or "latest",
        "Service": str(row.get("service") or ""),
        "Node": str(row.get("node") or ""),
    }


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    short = str(one["ID"]).removeprefix("sha256:")[:SHORT]
    return (one["ContainerName"], one["Repository"], one["Tag"], short or "-", one["Node"] or "-")
