"""`corral config`: load the files, say what is wrong, print what they mean."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Session

LISTS = ("services", "volumes", "networks", "images", "profiles")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="SERVICE", help="only these services")
    add("--format", choices=("yaml", "json"), default="yaml")
    add("-q", "--quiet", action="store_true", help="only check")
    add("-o", "--output", metavar="FILE", help="write to a file")
    for name in LISTS:
        add(f"--{name}", action="store_true", help=f"only the {name}, one a line")


def listed(model: dict[str, Any], what: str) -> list[str]:
    """Return the names `--services`, `--images` ... print."""
    services = model.get("services") or {}
    if what == "images":
        return sorted(
            {spec.get("image") or f"{model.get('name')}-{key}" for key, spec in services.items()}
        )
    if what == "profiles":
        return sorted({name for spec in services.values() for name in spec.get("profiles") or ()})
    return sorted(model.get(what) or {})


def run(args: argparse.Namespace, session: Session) -> int:
    project = session.project(args.names)
    if args.quiet:
        return 0
    chosen = [name for name in LISTS if getattr(args, name)]
    if chosen:
        text = "".join(f"{name}\n" for what in chosen for name in listed(project.model, what))
    else:
        from specs.compose.render import render

        text = render(project.model, args.format)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:  # noqa: PTH123 - as given
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0
