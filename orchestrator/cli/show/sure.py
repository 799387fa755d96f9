"""The question before something is removed for good."""

from __future__ import annotations

import os

from orchestrator.cli.errors import USAGE, CliError


def agreed(verb: str, what: str) -> bool:
    """Ask on the terminal; Ctrl-D is a no. Raises CliError where nobody is there to answer."""
    if not os.isatty(0):
        raise CliError(f"{verb} asks before it removes, and nobody is there", "-f", code=USAGE)
    print(f"Going to remove {what}")
    try:
        answer = input("Are you sure? [yN] ")
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes")
