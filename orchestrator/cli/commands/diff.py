"""`corral diff`: what differs between two releases of a stack, by service and key."""

from __future__ import annotations

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

_COLOURS = {"+": "32", "-": "31", "~": "33"}


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("releases", nargs="*", metavar="RELEASE", help="one: and what runs; none: the last two")
    add("--format", choices=("text", "json"), default="text", help="text, or json: one object")


def run(args: argparse.Namespace, session: Invocation) -> int:
    numbers = [release_number(word) for word in args.releases]
    if len(numbers) > 2:
        raise CliError(
            f"diff compares two releases, not {len(numbers)}", hint="corral diff 3 5", code=USAGE
        )
    query = dict(zip(("before", "after"), numbers, strict=False))
    found = session.client.get(session.path("diff"), **query)
    if args.format == "json":
        table.show(table.json_lines([found]))
    else:
        print(as_text(found, colour=session.colour))
    return 0


def release_number(word: str) -> int:
    """Return the number of a release as people write it: 12, #12, v12. Raises CliError."""
    digits = word.removeprefix("#").removeprefix("v")
    if not digits.isdecimal() or not 0 < int(digits) < 1_000_000_000:
        raise CliError(
            f"{word!r} is no number of a release", hint="corral history lists them", code=USAGE
        )
    return int(digits)


def as_text(found: Mapping[str, Any], *, colour: bool = False) -> str:
    """Return the differences under the names they belong to."""
    changes = found.get("changes") or ()
    before, after = found.get("before"), found.get("after")
    if not changes:
        return f"releases {before} and {after} of {found.get('stack')} ask for the same"
    lines = [f"{found.get('stack')}: release {before} -> {after}"]
    return "\n".join([*lines, *lines_of(changes, colour=colour)])


def lines_of(changes: list[Mapping[str, Any]], *, colour: bool = False) -> list[str]:
    """Return a line for each difference, and one for each service that has some."""
    lines: list[str] = []
    at: tuple[str, str] | None = None
    for change in changes:
        place = (str(change.get("section")), str(change.get("name")))
        sign = str(change.get("sign"))
        if not change.get("key"):  # it came or went as a whole
            word = place[0].removesuffix("s") if place[0] != "services" else "service"
            image = str(change.get("new") or change.get("old") or "")
            told = f" ({image})" if image and image != place[1] else ""
            lines.append(_painted(sign, f"{sign} {word} {place[1]}{told}", colour=colour))
            at = None
            continue
        if place != at and place[0] != "stack":
            word = place[0].removesuffix("s")
            lines.append(_painted("~", f"~ {word} {place[1]}", colour=colour))
            at = place
        lines.append(_painted(sign, f"    {sign} {_line(change)}", colour=colour))
    return lines


def _line(change: Mapping[str, Any]) -> str:
    key, old, new = (str(change.get(name) or "") for name in ("key", "old", "new"))
    match change.get("sign"):
        case "+":
            return f"{key}: {new}" if new else key
        case "-":
            return f"{key}: {old}" if old else key
        case _:
            return f"{key}: another value" if old == new else f"{key}: {old or '-'} -> {new or '-'}"


def _painted(sign: str, text: str, *, colour: bool) -> str:
    safe = table.printable(text)
    return f"\x1b[{_COLOURS[sign]}m{safe}\x1b[0m" if colour and sign in _COLOURS else safe
