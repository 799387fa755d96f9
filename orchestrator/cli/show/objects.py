"""What `network`, `volume`, `secret` and `config` share: lists, inspect, rm, prune.

One table of words for each kind would say less than the four commands do; they have their
columns and keys, and call this for what is the same.
"""

from __future__ import annotations

from orchestrator.cli.errors import ERROR
from orchestrator.cli.show import filters, formats, table, times
from orchestrator.client.errors import ApiNotFound, ApiRefusal
from orchestrator.client.http import quote
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation

    Row = Mapping[str, Any]

FILTERS = ("name", "label", "driver", "dangling", "stack", "node", "id", "used_by")


def describe_list(parser: argparse.ArgumentParser) -> None:
    """Add the flags every list has."""
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="only names")
    add("--no-trunc", action="store_true", help="accepted, nothing is cut")
    formats.describe(parser)
    filters.describe(parser, FILTERS)


def describe_names(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the names of what the verb is about."""
    parser.add_argument("names", nargs="+", metavar=what)


def describe_inspect(parser: argparse.ArgumentParser, what: str) -> None:
    """Add what every inspect has."""
    describe_names(parser, what)
    parser.add_argument(
        "-f", "--format", type=formats.Format, metavar="FORMAT", help="'{{.Name}} {{.Labels}}'"
    )
    parser.add_argument("--pretty", action="store_true", help="lines for people")
    parser.add_argument("-v", "--verbose", action="store_true", help="accepted, all is told")


def describe_rest(kinds: Any, kind: str) -> argparse.ArgumentParser:
    """Add ls, inspect and rm of a kind to its actions; return rm's parser."""
    describe_list(kinds.add_parser("ls", aliases=["list"], help=f"list {kind}s"))
    about = kinds.add_parser("inspect", help=f"everything about {kind}s, as JSON")
    describe_inspect(about, kind.upper())
    gone: argparse.ArgumentParser = kinds.add_parser(
        "rm", aliases=["remove"], help=f"remove {kind}s that no stack uses"
    )
    describe_names(gone, kind.upper())
    return gone


def describe_prune(parser: argparse.ArgumentParser) -> None:
    """Add what every prune has."""
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    filters.describe(parser, FILTERS, short=False)


def describe_labels(parser: argparse.ArgumentParser) -> None:
    """Add --label, with Docker's short form."""
    parser.add_argument(
        *("-l", "--label"), action="append", default=[], metavar="KEY=VALUE", help="a note of yours"
    )


def fitting(rows: Iterable[Row], words: Sequence[str]) -> list[Row]:
    """Return the rows --filter asks for. Raises CliError."""
    wanted = filters.parse(words, FILTERS)

    def facts(row: Row) -> dict[str, Any]:
        unused = ("false", "0") if row.get("used_by") else ("true", "1")
        return {**row, "label": row.get("labels"), "dangling": unused}

    return [row for row in rows if filters.keeps(wanted, facts(row))]


def show(
    args: argparse.Namespace,
    rows: Iterable[Row],
    headers: Sequence[str],
    cells: Callable[[Row], Sequence[Any]],
    dockers: Callable[[Row], dict[str, Any]],
) -> int:
    """Print a list; ``dockers`` are the keys Docker's programs know, beside our own."""
    return listed(args, fitting(rows, args.filter), headers, cells, dockers)


def listed(
    args: argparse.Namespace,
    found: Sequence[Row],
    headers: Sequence[str],
    cells: Callable[[Row], Sequence[Any]],
    dockers: Callable[[Row], dict[str, Any]],
) -> int:
    """Print these rows, as -q and --format ask."""
    if args.quiet:
        table.show("\n".join(str(row["name"]) for row in found))
        return 0
    both = [{**dockers(row), **row} for row in found]
    formats.show(args.format, both, lambda: table.render(headers, [cells(row) for row in found]))
    return 0


def inspect(
    args: argparse.Namespace, session: Invocation, kind: str, dockers: Callable[[Row], Any]
) -> int:
    """Print a JSON list of the objects; 1 where one is not there."""
    from orchestrator.cli import said  # lists need none of it

    found, code = [], 0
    for name in args.names:
        try:
            row = session.client.get(path(kind, name))
        except ApiNotFound as exc:
            said.complain(str(exc))
            code = ERROR
            continue
        found.append({**dockers(row), **row})
    if args.pretty and args.format is None:
        table.show("\n\n".join(as_lines(row) for row in found))
    elif args.format is None or args.format.kind != "template":
        print(jsontext.shown([formats.for_programs(row) for row in found], indent=4))
    else:
        formats.show(args.format, found, str)
    return code


def as_lines(row: Row) -> str:
    """Return an object as lines for people, with Docker's words; what is empty is left out."""
    lines = []
    for key, value in row.items():
        if not key[:1].isupper() or value in ("", None, [], {}, ()):
            continue
        name = formats.heading(key).capitalize()
        if isinstance(value, dict):
            lines.append(f"{name}:")
            lines += [f" - {inner} = {text}" for inner, text in value.items()]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(table.printable(line) for line in lines)


def path(kind: str, name: str = "") -> str:
    return f"/v1/{kind}s/{quote(name)}" if name else f"/v1/{kind}s"


def remove(session: Invocation, kind: str, names: Iterable[str], *, missing: bool = False) -> int:
    """Remove objects by name, each that can be; ``missing``: one that is not there is no fault."""
    from orchestrator.cli import said  # lists need none of it

    code = 0
    for name in names:
        try:
            gone = session.client.request("DELETE", path(kind, name))
        except ApiNotFound as exc:
            if not missing:
                said.complain(str(exc))
                code = ERROR
            continue
        except ApiRefusal as exc:
            said.complain(str(exc), exc.hint)
            code = ERROR
            continue
        print(gone["name"], flush=True)
        if gone.get("left"):
            said.tell(f"corral: {kind} {name} is {gone['left']}", said.WARNING)
        if gone.get("needed"):
            said.tell(f"corral: {kind} {name}: {gone['needed']}", said.WARNING)
    return code


def prune(args: argparse.Namespace, session: Invocation, kind: str, rows: Iterable[Row]) -> int:
    """Remove what of these nothing uses; on a terminal ask first, without one want -f."""
    names = [row["name"] for row in fitting(rows, args.filter) if not row.get("used_by")]
    if not names:
        from orchestrator.cli import said  # lists need none of it

        said.tell(f"no unused {kind}s")
        return 0
    if not args.force:
        from orchestrator.cli.show import sure  # lists need none of it

        if not sure.agreed("prune", f"the {kind}s {', '.join(names)}"):
            return 0
    # What somebody began to use since is refused by name, and left.
    return remove(session, kind, names, missing=True)


def created(row: Row) -> str:
    at = row.get("created_at")
    return times.rfc3339(float(at)) if at else ""
