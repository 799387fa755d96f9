"""`corral plan`: what `up` would do, and why; nothing is changed.

The controller's own planner says it, played through to the end. ``-o FILE`` keeps it, and
``corral up --plan FILE`` does what it says or refuses. Ends with 0 where there is nothing to do, 3
where there is, 1 where something is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import outfile, planning
from orchestrator.cli.commands import up
from orchestrator.cli.errors import ERROR, USAGE, CliError
from orchestrator.cli.show import watch

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

CHANGES = 3


def describe(parser: argparse.ArgumentParser) -> None:
    up.describe_wish(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="keep the plan, for corral up --plan FILE")
    add("-f", "--force", action="store_true", help="write over FILE")
    add("--format", choices=("text", "json"), default="text", help="text or json")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.build and args.no_build:
        raise CliError("--build and --no-build cannot be used together", code=USAGE)
    if args.output is not None:
        outfile.check(args.output, force=args.force)
    plan, request = planning.asked(args, session)
    if args.output is not None:
        planning.save(args.output, plan, request)
    planning.printed(plan, session, as_json=args.format == "json")
    if args.output is not None and args.format == "text":
        command = watch.command_prefix(session)
        print(f"kept in {args.output}: {command} up --plan {args.output} does this, or refuses")
    if plan.get("fails"):
        return ERROR
    return 0 if plan.get("unchanged") else CHANGES
