"""`corral plan`: what `up` would do, and why; nothing is changed.

The controller's own planner says it, played through to the end. ``-o FILE`` keeps it, and
``corral up --plan FILE`` does what it says or refuses. Ends with 0 where there is nothing to do, 3
where there is, 1 where something is wrong.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from orchestrator.cli import deploy, outfile, planning, reaching
from orchestrator.cli import project as projects
from orchestrator.cli.commands import up
from orchestrator.cli.errors import ERROR, USAGE, CliError
from orchestrator.cli.show import ends, meanwhile, plans, watch
from specs.kit import jsontext

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
    plan, request = _asked(args, session)
    if args.output is not None:
        planning.save(args.output, plan, request)
    _print(plan, session, as_json=args.format == "json")
    if args.output is not None and args.format == "text":
        command = watch.command_prefix(session)
        print(f"kept in {args.output}: {command} up --plan {args.output} does this, or refuses")
    if plan.get("fails"):
        return ERROR
    return 0 if plan.get("unchanged") else CHANGES


def dry_run(args: argparse.Namespace, session: Invocation) -> int:
    """Print what `up` with these words would do; the code is that of having said it."""
    plan, _ = _asked(args, session)
    _print(plan, session, as_json=False)
    return 0


def _asked(args: argparse.Namespace, session: Invocation) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plan, with what made each change, and the request it is of."""
    with meanwhile.telling() as now:
        now("reading the Compose files")
        project = projects.with_profiles_of(session.flags, args.services)
        request = deploy.body(
            args,
            model=project.model,
            origins=project.origins,
            contents=projects.contents(project, args.services, dependencies=not args.no_deps),
            directory=project.working_dir,
            known=tuple(project.disabled),
            files=project.files,
            environ=project.environment,
            again=_again(args, project.model),
        )
        reaching.send_files(session.client, request, now)
        now("asking the controller")
        plan = planning.ask(session, project.name, request)
        if plan.get("changes"):
            whole, _ = projects.examine(session.flags)  # it remembers who wrote what over what
            if whole is not None:
                planning.with_causes(plan, whole)
    command = watch.command_prefix(session)
    plan["warnings"] = list(deploy.told(plan.get("warnings") or (), project.environment, command))
    return plan, request


def _again(args: argparse.Namespace, model: dict[str, Any]) -> tuple[str, ...]:
    """Return what an `up` with these words runs again although it completed."""
    if not hasattr(args, "exit_code_from"):
        return ()
    found = up.ends_of(args, model)
    return tuple(ends.run_again(found, args.services or model.get("services") or ()))


def _print(plan: dict[str, Any], session: Invocation, *, as_json: bool) -> None:
    if as_json:
        print(jsontext.shown(plan))
        return
    planning.show(plans.lines(plan), colour=session.colour)
    sys.stdout.flush()
    deploy.show(plan.get("warnings") or ())
