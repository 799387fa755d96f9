"""`corral kill [-s SIGNAL] [SERVICE...]`: a signal to containers' first processes.

KILL, and the signal that stops a service anyway, stop it as `corral stop` does: it is not started
again until somebody asks. Any other signal is only delivered.
"""

from __future__ import annotations

import argparse

from orchestrator.cli import said
from orchestrator.cli.commands import stop
from orchestrator.cli.errors import ERROR, USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.cli.session import Invocation

KILL = 9


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-s", "--signal", default="SIGKILL", metavar="SIGNAL", help="default: SIGKILL")
    add("--remove-orphans", action="store_true", help="accepted; kill removes nothing")


def run(args: argparse.Namespace, session: Invocation) -> int:
    from specs.kernel import signal_number

    number = signal_number(args.signal)
    if not number:
        raise CliError(f"there is no signal {args.signal!r}", hint="SIGHUP, USR1, 9", code=USAGE)
    if number == KILL:
        return stop.run(
            argparse.Namespace(services=args.services, timeout=0.0, verb="kill"), session
        )
    done = session.client.request(
        "POST", session.path("signal"), body={"number": number, "services": args.services}
    )
    for name in done["tasks"]:
        said.done(f"{name} {args.signal}")
    for name, why in done["missed"].items():
        said.tell(f"corral: {name}: {why}", said.ERROR)
    if not done["tasks"] and not done["missed"]:
        which = ", ".join(args.services) or session.stack()
        said.tell(f"corral: nothing of {which} runs", said.ERROR)
        return ERROR
    return ERROR if done["missed"] else 0
