"""`corral version`: of the command line and, where one answers, of the controller."""

from __future__ import annotations

from orchestrator.client.errors import ClientError
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--short", action="store_true", help="only the number")
    add("-f", "--format", choices=("pretty", "json"), default="pretty")


def run(args: argparse.Namespace, session: Invocation) -> int:
    from specs.kit import versions

    mine = versions.installed()
    if args.short:
        print(mine)
        return 0
    reason = ""
    theirs = None
    try:
        theirs = session.client.request("GET", "/v1/version", timeout=5.0)
    except ClientError as exc:
        reason = str(exc)
    if args.format == "json":
        print(jsontext.shown({"version": mine, "controller": theirs, "reason": reason}))
        return 0
    print(f"corral {mine}")
    if theirs is None:
        print(f"controller: {reason}")
    else:
        print(
            f"controller {theirs.get('version', '?')} (API {theirs.get('api', '?')}), "
            f"cluster {theirs.get('cluster') or '-'}, epoch {theirs.get('epoch', 0)}"
        )
    return 0
