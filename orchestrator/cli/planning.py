"""Ask for a plan, say what made each change, keep it in a file, and hold `up` to it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from orchestrator.cli import deploy, outfile, reaching, said
from orchestrator.cli import project as projects
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import explain, meanwhile, plans, table, watch
from orchestrator.client.http import quote
from specs.kit import jsontext, masking

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from orchestrator.cli.session import Invocation
    from specs import Project

Json = dict[str, Any]
FORMAT = 1
GLANCE = 0.3  # seconds of the controller's work for what nobody asked for


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(each) is int for each in value.values())


def _seconds(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _word(value: Any) -> bool:
    return value is None or isinstance(value, str)


# Of a request (specs.api.Deploy): what the file alone does not say, kept with its plan; and what
# says whether a file's value of it is one.
SHAPES: dict[str, Callable[[Any], bool]] = {
    "services": _names,
    "scale": _counts,
    "build": _word,
    "pull": _word,
    "deadline": _seconds,
    "timeout": _seconds,
    **dict.fromkeys(("force_recreate", "remove_orphans", "no_deps", "no_start"), _yes_or_no),
    **dict.fromkeys(("always_recreate_deps", "renew_volumes", "no_recreate"), _yes_or_no),
}
OPTIONS = tuple(SHAPES)

# Words of the command line that say what OPTIONS do.
FLAGS = (
    *("services", "scale", "build", "no_build", "pull", "force_recreate", "remove_orphans"),
    *("no_deps", "always_recreate_deps", "no_recreate", "renew_anon_volumes", "timeout"),
    *("deadline", "no_start"),
)


def asked(
    args: argparse.Namespace,
    session: Invocation,
    again: Callable[[Json], tuple[str, ...]] | None = None,
) -> tuple[Json, Json]:
    """Return the plan of these words, with what made each change, and the request it is of.

    ``again``: from the model, the services that run again although they completed.
    """
    with meanwhile.telling() as now:
        now("reading the Compose files")
        project = projects.with_profiles_of(session.flags, args.services)
        request = deploy.body(
            args,
            project,
            again=again(project.model) if again is not None else (),
        )
        reaching.send_files(session.client, request, now)
        now("asking the controller")
        plan = ask(session, project.name, request)
        if plan.get("changes"):
            whole, _ = projects.examine(session.flags)  # it remembers who wrote what over what
            if whole is not None:
                with_causes(plan, whole)
    command = watch.command_prefix(session)
    plan["warnings"] = list(deploy.told(plan.get("warnings") or (), project.environment, command))
    return plan, request


def printed(plan: Json, session: Invocation, *, as_json: bool) -> None:
    """Print a plan in full."""
    if as_json:
        print(jsontext.shown(plan))
        return
    show(plans.lines(plan), colour=session.colour)
    sys.stdout.flush()
    deploy.show(plan.get("warnings") or ())


def ask(
    session: Invocation, stack: str, request: Mapping[str, Any], *, within: float | None = None
) -> dict[str, Any]:
    """Return what a release of this request would do. Raises ClientError.

    ``within``: seconds of the controller's work after which the rest is left out.
    """
    where, query = f"/v1/stacks/{quote(stack)}/plan", {"within": within} if within else None
    found: dict[str, Any] = session.client.request("POST", where, query=query, body=request)
    return found


def show(lines: Iterable[str], *, colour: bool, stream: Any = None) -> None:
    """Print lines of a plan, as wide as the terminal is."""
    stream = stream if stream is not None else sys.stdout
    limit = table.terminal(stream)
    for line in lines:
        print(plans.painted(line, colour=colour, limit=limit), file=stream)


def with_causes(plan: dict[str, Any], project: Project) -> None:
    """Say of each change what made it: a variable, or a file that overrides another."""
    for change in plan.get("changes") or ():
        path = str(change.get("path") or "")
        hidden = masking.is_secret(path.rpartition(".")[2])
        cause = "; ".join(_causes(project, path, hidden=hidden))
        if cause:
            change["cause"] = cause


def _causes(project: Project, path: str, *, hidden: bool) -> Iterator[str]:
    """Yield what made a value; ``hidden``: what is put into a secret is one, whatever its name."""
    touches = project.history(path)
    for use in touches[-1].variables if touches else ():
        if use.source in ("unset", "default", "replacement"):
            word = {"unset": "is not set", "default": "is not set: its default"}.get(use.source)
            yield f"${use.name} {word or 'is set: its replacement'}"
        else:
            value = masking.value(use.name, project.environment.get(use.name, ""))
            value = masking.HIDDEN if hidden else value
            yield f"${use.name} = {value} from {explain.as_typed(use.source)}"
    if touches and touches[-1].how == "override" and len(touches) > 1:
        yield f"over {explain.as_typed(touches[0].position)}"


# plans in files


def save(path: str, plan: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """Keep a plan, for its user's eyes alone (0600). Raises CliError."""
    options = {name: request[name] for name in OPTIONS if name in request}
    kept = {"format": FORMAT, "options": options, "plan": plan}
    with outfile.whole(path) as file:
        file.write((json.dumps(kept, indent=1) + "\n").encode())


def read(path: str) -> dict[str, Any]:
    """Return what a file keeps: ``plan`` and ``options``. Raises CliError."""
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
    except OSError as exc:
        raise CliError(f"{path}: {exc.strerror}", "corral plan -o FILE makes one") from None
    except (ValueError, RecursionError):  # no JSON, or nested without an end
        kept = None
    if not _is_kept(kept):
        raise CliError(f"{path} is no plan of this version: make it again (corral plan -o FILE)")
    return dict(kept)


def _is_kept(kept: Any) -> bool:
    """Say whether this is what ``save`` wrote; a newer controller's plan may have more keys."""
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        return False
    plan, options = kept.get("plan"), kept.get("options")
    if not isinstance(plan, dict) or not isinstance(options, dict):
        return False
    named = all(plan.get(key) and isinstance(plan[key], str) for key in ("stack", "decision"))
    fits = all(SHAPES[name](value) for name, value in options.items() if name in SHAPES)
    return named and fits and plans.is_told(plan)


def check(args: argparse.Namespace) -> None:
    """Refuse what asks for more than a plan that is named says, and a question to nobody."""
    if args.confirm and not (os.isatty(0) and sys.stderr.isatty()):
        raise CliError(
            "--confirm asks before it changes anything, and nobody is there",
            "corral plan -o FILE, then corral up --plan FILE",
            code=USAGE,
        )
    if args.plan is None:
        return
    flags = {name: getattr(args, name, None) for name in FLAGS}
    if wrong := next((name for name, given in flags.items() if given), ""):
        word = "SERVICE" if wrong == "services" else f"--{wrong.replace('_', '-')}"
        raise CliError(
            f"--plan says all that {word} could say",
            f"give {word} to corral plan -o {args.plan}",
            code=USAGE,
        )


def options_of(args: argparse.Namespace, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the plan's file keeps, and have the request ask for what the plan's did."""
    kept = read(args.plan)
    for name in OPTIONS:
        request.pop(name, None)
    request.update({n: value for n, value in kept["options"].items() if n in OPTIONS})
    return kept


def hold(kept: Mapping[str, Any], now: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return what binds a request to its plan; raise CliError, with what differs, where that is."""
    planned = kept["plan"]
    if planned["stack"] != now["stack"]:
        raise CliError(f"{path} is a plan for {planned['stack']}, not for {now['stack']}")
    if planned["decision"] != now["decision"] or planned.get("release") != now.get("release"):
        for line in plans.differences(planned, now):
            said.tell(line, said.WARNING)
        raise CliError(
            f"what is to be done is not what {path} says (-: planned then, +: planned now); "
            "nothing was changed",
            f"corral plan -o {path} makes a new plan",
        )
    return binding(now)


def binding(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what binds a request to a plan: the release it is after, and its places."""
    return {"planned_after": plan.get("release") or 0, "places": plan.get("places") or {}}


def agreed(plan: Mapping[str, Any], host: str) -> bool:
    """Ask on the terminal whether to go on; Ctrl-D is a no."""
    where = f" on {host}" if host else ""
    print(f"Apply to {plan['stack']}{where}? [yN] ", end="", file=sys.stderr, flush=True)
    try:
        answer = input()
    except EOFError:
        print(file=sys.stderr)
        return False
    return answer.strip().lower() in ("y", "yes")
