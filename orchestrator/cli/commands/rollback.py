"""`corral rollback`: what an earlier release asked for runs again, all of it or one service.

It is a release of its own, and is watched as that of `up` is.
"""

from __future__ import annotations

import os

from orchestrator.cli import deploy, said
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation

MOST = 40  # differences that are shown; the others are counted


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="RELEASE|SERVICE",
        help="its number (without: what ran before), or only these services",
    )
    add("--to", metavar="N", help="the release, where services are named")
    add("--dry-run", action="store_true", help="only say what it would change")
    add("--remove-orphans", action="store_true", help="remove what that release did not have")
    add("-m", "--message", metavar="TEXT", help="why, for `corral history`")
    add("-d", "--detach", action="store_true", help="do not wait until it runs")
    add(
        "-t", "--timeout", type=float, metavar="S", help="grace period of what it replaces or stops"
    )
    add("--wait-timeout", type=float, metavar="S", help="seconds to wait at most")


def wanted(words: Sequence[str], to: str | None) -> tuple[int | None, list[str]]:
    """Return number and services that are meant. Raises CliError."""
    from orchestrator.cli.commands.diff import release_number

    number = None if to is None else release_number(to)
    services = list(words)
    if number is None and len(words) == 1 and words[0].removeprefix("#").isdecimal():
        return release_number(words[0]), []
    if any(word.removeprefix("#").isdecimal() for word in words):
        raise CliError(
            "a release and services are named at once", hint="rollback SERVICE --to N", code=USAGE
        )
    return number, services


def run(args: argparse.Namespace, session: Invocation) -> int:
    number, services = wanted(args.words, args.to)
    if args.detach and args.wait_timeout is not None:
        raise CliError("-d and --wait-timeout cannot be used together", code=USAGE)
    if args.dry_run and args.detach:
        raise CliError("--dry-run and -d cannot be used together", code=USAGE)
    command = watch.command_prefix(session)
    body = {
        "key": os.urandom(16).hex(),
        "to": number,
        "services": services,
        "remove_orphans": args.remove_orphans,
        "timeout": args.timeout,
        "dry_run": args.dry_run,
        "by": deploy.made_by(message=args.message),
    }
    answer = session.client.persist("POST", session.path("rollback"), body=body)
    deploy.show(deploy.told(answer.get("warnings") or (), {}, command))
    board = boards.Board(session.stack(), f"rollback to {answer.get('to')}")
    if args.dry_run:
        print("\n".join(summary(answer, board.stack, services)))
        return 0
    for line in summary(answer, board.stack, services):
        said.tell(line)
    if answer.get("unchanged"):
        return 0
    board.release = int(answer["number"])
    if args.detach:
        return 0
    return watch.release(
        session,
        board,
        answer["number"],
        limit=args.wait_timeout,
        patient=args.wait_timeout is not None,
        late="is not back",
        interrupted=lambda: (
            f"{board.what} of {board.stack} goes on in the background. See it: {command} ps"
        ),
    )


def summary(answer: Mapping[str, Any], stack: str, services: Sequence[str]) -> list[str]:
    """Return what is brought back, by which release, and what that changes."""
    to, number = answer.get("to"), answer.get("number")
    what = f"{', '.join(services)} of release {to}" if services else f"release {to}"
    if answer.get("unchanged"):
        return [f"{stack}: {what} runs already, as release {number}; nothing to change"]
    if answer.get("joined"):
        return [f"{stack}: going back to {what} is under way, as release {number}"]
    how = f"as release {number}" if number else "nothing is changed yet"
    lines = [f"{stack}: back to {what}, {how}"]
    from orchestrator.cli.commands import diff

    changes = list(answer.get("changes") or ())
    lines += [f"  {line}" for line in diff.lines_of(changes[:MOST])]
    if len(changes) > MOST:
        lines.append(f"  and {len(changes) - MOST} more: corral diff {to}")
    if any(
        change.get("section") == "volumes" or "volumes." in str(change.get("key"))
        for change in changes
    ):
        lines.append("  Data in volumes is not taken back; those no service has any more stay.")
    return lines
