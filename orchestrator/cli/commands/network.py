"""`corral network create|ls|inspect|rm|prune`: networks that belong to no stack, and all others.

A stack uses one with `external: true`; two stacks on one reach each other by service name, on
whichever nodes they are. What a stack made goes with the stack.
"""

from __future__ import annotations

from orchestrator.cli.show import objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = ("NETWORK ID", "NAME", "DRIVER", "SUBNET", "STACK", "USED BY")


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = kinds.add_parser("create", help="make a network", allow_abbrev=False)
    make.add_argument("name", metavar="NAME")
    make.add_argument("-d", "--driver", default="", help="overlay or bridge: both span the nodes")
    make.add_argument("--subnet", action="append", default=[], metavar="CIDR", help="its addresses")
    make.add_argument("--ipv4", action="store_true", help="accepted; every network has it")
    make.add_argument("--internal", action="store_true", help="without a way out of the cluster")
    make.add_argument("--attachable", action="store_true", help="accepted; every network is")
    make.add_argument("--scope", choices=("swarm", "local", "global"), help="accepted")
    make.add_argument("-o", "--opt", action="append", default=[], metavar="KEY=VALUE")
    make.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="a note of yours"
    )
    gone = objects.describe_rest(kinds, "network")
    gone.add_argument("-f", "--force", action="store_true", help="also if one is not there")
    prune = kinds.add_parser("prune", help="remove all networks that no stack uses")
    objects.describe_prune(prune)


def run(args: argparse.Namespace, session: Invocation) -> int:
    match args.action:
        case "create":
            from orchestrator.cli.pairs import labels, pairs  # lists need none of it

            body = {
                "name": args.name,
                "driver": args.driver,
                "subnets": args.subnet,
                "internal": args.internal,
                "attachable": args.attachable,
                "options": pairs(args.opt, "-o"),
                "labels": labels(args.label),
            }
            print(session.client.request("POST", objects.path("network"), body=body)["id"])
            return 0
        case "inspect":
            return objects.inspect(args, session, "network", whole)
        case "rm" | "remove":
            return objects.remove(session, "network", args.names, missing=args.force)
        case "prune":
            return objects.prune(args, session, "network", _rows(session))
        case _:
            return objects.show(args, _rows(session), HEADERS, cells, dockers)


def _rows(session: Invocation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.client.get(objects.path("network"))["networks"]
    return found


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    subnets, users = ", ".join(row["subnets"]), ", ".join(row["used_by"])
    return (row["id"], row["name"], row["driver"], subnets, row["stack"], users)


def dockers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ID": row["id"],
        "Name": row["name"],
        "Driver": row["driver"],
        "Scope": "swarm",
        "Internal": row["internal"],
        "Labels": row["labels"],
        "CreatedAt": objects.created(row),
    }


def whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the keys of ``docker network inspect``; a container's key is its name."""
    return {
        **dockers(row),  # templates say .ID, JSON "Id"
        "Id": row["id"],
        "Created": objects.created(row),
        "EnableIPv6": any(":" in subnet for subnet in row["subnets"]),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": subnet} for subnet in row["subnets"]],
        },
        "Attachable": row["attachable"],
        "Ingress": False,
        "Containers": {
            name: {"Name": name, "IPv4Address": address}
            for name, address in sorted((row.get("tasks") or {}).items())
        },
        "Options": {},
    }
