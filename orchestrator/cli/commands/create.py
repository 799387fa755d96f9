"""`corral create`: make what the file says and does not run yet, and start nothing.

It is `up --no-start`. What is created has a node, its image, networks and volumes there, and no
process: `corral start` starts it, in the order of its dependencies. What runs is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.commands import up

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these, with what they depend on")
    add("--build", action="store_true", help="build images even if they are there")
    add("--no-build", action="store_true", help="never build")
    add("--pull", choices=("always", "missing", "never"), help="when to pull images")
    add("--scale", action="append", default=[], metavar="SERVICE=N", help="replicas (repeatable)")
    add("--remove-orphans", action="store_true", help="remove services the file no longer has")
    add("--force-recreate", action="store_true", help="make anew what was created before, too")
    add("--no-recreate", action="store_true", help="what exists stays as it is; make the rest")
    add("-m", "--message", metavar="TEXT", help="why, for `corral history`")
    for ignored in ("--quiet-pull", "-y", "--yes"):
        add(ignored, action="store_true", help="accepted, has no effect here")


def run(args: argparse.Namespace, session: Invocation) -> int:
    import argparse

    parser = argparse.ArgumentParser(add_help=False)
    up.describe(parser)
    whole = parser.parse_args(["--no-start"])
    return up.run(argparse.Namespace(**{**vars(whole), **vars(args)}), session)
