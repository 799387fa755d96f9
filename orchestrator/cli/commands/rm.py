"""`corral rm`: remove what was stopped or has ended, with its logs; what runs is left alone.

The next `up` or `start` makes it anew. With -s it is stopped first.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import said
from orchestrator.cli.commands import stop
from orchestrator.cli.show import containers, sure
from orchestrator.client.errors import ApiNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-f", "--force", action="store_true", help="do not ask")
    add("-s", "--stop", action="store_true", help="stop them first")
    add("-v", "--volumes", action="store_true", help="accepted; anonymous volumes go with a slot")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.stop:
        code = stop.run(
            argparse.Namespace(services=args.services, timeout=None, verb="rm"), session
        )
        if code:
            return code
    services, named = stop.split(session, args.services, "rm")
    removed: list[str] = []
    try:
        if not args.force and not _agreed(session, services, named):
            return 0
        removed += _remove_oneoffs(session, services, named)
        if services or not named:
            found = session.client.persist(
                "POST", session.path("forget"), body={"services": services}
            )
            removed += found["tasks"]
    except ApiNotFound:
        if args.services and not removed:  # a service may have one-offs and nothing else
            if stop.is_there(session):
                raise
            said.tell(f"there is no stack {session.stack()}: nothing to remove", said.WARNING)
            return 0
    for name in removed:
        said.done(f"{name} removed")
    if not removed:
        said.tell("no stopped containers")
    return 0


def _remove_oneoffs(session: Invocation, services: list[str], named: list[str]) -> list[str]:
    """Remove what `run` made and has ended, of the services too; return the names."""
    wanted = [
        row["name"]
        for row in session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
        if row.get("oneoff") and row["state"] in containers.FINAL and _asked(row, services, named)
    ]
    if not wanted:
        return []
    body = {"action": "remove", "names": wanted}
    names: list[str] = session.client.persist("POST", session.path("oneoffs"), body=body)["names"]
    return names


def _asked(row: dict[str, Any], services: list[str], named: list[str]) -> bool:
    """Say whether it is about this container: without words it is about all."""
    return not (services or named) or row["service"] in services or row["name"] in named


def _agreed(session: Invocation, services: list[str], named: list[str]) -> bool:
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    alive = {
        row["service"]
        for row in rows
        if row["state"] not in containers.FINAL and not row.get("oneoff")
    }
    names = sorted(
        row["name"]
        for row in rows
        if (row["state"] in containers.FINAL if row.get("oneoff") else row["service"] not in alive)
        and _asked(row, services, named)
    )
    if not names:
        return True
    return sure.agreed("rm", ", ".join(names))
