"""`corral ps`: the tasks of a stack, and the services they belong to."""

from __future__ import annotations

import contextlib
import time

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import containers, filters, formats, table, times, undecided
from orchestrator.cli.show.order import natural
from orchestrator.client.errors import ApiNotFound, ClientError
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation

FILTERS = (
    *("status", "name", "id", "label", "health", "service", "node"),
    *("exited", "ancestor", "network", "volume"),
)
HEADERS = ("NAME", "IMAGE", "COMMAND", "SERVICE", "NODE", "CREATED", "STATUS", "PORTS")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these services")
    add("-a", "--all", action="store_true", help="also what has ended, and what is past")
    add("-q", "--quiet", action="store_true", help="only ids")
    add("--services", dest="names", action="store_true", help="only names of services")
    add("--status", action="append", default=[], help="only tasks in this state (repeatable)")
    formats.describe(parser)
    filters.describe(parser, FILTERS)
    help_ = "also services the Compose file no longer has; the default"
    add("--orphans", "--orphans=true", action="store_true", default=True, help=help_)
    add("--orphans=false", dest="orphans", action="store_false", help="not those")
    add("--no-trunc", action="store_true", help="show commands and images whole")


def run(args: argparse.Namespace, session: Invocation) -> int:
    wanted = filters.parse(args.filter, FILTERS)
    states = [*args.status, *wanted.get("status", ())]
    _known_states(states)
    if states:
        wanted["status"] = states
    everything = args.all or bool(states) or "exited" in wanted
    try:
        rows = undecided.listed(
            session.client, "tasks", session.path("tasks"), all=everything, oneoffs=everything
        )
    except ApiNotFound as absent:
        # As Compose: a project that is not up has an empty list; the reason goes to people only.
        if args.services:
            raise
        rows = []
        _tell(str(absent))
        # Where the state was lost it may run all the same.
        with contextlib.suppress(ClientError):
            undecided.tell(session.client.get("/v1/stacks"))
    else:
        why = "" if rows else nothing_runs(session.client.get(session.path()))
        if why:
            _tell(why)
    if not args.orphans:
        rows = [row for row in rows if row.get("carried") != "orphan"]
    meant = containers.listed(rows)
    if not everything:  # what is replaced, and still ends, is no container of its own
        rows = [row for row in rows if row["id"] in meant]
    services, single, missing = _meant(args.services, rows)
    chosen = select(rows, {*services, *missing}, wanted, single)
    if missing and not everything:
        every = session.client.get(session.path("tasks"), all=True)["tasks"]
        _, _, missing = _meant(missing, every)
    if missing:
        known = ", ".join(sorted({row.get("service", "") for row in rows})) or "none"
        raise CliError(
            f"stack {session.stack()} has no tasks of {', '.join(sorted(missing))}",
            hint=f"services with tasks: {known}",
        )
    if args.quiet:
        table.show("\n".join(row["id"] for row in chosen))
    elif args.names:
        table.show("\n".join(sorted({row["service"] for row in chosen})))
    else:
        project, at = session.stack(), time.time()
        shown = [
            {
                **containers.as_compose(
                    row, project=project, command=_command(row, args.no_trunc), at=at
                ),
                "past": row["id"] not in meant,
            }
            for row in (chosen if args.format.kind != "table" else ())
        ]
        formats.show(
            args.format,
            shown,
            lambda: as_table(chosen, meant, now=at, whole=args.no_trunc),
            limit=0 if args.no_trunc else None,
        )
    return 0


def _tell(text: str) -> None:
    from orchestrator.cli import said  # most lists have nothing to say beside them

    said.tell(f"corral: {text}", said.WARNING)


def nothing_runs(stack: Mapping[str, Any]) -> str:
    """Return why a stack has nothing to list, "" where that is as it was asked for."""
    name, number, reason = stack.get("name"), stack.get("release"), stack.get("reason")
    match stack.get("status"):
        case "pending":
            return f"release {number} of {name} is being prepared (images); nothing runs yet"
        case "deploying":
            return f"release {number} of {name} is being deployed; nothing runs yet"
        case "failed":
            why = f": {table.first_line(str(reason))}" if reason else ""
            return f"release {number} of {name} failed, and nothing runs{why}"
        case "stopped":
            return f"{name} is stopped (ps -a shows what ended)"
        case "removing":
            return f"{name} is being removed"
        case _:
            return ""


def _known_states(words: Sequence[str]) -> None:
    """Refuse what is no state: our own words, and Docker's, are."""
    if not words:
        return
    from specs.states import TaskState

    known = containers.STATES | {state.value for state in TaskState}
    for word in words:
        if word not in known:
            hint = f"one of {', '.join(sorted(known))}"
            raise CliError(f"--status {word}: no such state", hint=hint, code=USAGE)


def _meant(
    words: Sequence[str], rows: list[dict[str, Any]]
) -> tuple[Collection[str], Collection[str], Sequence[str]]:
    """Return services, ids of single containers, and what nobody is called."""
    if not words:
        return (), (), ()
    from orchestrator.cli import called  # a list of all needs none of it

    known = {str(row.get("service")) for row in rows}
    return called.meant(words, rows, known)


def select(
    rows: list[dict[str, Any]],
    services: Collection[str],
    wanted: Mapping[str, Sequence[str]],
    single: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return the wanted rows, by name; ``single``: ids beside the services."""
    everybody = not services and not single
    return sorted(
        (
            row
            for row in rows
            if (everybody or row.get("service") in services or row.get("id") in single)
            and (not wanted or filters.keeps(wanted, containers.facts(row)))
        ),
        key=lambda row: (natural(str(row.get("name", ""))), float(row.get("created_at") or 0.0)),
    )


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def short_image(image: str) -> str:
    """Return the image without the digest's tail."""
    name, mark, digest = image.partition("@sha256:")
    return f"{name}@{digest[:12]}" if mark else name


def _command(row: Mapping[str, Any], whole: bool) -> str:  # noqa: FBT001 - --no-trunc itself
    command = str(row.get("command") or "")
    return command if whole else cut(command, 20)


def as_table(
    rows: list[dict[str, Any]], meant: Collection[str], *, now: float, whole: bool = False
) -> str:
    """Return the table; columns nobody fills are left out.

    ``meant`` are the ids of the tasks that are there to stay; others of a name are past.
    """
    lines = []
    for row in rows:
        command = _command(row, whole)
        image = str(row.get("image") or "")
        lines.append(
            (
                row.get("name", ""),
                image if whole else cut(short_image(image), 48),
                jsontext.shown(command) if command else "",
                row.get("service", ""),
                row.get("node", ""),
                times.since(row.get("created_at"), now),
                (row.get("status") or row.get("state", ""))
                + (" (past)" if row["id"] not in meant else "")
                + (f" ({row['beside']})" if row.get("beside") else "")
                + (" (orphan)" if row.get("carried") == "orphan" else ""),
                ", ".join(containers.ports(row)),
            )
        )
    used = [
        i
        for i, header in enumerate(HEADERS)
        if header != "COMMAND" or any(line[i] for line in lines)
    ]
    return table.render([HEADERS[i] for i in used], [[line[i] for i in used] for line in lines])
