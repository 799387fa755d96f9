"""`corral stop`: end every container of a stack and keep the stack."""

from __future__ import annotations

import sys
import time

from orchestrator.cli.errors import INTERRUPTED, CliError
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="not possible: use scale SERVICE=0")
    add("-t", "--timeout", type=float, metavar="S", help="grace period before the kill")


def run(args: argparse.Namespace, session: Invocation) -> int:
    command = watch.command_prefix(session)
    if args.services:
        zero = " ".join(f"{name}=0" for name in args.services)
        raise CliError(
            "corral stop ends a whole stack", hint=f"for single services: {command} scale {zero}"
        )
    began = time.monotonic()
    board = boards.Board(session.stack(), "stop")
    session.client.persist("POST", session.path("stop"), body={"timeout": args.timeout})
    try:
        good = watch.follow(session, board, session.path("progress"))
    except KeyboardInterrupt:
        print(f"\nstopping goes on in the background: {command} ps", file=sys.stderr)
        return INTERRUPTED
    return watch.report(board, good=good, seconds=time.monotonic() - began, command=command)
