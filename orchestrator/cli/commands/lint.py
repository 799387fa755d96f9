"""`corral lint`: everything there is to say about the files, in one go, offline.

What is wrong, what corral does with each key used, and what is valid but hardly
meant. The findings come from :mod:`specs.lint.report`; here they are shown, warnings of
one kind in one line with a count. ``--format json`` has each of them.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from orchestrator.cli.errors import ERROR
from specs.kit import jsontext

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation
    from specs.lint.report import KeyReport, LintReport
    from specs.problems import Problem

VERDICTS = ("refused", "not honoured yet", "no meaning here", "resolved while loading", "honoured")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--strict", action="store_true", help="end with 1 for warnings too")
    add("--format", choices=("text", "json"), default="text")
    add("-q", "--quiet", action="store_true", help="only problems, no list of keys")


def run(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli import project
    from specs.kit import confinement
    from specs.lint.report import lint
    from specs.pins import sentence
    from specs.problems import gathered

    report = lint(*project.examine(session.flags))
    shown = gathered(report.problems)
    errors = sum(problem.severity == "error" for problem in shown)
    warnings = len(shown) - errors
    if args.format == "json":
        print(_json(report))
    else:
        _show(shown, [] if args.quiet else report.keys)
        if not args.quiet and not confinement.has_apparmor():
            # Of this machine, which may become a node: no finding about the file.
            print(f"note: {confinement.MISSING}")
        if report.pinned and not args.quiet:
            print(f"stays on one node, where its data is: {sentence(report.pinned)}")
        print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    return ERROR if errors or (args.strict and warnings) else 0


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _json(report: LintReport) -> str:
    return jsontext.shown(
        {
            "problems": [problem.as_json() for problem in report.problems],
            "pinned": report.pinned,
            "keys": [row.as_json() for row in report.keys],
        },
        indent=2,
    )


def _show(problems: list[Problem], keys: list[KeyReport]) -> None:
    from orchestrator.cli.findings import source_line
    from specs.problems import render

    for problem in problems:
        # A gathered one stands for many places: one line of them says little.
        print(render(problem, source_line(problem) if problem.path else None))
    if keys:
        print(_table(keys))


def _table(rows: list[KeyReport]) -> str:
    """Return the keys used, by what corral does with them."""
    lines = []
    for verdict in VERDICTS:
        keys = dict.fromkeys(_short(row.key) for row in rows if row.verdict == verdict)
        if not keys:
            continue
        text = f"{verdict}: {', '.join(keys)}"
        lines += textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines)


def _short(key: str) -> str:
    """Return a key without what only says that it is a service's, a name's or an item's."""
    return key.removeprefix("services.*.").removesuffix(".*").replace("[]", "")
