"""`corral pause`: freeze the processes of a stack, or of some services, where they stand.

They keep memory, addresses and connections, and answer nobody; health checks rest. `corral
unpause` lets them go on; so do `restart`, and `stop` and `down`, which end them.
"""

from __future__ import annotations

import time

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR
from orchestrator.cli.show import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

LOOK = 0.1  # seconds
PATIENCE = 30.0  # seconds: what waits for a disk freezes when that has answered


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="only these services")


def run(args: argparse.Namespace, session: Invocation) -> int:
    return bring(session, args.services, paused=True)


def bring(session: Invocation, services: list[str], *, paused: bool) -> int:
    """Ask for it and wait until every node has done it; 1 when one has not."""
    asked = session.client.persist(
        "POST", session.path("pause"), body={"paused": paused, "services": services}
    )["tasks"]
    if not asked:
        said.tell(f"corral: nothing of {', '.join(services) or session.stack()} runs", said.ERROR)
        return ERROR
    left = set(asked)
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
            return 0
        if time.monotonic() > until or all(row.get("node_status") == "down" for row in waiting):
            for row in waiting:
                why = row.get("reason") or row.get("status")
                said.tell(f"corral: {row['name']} on {row['node']}: not yet; {why}", said.ERROR)
            return ERROR
        time.sleep(LOOK)
