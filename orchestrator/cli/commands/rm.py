"""`corral rm`: remove what was stopped or has ended, with its logs; what runs is left alone.

The next `up` or `start` makes it anew. With -s it is stopped first.
"""

from __future__ import annotations

import argparse
import os
import sys

from orchestrator.cli.commands import stop
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import containers
from orchestrator.client.errors import ApiNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-f", "--force", action="store_true", help="do not ask")
    add("-s", "--stop", action="store_true", help="stop them first")
    add("-v", "--volumes", action="store_true", help="accepted; anonymous volumes go with a slot")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.stop:
        code = stop.run(argparse.Namespace(services=args.services, timeout=None), session)
        if code:
            return code
    try:
        if not args.force and not _agreed(session, args.services):
            return 0
        found = session.client.persist(
            "POST", session.path("forget"), body={"services": args.services}
        )
    except ApiNotFound:
        if args.services:
            raise
        found = {"tasks": ()}
    for name in found["tasks"]:
        print(f"{name} removed")
    if not found["tasks"]:
        print("no stopped containers", file=sys.stderr)
    return 0


def _agreed(session: Invocation, services: list[str]) -> bool:
    rows = session.client.get(session.path("tasks"), all=True)["tasks"]
    alive = {row["service"] for row in rows if row["state"] not in containers.FINAL}
    names = sorted(
        row["name"]
        for row in rows
        if row["service"] not in alive and (not services or row["service"] in services)
    )
    if not names:
        return True
    if not os.isatty(0):
        raise CliError("rm asks before it removes, and nobody is there", "-f", code=USAGE)
    print(f"Going to remove {', '.join(names)}")
    return input("Are you sure? [yN] ").strip().lower() in ("y", "yes")
