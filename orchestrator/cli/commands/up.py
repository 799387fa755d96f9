"""`corral up`: load, hand over a release, watch it, stay attached.

The order is: everything that can be refused is refused on this machine first, then
a controller is started if there is none, then one request makes the release.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.cli import deploy, planning, reaching, wishes
from orchestrator.cli import project as projects
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.session import wants_colour
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import ends as laws
from orchestrator.cli.show import meanwhile, output, plans, watch
from orchestrator.client.errors import ClientError, NoController
from orchestrator.client.http import quote
from specs.compile import schedule_words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.cli.develop.watching import Watching
    from orchestrator.cli.loaded import Loaded
    from orchestrator.cli.session import Invocation


def describe_wish(parser: argparse.ArgumentParser) -> None:
    """Add what says how the release is to be, as ``plan`` has it, too."""
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these, with what they depend on")
    add("--scale", action="append", default=[], metavar="SERVICE=N", help="replicas (repeatable)")
    add("--build", action="store_true", help="build images even if they are there")
    add("--no-build", action="store_true", help="never build")
    add("--pull", choices=("always", "missing", "never"), help="when to pull images")
    add("--force-recreate", action="store_true", help="replace tasks that have not changed, too")
    add("--no-deps", action="store_true", help="not what the named services depend on")
    add("--always-recreate-deps", action="store_true", help="replace dependencies, too")
    add("--no-recreate", action="store_true", help="what exists stays as it is; make the rest")
    add("-V", "--renew-anon-volumes", action="store_true", help="anonymous volumes begin empty")
    add("--remove-orphans", action="store_true", help="remove services the file no longer has")
    add(
        "-t", "--timeout", type=float, metavar="S", help="grace period of what it replaces or stops"
    )
    add("--deadline", type=float, metavar="S", help="seconds without progress before it fails")


def describe(parser: argparse.ArgumentParser) -> None:
    describe_wish(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="print what it would do (corral plan), and end")
    add("--plan", metavar="FILE", help="do what this plan says, or refuse: corral plan -o FILE")
    add("--confirm", action="store_true", help="show what it would do, and ask")
    add("-d", "--detach", action="store_true", help="return when the stack is up")
    add("--wait", action="store_true", help="like -d; fail when it is not up in --wait-timeout")
    add("--wait-timeout", type=float, metavar="S", help="seconds to wait at most")
    add("--no-start", action="store_true", help="make what is missing, and start nothing")
    add("-m", "--message", metavar="TEXT", help="why, for `corral history`")
    add("--timestamps", action="store_true", help="show times of log lines")
    add("--no-color", action="store_true", help="no colours")
    add("--no-log-prefix", action="store_true", help="only the lines themselves")
    add("--attach", action="append", default=[], metavar="SERVICE", help="show only its logs")
    add("--no-attach", action="append", default=[], metavar="SERVICE", help="not its logs")
    add("--attach-dependencies", action="store_true", help="also logs of dependencies")
    add("--abort-on-container-exit", action="store_true", help="stop all when one ends")
    add("--abort-on-container-failure", action="store_true", help="stop all when one fails")
    add("--exit-code-from", metavar="SERVICE", help="end with its code; stops all when one ends")
    add("-w", "--watch", action="store_true", help="also bring in or build again what is edited")
    for ignored in ("--quiet-pull", "--quiet-build", "-y", "--yes"):
        add(ignored, action="store_true", help="accepted, has no effect here")


def check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is done."""
    detached = args.detach or args.wait
    aborts = [
        flag
        for flag, given in (
            ("--abort-on-container-exit", args.abort_on_container_exit),
            ("--abort-on-container-failure", args.abort_on_container_failure),
            ("--exit-code-from", args.exit_code_from),
            ("--attach-dependencies", args.attach_dependencies),
            ("--attach", args.attach),
        )
        if given
    ]
    together = [("--build", "--no-build", args.build and args.no_build)]
    together += [("-d" if args.detach else "--wait", flag, detached) for flag in aborts]
    together.append(
        (
            "--abort-on-container-exit",
            "--abort-on-container-failure",
            args.abort_on_container_exit and args.abort_on_container_failure,
        )
    )
    recreates = [("--force-recreate", args.force_recreate)]
    recreates += [("--always-recreate-deps", args.always_recreate_deps)]
    together += [("--no-recreate", flag, args.no_recreate and given) for flag, given in recreates]
    together += [("--no-start", flag, args.no_start) for flag in aborts]
    alone = [*aborts, "-d"] if args.detach else [*aborts, "--wait"] if args.wait else aborts
    alone += ["--no-start"] if args.no_start else []
    together += [("--watch", flag, args.watch) for flag in alone]
    together.append(("--no-start", "--wait", args.no_start and args.wait))
    together.append(("--dry-run", "--watch", args.dry_run and args.watch))
    together.append(("--dry-run", "--plan", bool(args.dry_run and args.plan)))
    together.append(("--dry-run", "--confirm", args.dry_run and args.confirm))
    planning.check(args)
    for one, other, both in together:
        if both:
            raise CliError(f"{one} and {other} cannot be used together", code=USAGE)
    if args.wait_timeout is not None and not args.wait:
        raise CliError("--wait-timeout needs --wait", code=USAGE)


def run(args: argparse.Namespace, session: Invocation) -> int:
    check(args)
    if args.dry_run:
        return _dry_run(args, session)
    watching: list[Watching] = []

    def loaded(project: Loaded) -> None:
        if args.watch:  # what changes from now on is a change
            from orchestrator.cli.develop import watching as watches

            found = watches.prepared(
                session,
                project.model,
                args.services,
                bring_up=partial(again, session),
                builds=not args.no_build,
            )
            watching.append(found)

    with meanwhile.telling() as now:
        project, release = _hand_over(args, session, now, loaded)
    told = deploy.told(
        release.get("warnings") or (), project.environment, watch.command_prefix(session)
    )
    deploy.show(told)
    board = boards.Board(project.name, f"release {release.get('number', '?')}")
    board.release = int(release.get("number") or 0)
    # Where nothing stands by there is nobody to listen to.
    if args.detach or args.wait or args.no_start or not _stand_by(args, project.model):
        code = _detached(args, session, board, release)
        if not code and not args.no_start:
            _say_when(session, project.model)
        return code
    if not watching:
        return _attached(args, session, board, release, project.model)
    from orchestrator.cli.develop import watching as watches

    with watches.beside(watching[0]):
        return _attached(args, session, board, release, project.model)


def _dry_run(args: argparse.Namespace, session: Invocation) -> int:
    """Print what it would do; the code is that of having said it."""

    def runs_again(model: dict[str, Any]) -> tuple[str, ...]:
        found = ends_of(args, model)
        return tuple(laws.run_again(found, args.services or model.get("services") or ()))

    plan, _ = planning.asked(args, session, runs_again)
    planning.printed(plan, session, as_json=False)
    return 0


def _timed(model: Mapping[str, Any]) -> set[str]:
    """Return the services that run by a schedule."""
    services = model.get("services") or {}
    return {name for name, raw in services.items() if schedule_words.has_one(raw or {})}


def _stand_by(args: argparse.Namespace, model: Mapping[str, Any]) -> bool:
    """Say whether anything of what is brought up runs all the time."""
    chosen = set(args.services) or set(model.get("services") or {})
    return not chosen or not chosen <= _timed(model)


def _say_when(session: Invocation, model: Mapping[str, Any]) -> None:
    """Say when what does not stand by runs next."""
    timed = _timed(model)
    if not timed:
        return
    from orchestrator.cli import said
    from orchestrator.cli.commands import schedule

    rows = []
    with contextlib.suppress(ClientError):  # what was asked for is done all the same
        rows = schedule.rows(session, session.stack())
    for row in rows:
        if row.get("service") in timed:
            said.tell(f"{row['service']} runs {schedule.next_words(row, time.time())}")


def again(session: Invocation, words: Sequence[str]) -> int:
    """Bring services up as `up -d` with these words does; return its exit code."""
    import argparse

    parser = argparse.ArgumentParser()
    describe(parser)
    return run(parser.parse_args(["-d", *words]), session)


def _hand_over(
    args: argparse.Namespace,
    session: Invocation,
    now: Callable[[str], None],
    loaded: Callable[[Loaded], None],
) -> tuple[Loaded, Mapping[str, Any]]:
    """Load the project and make a release of it; start a controller if there is none."""
    now("reading the Compose files")
    project = projects.with_profiles_of(session.flags, args.services)
    wanted = [args.exit_code_from] if args.exit_code_from else []
    deploy.known_services(project.model, [*args.attach, *args.no_attach, *wanted])
    loaded(project)
    ends = ends_of(args, project.model)
    request = deploy.body(
        args,
        project,
        again=laws.run_again(ends, args.services or project.model.get("services") or ()),
    )
    reaching.send_files(session.client, request, now)
    kept = planning.options_of(args, request) if args.plan else None

    def send() -> dict[str, Any]:
        now("looking what there is to do" if kept or args.confirm else "handing over the release")
        request.update(_planned(args, session, project.name, request, kept, now))
        now("handing over the release")
        return deploy.send(session.client, project.name, request)

    return project, reaching.first(session.client, send, step=now)


def _planned(
    args: argparse.Namespace,
    session: Invocation,
    stack: str,
    request: Mapping[str, Any],
    kept: Mapping[str, Any] | None,
    now: Callable[[str], None],
) -> dict[str, Any]:
    """Show on a terminal what is about to happen, ask where that is wanted; return what binds it.

    Where only a look was lost with it, the release itself says what is wrong.
    """
    looks = sys.stderr.isatty() and wishes.progress() not in ("json", "quiet")
    if not (kept or args.confirm or looks):
        return {}
    try:
        within = None if kept or args.confirm else planning.GLANCE
        plan = planning.ask(session, stack, request, within=within)
    except NoController:
        raise
    except ClientError:
        if kept or args.confirm:
            raise
        return {}
    bound = planning.hold(kept, plan, args.plan) if kept else {}
    if looks or args.confirm:
        now("")
        colour = wants_colour(sys.stderr.isatty()) and not args.no_color
        planning.show(plans.short(plan), colour=colour, stream=sys.stderr)
    if args.confirm and not plan.get("unchanged"):
        if not planning.agreed(plan, session.client.host):
            raise CliError("not confirmed: nothing was changed")
        return planning.binding(plan)
    return bound


def _detached(
    args: argparse.Namespace, session: Invocation, board: boards.Board, release: Mapping[str, Any]
) -> int:
    command = watch.command_prefix(session)
    if release.get("unchanged"):
        board.end = {
            "message": f"unchanged, release {release['number']} runs as the file has it",
            "completed": release.get("completed") or (),
        }
        if args.wait and (wrong := _unhealthy(session)):
            board.end = {"message": wrong}
            return watch.report(board, good=False, seconds=0.0, command=command)
        return watch.report(board, good=True, seconds=0.0, command=command)
    return watch.release(
        session,
        board,
        release["number"],
        limit=args.wait_timeout,
        # Whoever says how long waits that long; else a person is told when it is of no use.
        patient=args.wait_timeout is not None or args.deadline is not None,
        late="is not up",
        check=(lambda: _unhealthy(session)) if args.wait else None,
        interrupted=lambda: (
            f"{board.what} of {board.stack} goes on in the background. "
            f"See it: {command} ps. {_way_back(session, board, command)}"
        ),
    )


def _unhealthy(session: Invocation) -> str:
    """Return what is unhealthy of what the release is about, which left it as it was: `--wait`."""
    rows = session.client.get(session.path("tasks"))["tasks"]
    return "; ".join(
        f"{row.get('name')}: {row.get('status')}"
        for row in rows
        if row.get("health") == "unhealthy" and not row.get("carried") and not row.get("stopping")
    )


def _way_back(session: Invocation, board: boards.Board, command: str) -> str:
    """Return what undoes this release and nothing that was there before it."""
    try:
        before = int(session.client.get(f"/v1/stacks/{quote(board.stack)}").get("running") or 0)
    except ClientError:
        before = 0
    if not before:
        return f"Undo it: {command} down"
    return (
        f"Release {before} is what ran before: to undo this one, {command} rollback "
        f"({command} down would remove the whole stack)"
    )


def attached_services(args: argparse.Namespace, services: Mapping[str, Any]) -> tuple[str, ...]:
    """Return whose logs are shown: the named ones, or all that do not say attach: false."""
    if args.attach:
        return tuple(args.attach)
    if args.services and not args.attach_dependencies:
        chosen = list(args.services)
    else:
        chosen = [name for name, spec in services.items() if (spec or {}).get("attach", True)]
    return tuple(name for name in chosen if name not in args.no_attach)


def container_names(services: Mapping[str, Any], scale: Mapping[str, int]) -> list[str]:
    """Return the names containers will have in the log's prefix."""
    names = []
    for name, spec in services.items():
        deploy_part = (spec or {}).get("deploy") or {}
        count = scale.get(name, deploy_part.get("replicas", (spec or {}).get("scale", 1)))
        fixed = (spec or {}).get("container_name")
        names += [fixed] if fixed else [f"{name}-{i + 1}" for i in range(int(count or 0))]
    return names


def ends_of(args: argparse.Namespace, model: Mapping[str, Any]) -> laws.Ends:
    """Return what ends an attached run, and what that stops."""
    from specs.compose.project.selection import with_dependencies

    services = model.get("services") or {}
    own = args.exit_code_from or ""
    names = list(args.services)
    if own and names and own not in (names if args.no_deps else with_dependencies(services, names)):
        raise CliError(
            f"--exit-code-from {own}: {own} is not among what this starts ({', '.join(names)})",
            hint=f"corral up --exit-code-from {own} {' '.join([*names, own])}",
            code=USAGE,
        )
    every = args.abort_on_container_exit or (own and not args.abort_on_container_failure)
    return laws.Ends(
        abort="exit" if every else "failure" if args.abort_on_container_failure else "",
        exit_code_from=own,
        stop_timeout=args.timeout,
        named=tuple(names),
        watched=tuple(names) or attached_services(args, services),
        awaited=laws.awaited(services),
    )


def _attached(
    args: argparse.Namespace,
    session: Invocation,
    board: boards.Board,
    release: Mapping[str, Any],
    model: Mapping[str, Any],
) -> int:
    from orchestrator.cli.show.attach import AttachedRun

    services = model.get("services") or {}
    shown = attached_services(args, services)
    names = container_names(
        {name: services[name] for name in shown if name in services}, deploy.scales(args.scale)
    )
    painter = output.Painter(
        colour=wants_colour(sys.stdout.isatty()) and not args.no_color,
        prefix=not args.no_log_prefix,
        timestamps=args.timestamps,
        names=names,
    )
    nodes = session.client.get("/v1/nodes")["nodes"]
    ends = replace(
        ends_of(args, model), stops_on_interrupt=session.client.local and len(nodes) <= 1
    )
    attached = AttachedRun(
        session, board, painter, stack=board.stack, release=release, services=shown, ends=ends
    )
    # A terminated `up` ends like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return attached.run()
