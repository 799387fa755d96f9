"""What `network`, `volume`, `secret` and `config` share: lists, inspect, rm, prune.

One table of words for each kind would say less than the four commands do; they have their
columns and keys, and call this for what is the same.
"""

from __future__ import annotations

import json
import os
import sys

from orchestrator.cli.commands.node import pairs
from orchestrator.cli.errors import ERROR, USAGE, CliError
from orchestrator.cli.show import table, times
from orchestrator.client.errors import ApiNotFound, ApiRefusal
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation

    Row = Mapping[str, Any]

FILTERS = ("name", "label", "driver", "dangling", "stack", "node", "id")


def describe_list(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the flags every list has."""
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="only names")
    add("--format", choices=("table", "json"), default="table", help="json: one object a line")
    add("--filter", action="append", default=[], metavar="KEY=VALUE", help=f"only {what} that fit")


def describe_names(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("names", nargs="+", metavar=what)


def describe_labels(parser: argparse.ArgumentParser) -> None:
    flag = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    parser.add_argument("-l", "--label", **flag, help="a note of yours")


def labels(words: Iterable[str]) -> dict[str, str]:
    """Return labels as Docker reads them: one without a value has an empty one."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def options(words: list[str]) -> dict[str, str]:
    return pairs(words, "-o")


def fits(row: Row, filters: Mapping[str, list[str]]) -> bool:
    """Say whether a row is asked for: values of one key are alternatives, labels all hold."""
    return all(
        (all if key == "label" else any)(_fits(row, key, value) for value in values)
        for key, values in filters.items()
    )


def _fits(row: Row, key: str, value: str) -> bool:
    if key == "label":
        name, mark, content = value.partition("=")
        found = row.get("labels") or {}
        return name in found and (not mark or found[name] == content)
    if key == "dangling":
        return bool(row.get("used_by")) is (value not in ("1", "true"))
    if key == "name":
        return value in str(row.get("name"))
    if key == "id":
        return str(row.get("id")).startswith(value)
    return str(row.get(key) or "") == value


def filters_of(words: Iterable[str]) -> dict[str, list[str]]:
    """Return the filters by key. Raises CliError."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, mark, value = word.partition("=")
        if not mark or key not in FILTERS:
            raise CliError(
                f"--filter {word!r} is none", hint=f"KEY=VALUE with {', '.join(FILTERS)}", code=USAGE
            )
        found.setdefault(key, []).append(value)
    return found


def show(
    args: argparse.Namespace,
    rows: Iterable[Row],
    headers: Sequence[str],
    cells: Callable[[Row], Sequence[Any]],
    dockers: Callable[[Row], dict[str, Any]],
) -> int:
    """Print a list; ``dockers`` are the keys Docker's programs know, before our own."""
    wanted = filters_of(args.filter)
    found = [row for row in rows if fits(row, wanted)]
    if args.quiet:
        table.show("\n".join(str(row["name"]) for row in found))
    elif args.format == "json":
        table.show(table.json_lines({**dockers(row), **row} for row in found))
    else:
        print(table.render(headers, [cells(row) for row in found]))
    return 0


def inspect(
    args: argparse.Namespace, session: Invocation, kind: str, dockers: Callable[[Row], Any]
) -> int:
    """Print a JSON list of the objects; 1 where one is not there."""
    found, code = [], 0
    for name in args.names:
        try:
            row = session.client.get(path(kind, name))
        except ApiNotFound as exc:
            print(f"corral: {exc}", file=sys.stderr)
            code = ERROR
            continue
        found.append({**dockers(row), **row})
    print(json.dumps(found, indent=4, ensure_ascii=False))
    return code


def path(kind: str, name: str = "") -> str:
    return f"/v1/{kind}s/{quote(name)}" if name else f"/v1/{kind}s"


def remove(
    session: Invocation, kind: str, names: Iterable[str], *, missing: bool = False
) -> int:
    """Remove objects by name, each that can be; ``missing``: one that is not there is no fault."""
    code = 0
    for name in names:
        try:
            gone = session.client.request("DELETE", path(kind, name))
        except ApiNotFound as exc:
            if not missing:
                print(f"corral: {exc}", file=sys.stderr)
                code = ERROR
            continue
        except ApiRefusal as exc:
            print(f"corral: {exc}", file=sys.stderr)
            if exc.hint:
                print(f"  hint: {exc.hint}", file=sys.stderr)
            code = ERROR
            continue
        print(gone["name"], flush=True)
        if gone.get("left"):
            print(f"corral: {kind} {name} is {gone['left']}", file=sys.stderr)
    return code


def prune(args: argparse.Namespace, session: Invocation, kind: str, rows: Iterable[Row]) -> int:
    """Remove what of these nothing uses; on a terminal ask first, without one want -f."""
    wanted = filters_of(args.filter)
    names = [row["name"] for row in rows if not row.get("used_by") and fits(row, wanted)]
    if not names:
        print(f"no unused {kind}s", file=sys.stderr)
        return 0
    if not args.force:
        if not os.isatty(0):
            raise CliError("prune asks before it removes, and nobody is there", "-f", code=USAGE)
        print(f"Going to remove the {kind}s {', '.join(names)}")
        if input("Are you sure? [yN] ").strip().lower() not in ("y", "yes"):
            return 0
    # What somebody began to use since is refused by name, and left.
    return remove(session, kind, names, missing=True)


def created(row: Row) -> str:
    at = row.get("created_at")
    return times.rfc3339(float(at)) if at else ""
