"""`corral scale SERVICE=N ...`: a replica count that outlives the next `up`."""

from __future__ import annotations

import sys
import time

from orchestrator.cli import board as boards
from orchestrator.cli import watch
from orchestrator.cli.errors import INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Session


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("counts", nargs="+", metavar="SERVICE=N", help="replicas of the service")
    add("-d", "--detach", action="store_true", help="do not wait until they run")
    add("--no-deps", action="store_true", help="accepted; scaling never touches dependencies")


def run(args: argparse.Namespace, session: Session) -> int:
    from orchestrator.cli.deploy import scales

    counts = scales(args.counts)
    began = time.monotonic()
    board = boards.Board(session.stack(), "scale")
    session.client.request("POST", session.path("scale"), body={"services": counts})
    if args.detach:
        return 0
    command = watch.command_prefix(session)
    try:
        good = watch.follow(session, board, session.path("progress"))
    except KeyboardInterrupt:
        print(f"\nscaling goes on in the background: {command} ps", file=sys.stderr)
        return INTERRUPTED
    return watch.report(board, good=good, seconds=time.monotonic() - began, command=command)
