"""`corral pause`: freeze the processes of a stack, or of some services, where they stand.

They keep memory, addresses and connections, and answer nobody; health checks rest. `corral
unpause` lets them go on; so do `restart`, and `stop` and `down`, which end them.
"""

from __future__ import annotations

import time

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR
from orchestrator.cli.show import watch
from orchestrator.client.errors import ApiNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

LOOK = 0.1  # seconds
PATIENCE = 30.0  # seconds: what waits for a disk freezes when that has answered


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="only these services")


def run(args: argparse.Namespace, session: Invocation) -> int:
    return bring(session, args.services, paused=True)


def bring(session: Invocation, services: list[str], *, paused: bool) -> int:
    """Ask for it and wait until every node has done it; 1 when one has not.

    And 1, as Docker, where all there is of a service that is named was so already.
    """
    already = _already(session, paused=paused)
    asked = session.client.persist(
        "POST", session.path("pause"), body={"paused": paused, "services": services}
    )["tasks"]
    if not asked:
        said.tell(f"corral: nothing of {', '.join(services) or session.stack()} runs", said.ERROR)
        return ERROR
    left = {task for task in asked if task not in already}
    code = _told_already(
        session, services, [already[task] for task in asked if task in already], left, paused=paused
    )
    until = time.monotonic() + PATIENCE
    while True:
        rows = watch.rows(session, every=True, oneoffs=True)
        for row in rows:
            if row["id"] in left and (bool(row.get("paused")) is paused or row.get("finished_at")):
                left.discard(row["id"])
                said.done(f"{row['name']} {'paused' if paused else 'goes on'}")
        left &= {row["id"] for row in rows}
        waiting = [row for row in rows if row["id"] in left]
        if not waiting:
            return code
        if time.monotonic() > until or all(row.get("node_status") == "down" for row in waiting):
            for row in waiting:
                why = row.get("reason") or row.get("status")
                said.tell(f"corral: {row['name']} on {row['node']}: not yet; {why}", said.ERROR)
            return ERROR
        time.sleep(LOOK)


def _already(session: Invocation, *, paused: bool) -> dict[str, dict[str, Any]]:
    """Return the rows of what is as it is to become, by id; what has ended is none of it."""
    try:
        rows = watch.rows(session, every=True, oneoffs=True, first=True)
    except ApiNotFound:  # said when it is asked for
        return {}
    return {
        row["id"]: row
        for row in rows
        if bool(row.get("paused")) is paused
        and not row.get("finished_at")
        # Whether a silent node's is, is not known.
        and row.get("node_status") != "down"
    }


def _told_already(
    session: Invocation,
    services: list[str],
    already: list[dict[str, Any]],
    left: set[str],
    *,
    paused: bool,
) -> int:
    """Say what there was nothing to do for, where a service is named for nothing; its code.

    Without names, and of a service of which some come to it now, that is what was meant.
    """
    if not already:
        return 0
    how = "already paused" if paused else "not paused"
    if not services:
        if not left:
            stack = session.stack()
            said.tell(f"all of {stack} is {how}" if paused else f"nothing of {stack} is paused")
        return 0
    rows = watch.rows(session, every=True, oneoffs=True) if left else []
    coming = {_whose(row) for row in rows if row["id"] in left}
    for row in already:
        if _whose(row) not in coming:
            said.tell(f"corral: {row['name']} is {how}", said.ERROR)
    return ERROR if any(_whose(row) not in coming for row in already) else 0


def _whose(row: dict[str, Any]) -> str:
    """Return what a row is meant by: its service, or the name that `run` gave it."""
    return str(row["name"] if row.get("oneoff") else row["service"])
