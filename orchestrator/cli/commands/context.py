"""`corral context create|use|ls|rm|show|inspect`: names for controllers, as `docker context`."""

from __future__ import annotations

import re

from orchestrator.cli import said
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import formats, table
from orchestrator.client import contexts
from orchestrator.client.places import default_host
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    sub = kinds.add_parser("create", help="give a controller a name")
    sub.add_argument("name", metavar="NEW")
    sub.add_argument("--host", "--docker", required=True, metavar="ADDRESS", help="ssh://user@host")
    sub.add_argument("--description", default="", metavar="TEXT", help="what it is")

    sub = kinds.add_parser("update", help="change what a name means")
    sub.add_argument("name", metavar="CONTEXT")
    sub.add_argument("--host", "--docker", metavar="ADDRESS", help="ssh://user@host")
    sub.add_argument("--description", metavar="TEXT", help="what it is")

    sub = kinds.add_parser("use", help="talk to this controller from now on")
    sub.add_argument("name", metavar="CONTEXT")

    sub = kinds.add_parser("ls", aliases=["list"], help="list them; * is in use")
    sub.add_argument("-q", "--quiet", action="store_true", help="only names")
    formats.describe(sub)

    sub = kinds.add_parser("rm", aliases=["remove"], help="forget names")
    sub.add_argument("names", nargs="+", metavar="CONTEXT")
    sub.add_argument("-f", "--force", action="store_true", help="also the one in use")

    kinds.add_parser("show", help="print the name of the one in use")
    sub = kinds.add_parser("inspect", help="everything about them, as JSON")
    sub.add_argument("names", nargs="*", metavar="CONTEXT")
    sub.add_argument("-f", "--format", default="json", type=formats.Format, help="or a template")


def run(args: argparse.Namespace, session: Invocation) -> int:
    known = contexts.read()
    match args.action:
        case "create":
            return _create(args, known)
        case "update":
            return _update(args, known)
        case "use":
            contexts.host_of(args.name)
            contexts.write({**known, "current": args.name})
            print(args.name)
            _warn_of_environment()
        case "rm" | "remove":
            return _remove(args, known)
        case "show":
            print(contexts.chosen(session.flags.host, session.flags.context)[1] or "(an address)")
        case "inspect":
            return _inspect(args, session, known)
        case _:
            _ls(args, session, known)
    return 0


def _address(text: str) -> str:
    """Return the address in Docker's ``host=ssh://...`` or alone. Raises ClientError."""
    from orchestrator.client.client import Client

    host = text.removeprefix("host=")
    Client(host)  # reads the address and refuses nonsense; nothing is connected
    return host


def _create(args: argparse.Namespace, known: dict[str, Any]) -> int:
    if not NAME.fullmatch(args.name) or args.name == contexts.DEFAULT:
        raise CliError(
            f"{args.name!r} cannot be the name of a context",
            hint="two or more letters, digits, and _ . + - behind the first; default is taken",
            code=USAGE,
        )
    if args.name in known["contexts"]:
        raise CliError(
            f"there is a context {args.name} already", f"corral context update {args.name}"
        )
    known["contexts"][args.name] = {"host": _address(args.host), "description": args.description}
    contexts.write(known)
    print(args.name)
    said.tell(f"in use with: corral context use {args.name}")
    return 0


def _update(args: argparse.Namespace, known: dict[str, Any]) -> int:
    contexts.host_of(args.name)
    if args.name == contexts.DEFAULT:
        raise CliError("default is this machine's own controller, and stays that", code=USAGE)
    one = known["contexts"][args.name]
    if args.host:
        one["host"] = _address(args.host)
    if args.description is not None:
        one["description"] = args.description
    contexts.write(known)
    print(args.name)
    return 0


def _remove(args: argparse.Namespace, known: dict[str, Any]) -> int:
    for name in args.names:
        if name == contexts.DEFAULT:
            raise CliError("default is this machine's own controller, and stays")
        contexts.host_of(name)
        if name == known["current"] and not args.force:
            raise CliError(
                f"{name} is in use", hint="corral context use default, or corral context rm -f"
            )
    for name in args.names:
        known["contexts"].pop(name, None)
        if name == known["current"]:
            known["current"] = contexts.DEFAULT
        print(name)
    contexts.write(known)
    return 0


def rows(known: dict[str, Any], current: str) -> list[dict[str, Any]]:
    """Return the contexts with Docker's keys, the machine's own first."""
    own = {"host": default_host(), "description": "this machine's own controller"}
    every = {contexts.DEFAULT: own, **dict(sorted(known["contexts"].items()))}
    return [
        {
            "Name": name,
            "Description": one.get("description") or "",
            "DockerEndpoint": one["host"],
            "Host": one["host"],
            "Current": name == current,
            "Error": "",
        }
        for name, one in every.items()
    ]


def _ls(args: argparse.Namespace, session: Invocation, known: dict[str, Any]) -> None:
    _, current = contexts.chosen(session.flags.host, session.flags.context)
    found = rows(known, current)
    if args.quiet:
        table.show("\n".join(row["Name"] for row in found))
        return
    _warn_of_environment()
    lines = [
        (f"{row['Name']}{' *' if row['Current'] else ''}", row["Description"], row["Host"])
        for row in found
    ]
    formats.show(
        args.format, found, lambda: table.render(("NAME", "DESCRIPTION", "CONTROLLER"), lines)
    )


def _inspect(args: argparse.Namespace, session: Invocation, known: dict[str, Any]) -> int:
    _, current = contexts.chosen(session.flags.host, session.flags.context)
    found = {row["Name"]: row for row in rows(known, current)}
    for name in args.names:
        contexts.host_of(name)
    wanted = [found[name] for name in args.names or [current or contexts.DEFAULT]]
    formats.show(args.format, wanted, lambda: jsontext.shown(wanted, indent=1))
    return 0


def _warn_of_environment() -> None:
    import os

    for name in ("CORRAL_HOST", "CORRAL_CONTEXT"):
        if os.environ.get(name):
            said.tell(
                f"corral: warning: {name}={os.environ[name]} counts before the context in use",
                said.WARNING,
            )
