"""`corral start`: run again what was stopped or has ended, as it was.

The Compose file is not looked at (that is `up`). It is a release of the spec there is,
so it is watched as that of `up` is: dependencies first, until everything came to stay.
"""

from __future__ import annotations

import os

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these, with what they depend on")
    add("-d", "--detach", action="store_true", help="do not wait until they run")
    add("--wait", action="store_true", help="accepted; it waits unless -d is given")
    add("--wait-timeout", type=float, metavar="S", help="seconds to wait at most")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.detach and (args.wait or args.wait_timeout is not None):
        raise CliError("-d and --wait cannot be used together", code=USAGE)
    board = boards.Board(session.stack(), "start")
    command = watch.command_prefix(session)
    answer = session.client.persist(
        "POST",
        session.path("start"),
        body={"key": os.urandom(16).hex(), "services": args.services},
    )
    if answer.get("release") is None:
        board.end = {
            "message": "nothing to start, everything runs",
            "completed": answer.get("completed") or (),
        }
        return watch.report(board, good=True, seconds=0.0, command=command)
    board.release = int(answer["release"])
    if args.detach:
        return 0
    return watch.release(
        session,
        board,
        answer["release"],
        limit=args.wait_timeout,
        late="does not run",
        interrupted=lambda: (
            f"starting goes on in the background: {command} ps. Undo it: {command} stop"
        ),
    )
