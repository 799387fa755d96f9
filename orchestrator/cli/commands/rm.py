"""`corral rm`: remove what was stopped or has ended, with its logs; what runs is left alone.

The next `up` or `start` makes it anew. With -s it is stopped first.
"""

from __future__ import annotations

import argparse
import time

from orchestrator.cli import said
from orchestrator.cli.commands import stop
from orchestrator.cli.errors import ERROR, INTERRUPTED
from orchestrator.cli.show import containers, sure, watch
from orchestrator.client.errors import ApiNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.cli.session import Invocation

LOOK = 0.1  # seconds
PATIENCE = 30.0  # seconds: a node takes a container's files away, and its disk may be busy


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
    if not removed:
        said.tell("no stopped containers")
        return 0
    try:
        return _until_gone(session, removed)
    except KeyboardInterrupt:
        said.tell(
            f"\nremoving goes on in the background: {watch.command_prefix(session)} ps -a",
            said.WARNING,
        )
        return INTERRUPTED


def _until_gone(session: Invocation, names: list[str]) -> int:
    """Wait until no list has what is being removed; 1 when a node has not done it in time.

    What has the same name and is newer is not waited for: somebody made it anew meanwhile.
    """
    until = time.monotonic() + PATIENCE
    there: set[str] | None = None
    while True:
        try:
            rows = watch.rows(session, every=True, oneoffs=True)
        except ApiNotFound:  # the whole stack was removed meanwhile
            rows = []
        left = [
            row
            for row in rows
            if row["name"] in names
            and row["state"] in containers.FINAL
            and (there is None or row["id"] in there)
        ]
        there = {row["id"] for row in left}
        still = {row["name"] for row in left}
        for name in [name for name in names if name not in still]:
            said.done(f"{name} removed")
        names = [name for name in names if name in still]
        if not names:
            return 0
        if time.monotonic() > until or all(row.get("node_status") == "down" for row in left):
            for row in left:
                said.tell(
                    f"corral: {row['name']} is not removed yet: its node {row.get('node')} has not "
                    "said so; it goes when that answers",
                    said.ERROR,
                )
            return ERROR
        time.sleep(LOOK)


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
