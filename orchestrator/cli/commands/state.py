"""`corral state [show|adopt|discard|check|export]`: is the controller's state what it should be.

The first three are about one that is older than what runs.
"""

from __future__ import annotations

import sys

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR, CliError
from orchestrator.cli.show import table
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION")
    sub = kinds.add_parser("show", help="say whether it is older than what runs, and in what")
    sub.add_argument("--format", choices=("pretty", "json"), default="pretty")
    for word, text in (
        ("adopt", "take over what runs, release by release, as the nodes report it"),
        ("discard", "go by the controller's state: what it does not know is stopped"),
    ):
        sub = kinds.add_parser(word, help=text)
        sub.add_argument("-y", "--yes", action="store_true", help="do not ask")
    sub = kinds.add_parser("check", help="go through its records; exit code 1: one is wrong")
    sub.add_argument("--format", choices=("pretty", "json"), default="pretty")
    sub = kinds.add_parser("export", help="print what it says, without secrets")
    sub.add_argument("--format", choices=("json", "yaml"), default="json")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.action == "check":
        return _check(session, as_json=args.format == "json")
    if args.action == "export":
        return _export(session, args.format)
    found = session.client.get("/v1/state", patience=30.0)
    if args.action in (None, "show"):
        return _show(found, as_json=getattr(args, "format", "") == "json")
    if not found.get("behind"):
        said.tell("the state is as new as what runs: there is nothing to decide")
        return 0
    if args.action == "discard" and not args.yes:
        _list("this would stop", found.get("stops"))
        if not _confirmed():
            raise CliError("nothing was changed", "corral state discard --yes does it unasked")
    query = {"without_absent": 1 if args.yes and args.action == "adopt" else None}
    answer = session.client.request("POST", f"/v1/state/{args.action}", query=query)
    for line in (answer or {}).get("done") or ():
        print(table.printable(str(line)))
    if args.action == "adopt":
        print("what runs was taken over")
    else:
        print("the controller goes by its own state")
    return 0


def _show(found: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print(jsontext.shown(found))
        return 0
    if not found.get("behind"):
        print("the state is as new as what runs")
        return 0
    print(table.printable(str(found["behind"])))
    if found.get("absent"):
        print(f"not reached: {', '.join(map(str, found['absent']))}")
    _list("corral state adopt", found.get("adopts"))
    _list("corral state discard stops", found.get("stops"))
    return ERROR


def _check(session: Invocation, *, as_json: bool) -> int:
    found = session.client.request("GET", "/v1/state/check", timeout=120.0)
    rows = found.get("findings") or []
    errors = sum(row.get("severity") == "error" for row in rows)
    if as_json:
        print(jsontext.shown(found))
        return ERROR if errors else 0
    for row in rows:
        line = f"{row.get('severity')}: {row.get('key')} {row.get('what')}"
        print(table.printable(line))
    print(f"{found.get('records')} records, {errors} error{'s' if errors != 1 else ''}")
    return ERROR if errors else 0


def _export(session: Invocation, form: str) -> int:
    found = session.client.request("GET", "/v1/state/export", timeout=120.0)["state"]
    if form == "json":
        print(jsontext.shown(found))
    else:
        import yaml  # who reads JSON needs none

        print(yaml.safe_dump(found, sort_keys=False, default_flow_style=False), end="")
    return 0


def _list(title: str, lines: Any) -> None:
    print(f"{title}:" if lines else f"{title}: nothing")
    for line in lines or ():
        print(f"  {table.printable(str(line))}")


def _confirmed() -> bool:
    """Ask, where somebody can answer; silence and anything but yes mean no."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    print("Do that? [yes/no] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
