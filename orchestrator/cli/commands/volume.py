"""`corral volume create|ls|inspect|backup|restore|move|rm|prune`: named volumes of all nodes.

A volume lives on one node: the one named with --node, else the one where it is first used.
A stack uses one that somebody made with `external: true`; nothing but `rm` and `prune -a`, or
`down -v` of the stack that made it, takes one away.
"""

from __future__ import annotations

from orchestrator.cli.show import objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

HEADERS = ("DRIVER", "VOLUME NAME", "NODE", "STACK", "USED BY", "STATUS")


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = kinds.add_parser("create", help="make a volume", allow_abbrev=False)
    make.add_argument("name", nargs="?", default="", metavar="NAME")
    make.add_argument("-d", "--driver", default="", help="local")
    make.add_argument("-o", "--opt", action="append", default=[], metavar="KEY=VALUE")
    make.add_argument(
        "--node", default="", metavar="NODE", help="its home (default: where it is first used)"
    )
    make.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="a note of yours"
    )
    gone = objects.describe_rest(kinds, "volume")
    gone.add_argument("-f", "--force", action="store_true", help="also if one is not there")
    save = kinds.add_parser("backup", help="write a volume's data to a file")
    save.add_argument("name", metavar="VOLUME")
    save.add_argument("-o", "--output", metavar="FILE", help="(default: VOLUME.tar.gz; - = stdout)")
    save.add_argument("--pause", action="store_true", help="freeze what uses it meanwhile")
    save.add_argument("--node", metavar="NODE", help="of a global service's: which node's")
    save.add_argument("-f", "--force", action="store_true", help="write over FILE")
    load = kinds.add_parser("restore", help="make a file the data of a volume")
    load.add_argument("name", metavar="VOLUME")
    load.add_argument("file", metavar="FILE|-")
    load.add_argument("--node", metavar="NODE", help="of a new one: where (default: the only node)")
    load.add_argument("-f", "--force", action="store_true", help="in the place of data there is")
    move = kinds.add_parser("move", help="move volumes, and what uses them, to another node")
    move.add_argument("names", nargs="+", metavar="VOLUME", help="several move as one")
    does = move.add_mutually_exclusive_group(required=True)
    does.add_argument("--to", metavar="NODE", help="where to")
    does.add_argument("--cancel", action="store_true", help="take back a move under way")
    does.add_argument("--confirm", action="store_true", help="remove what the last move left")
    does.add_argument("--back", action="store_true", help="go back to what the last move left")
    move.add_argument("-d", "--detach", action="store_true", help="do not wait for the end")
    prune = kinds.add_parser("prune", help="remove all volumes that no stack uses")
    prune.add_argument("-a", "--all", action="store_true", help="those with a name, too")
    objects.describe_prune(prune)


def run(args: argparse.Namespace, session: Invocation) -> int:
    does = {"create": _create, "inspect": _inspect, "rm": _remove, "remove": _remove}
    does |= {"prune": _prune, "backup": _backup, "restore": _restore, "move": _move}
    return does.get(args.action, _list)(args, session)


def _list(args: argparse.Namespace, session: Invocation) -> int:
    return objects.show(args, rows(session), HEADERS, cells, dockers)


def _inspect(args: argparse.Namespace, session: Invocation) -> int:
    return objects.inspect(args, session, "volume", dockers)


def _remove(args: argparse.Namespace, session: Invocation) -> int:
    return objects.remove(session, "volume", args.names, missing=args.force)


def _backup(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli import saving  # lists need none of it

    return saving.backup(args, session)


def _restore(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli import saving

    return saving.restore(args, session)


def _move(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli import moving

    return moving.run(args, session)


def _prune(args: argparse.Namespace, session: Invocation) -> int:
    if args.all:
        return objects.prune(args, session, "volume", rows(session))
    from orchestrator.cli import said

    said.tell(
        "volumes with a name stay: -a takes them, too; those without one go by themselves, with"
        " their replica",
        said.WARNING,
    )
    return 0


def _create(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli.pairs import labels, pairs  # lists need none of it

    body = {
        "name": args.name,
        "driver": args.driver,
        "options": pairs(args.opt, "-o"),
        "labels": labels(args.label),
        "node": args.node,
    }
    print(session.client.request("POST", objects.path("volume"), body=body)["name"])
    return 0


def rows(session: Invocation) -> list[dict[str, Any]]:
    """Return every volume of the cluster."""
    found: list[dict[str, Any]] = session.client.get(objects.path("volume"))["volumes"]
    return found


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    users = ", ".join(row["used_by"])
    node = row["node"] or ("each of its service" if row.get("everywhere") else "")
    return (row["driver"], row["name"], node, row["stack"], users, status(row))


def status(row: Mapping[str, Any]) -> str:
    """Return what there is to say of a volume: why it is not used, where else its data is."""
    found = [row["reason"]]
    if move := row.get("move"):
        from orchestrator.cli.moving import move_words  # most lists need none of it

        found.append(move_words(move))
    if kept := row.get("kept"):
        name = row["name"]
        found.append(
            f"{kept} keeps what it was before its move: corral volume move --confirm {name} "
            f"removes that, --back goes back to it"
        )
    found.append(row.get("moved", ""))
    return "; ".join(filter(None, found))


def place(row: Mapping[str, Any]) -> str:
    """Return where on its node the data is; what is mounted for a task only has no place."""
    options = row["options"]
    if options:
        return str(options.get("device", "")) if "bind" in str(options.get("o")) else ""
    return (
        f"/var/lib/corral/agent/volumes/{row['name']}/_data"
        if row["node"] or row.get("everywhere")
        else ""
    )


def dockers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Name": row["name"],
        "Driver": row["driver"],
        "Scope": "local",
        "Labels": row["labels"],
        "Options": row["options"],
        "Mountpoint": place(row),
        "CreatedAt": objects.created(row),
    }
