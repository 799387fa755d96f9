"""``--format`` of every list: a table, JSON, or Docker's template over the same rows.

A list verb adds the flag with :func:`describe` and prints with :func:`show`: it gives the rows
as mappings (what ``json`` prints and ``{{.Name}}`` reads: our fields, and Docker's keys beside
them) and how its own table is made. A template that makes no sense is refused before anything
is asked of the controller.
"""

from __future__ import annotations

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from orchestrator.cli.show.template import BadTemplate

HELP = "table, json (one object a line), '{{.Name}} {{.Status}}', or 'table {{.Name}}\\t{{.ID}}'"

# Docker's headings that are not the field's own words.
HEADINGS = {
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
    "RunningFor": "CREATED",
    "Publishers": "PORTS",
}


class Format:
    """What --format says, read: ``kind`` is table, json or template."""

    def __init__(self, text: str) -> None:
        self.words = text
        self.nodes: list[tuple[Any, ...]] | None = None
        body = text.strip()
        self.tabular = body == "table" or body.startswith(("table ", "table\t", "table\\t"))
        if body in ("", "table", "pretty", "json"):
            self.kind = "json" if body == "json" else "table"
            return
        if "{{" not in body:
            raise CliError(f"--format {text!r} is none", hint=f"one of {HELP}", code=USAGE)
        self.kind = "template"
        from orchestrator.cli.show import template

        # As Docker: a shell that keeps \t and \n as they are typed means the characters.
        text = text.replace("\\t", "\t").replace("\\n", "\n")
        self.words = text.lstrip().removeprefix("table").lstrip() if self.tabular else text
        try:
            self.nodes = template.parse(self.words)
        except template.BadTemplate as exc:
            raise self._refused(exc) from None

    def __repr__(self) -> str:
        return self.words  # argparse shows a default

    def _refused(self, exc: BadTemplate) -> CliError:
        text = f"--format, column {exc.column} of {self.words!r}: {exc}"
        return CliError(text, hint=exc.hint, code=USAGE)

    def text(
        self,
        rows: Sequence[Mapping[str, Any]],
        as_table: Callable[[], str],
        limit: int | None = None,
    ) -> str:
        """Return what is printed of ``rows``. Raises CliError."""
        if self.kind == "table":
            return as_table()
        if self.kind == "json":
            return table.json_lines(for_programs(row) for row in rows)
        from orchestrator.cli.show import template

        known = frozenset(key for row in rows for key in row)
        try:
            lines = [
                template.Printing(dict(row), known, table.printable, exact=for_programs(row)).text(
                    self.nodes or ()
                )
                for row in rows
            ]
            if not self.tabular:
                return "\n".join(lines)
            top = template.Printing(template.Headings(heading), known, table.printable)
            headings = top.text(self.nodes or ()).rstrip("\n").split("\t")
        except template.BadTemplate as exc:
            raise self._refused(exc) from None
        cells = [line.rstrip("\n").split("\t") for line in lines]
        columns = max(len(line) for line in (headings, *cells))
        headings, *cells = ([*line, *[""] * (columns - len(line))] for line in (headings, *cells))
        return table.render(headings, cells, limit)


def for_programs(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: no two of its keys differ by case only.

    Many readers (Go's, PowerShell's) take such for one. Docker's keep their place, what they
    hide of ours is in ``corral``.
    """
    dockers = {key.lower(): key for key in row if key[:1].isupper()}
    hidden = {key: row[key] for key in row if not key[:1].isupper() and key.lower() in dockers}
    shown = {key: value for key, value in row.items() if dockers.get(key.lower(), key) == key}
    return {**shown, "corral": hidden} if hidden else shown


def heading(field: str) -> str:
    """Return a field's heading: ``CREATED AT`` of ``CreatedAt``."""
    if field in HEADINGS:
        return HEADINGS[field]
    spaced = "".join(
        f" {char}" if char.isupper() and i and not field[i - 1].isupper() else char
        for i, char in enumerate(field)
    )
    return spaced.replace("_", " ").upper()


def describe(parser: argparse.ArgumentParser) -> None:
    """Add --format to a list verb."""
    parser.add_argument(
        "--format", type=Format, default="table", metavar="FORMAT", help=HELP.replace("%", "%%")
    )


def show(
    how: Format,
    rows: Sequence[Mapping[str, Any]],
    as_table: Callable[[], str],
    *,
    limit: int | None = None,
) -> None:
    """Print ``rows`` as ``how`` says; nothing at all of no rows, but a table's headings."""
    table.show(how.text(rows, as_table, limit))
