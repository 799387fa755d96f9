"""`corral supervise`: keep controller and agent running where there is no systemd.

Becomes orchestrator.embedded.supervisor under a bare interpreter, because it stays resident.
"""

from __future__ import annotations

import os

from orchestrator.cli.errors import USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--foreground", action="store_true", help="do not go into the background")
    add("daemons", nargs="*", metavar="DAEMON", help="controller, agent (both)")


def run(args: argparse.Namespace, _session: Invocation) -> int:
    from orchestrator.embedded import daemons, supervisor

    for name in args.daemons:
        if name not in supervisor.DAEMONS:
            raise CliError(f"there is no daemon {name!r}", "controller, agent", code=USAGE)
    command = daemons.supervisor_command(foreground=args.foreground, names=tuple(args.daemons))
    os.execve(command[0], command, daemons.environment())  # noqa: S606 - becoming it is the point
