"""`corral watch`: what the files' ``develop.watch`` says whenever something is edited here.

Changed files go into all replicas, wherever they run, or the service is built again, restarted,
or both; a burst of changes is one. The files are those of this machine, also where the controller
is reached over ssh. Containers that come meanwhile get what changed before them; one that cannot
be reached gets it later. What fails is said, and what ran before runs on.
"""

from __future__ import annotations

import argparse
from functools import partial

from orchestrator.cli import project as projects
from orchestrator.cli import wishes
from orchestrator.cli.commands import up as ups
from orchestrator.cli.develop import watching as watches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these, with what they depend on")
    add("--no-up", action="store_true", help="do not build and start the stack first")
    add("--quiet", action="store_true", help="hide what builds print")
    add(
        "--prune",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="accepted, has no effect here: down --rmi removes images",
    )


def run(args: argparse.Namespace, session: Invocation) -> int:
    project = projects.with_profiles_of(session.flags, args.services)
    # Looked at before anything is built: what changes meanwhile is a change.
    bring_up = partial(_quietly if args.quiet else ups.again, session)
    watching = watches.prepared(session, project.model, args.services, bring_up=bring_up)
    if not args.no_up and (code := bring_up(["--build", *args.services])):
        return code
    watching.run()
    return 0


def _quietly(session: Invocation, words: Sequence[str]) -> int:
    with wishes.quiet():
        return ups.again(session, words)
