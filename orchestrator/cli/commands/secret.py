"""`corral secret create|ls|inspect|rm`: secrets that belong to no stack, sealed in the store.

A secret never changes: make another one under a new name and let the file name that; services
change over to it as to any change of the file. Its value is never shown.
"""

from __future__ import annotations

import base64
import sys

from orchestrator.cli.errors import CliError
from orchestrator.cli.show import objects, times
from specs.kit.amounts import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = ("ID", "NAME", "SIZE", "CREATED", "STACK", "USED BY")


def describe(parser: argparse.ArgumentParser, kind: str = "secret") -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = kinds.add_parser("create", help=f"seal a {kind} under a name", allow_abbrev=False)
    make.add_argument("name", metavar="NAME")
    make.add_argument("file", metavar="FILE|-", help="what is in it; - = standard input")
    objects.describe_labels(make)
    objects.describe_rest(kinds, kind)


def run(args: argparse.Namespace, session: Invocation, kind: str = "secret") -> int:
    match args.action:
        case "create":
            from orchestrator.cli.pairs import labels  # lists need none of it

            body = {
                "name": args.name,
                "data": base64.b64encode(_read(args.file)).decode(),
                "secret": kind == "secret",
                "labels": labels(args.label),
            }
            print(session.client.request("POST", objects.path(kind), body=body)["id"])
            return 0
        case "inspect":
            return objects.inspect(args, session, kind, dockers)
        case "rm" | "remove":
            return objects.remove(session, kind, args.names)
        case _:
            rows = session.client.get(objects.path(kind))["contents"]
            return objects.show(args, rows, HEADERS, cells, dockers)


def _read(file: str) -> bytes:
    """Return what is in a file, or comes on standard input. Raises CliError."""
    from specs.bounds import MOST_BYTES

    what = "standard input" if file == "-" else file
    if file == "-":
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        with open(file, "rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    if not data:
        raise CliError(f"{what} is empty")
    if len(data) > MOST_BYTES:
        raise CliError(
            f"{what} has more than {size(MOST_BYTES)}",
            hint="keep large files in an image or a volume",
        )
    return data


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    at, users = times.rfc3339(float(row["created_at"])), ", ".join(row["used_by"])
    return (row["id"], row["name"], size(row["size"]), at, row["stack"], users)


def dockers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ID": row["id"],
        "Name": row["name"],
        "Labels": row["labels"],
        "CreatedAt": objects.created(row),
    }
