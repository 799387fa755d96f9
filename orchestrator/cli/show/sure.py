"""The question before something is removed for good."""

from __future__ import annotations

import os
import sys

from orchestrator.cli.errors import USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def agreed(verb: str, what: str) -> bool:
    """Ask on the terminal; Ctrl-D is a no. Raises CliError where nobody is there to answer."""
    if not os.isatty(0):
        raise CliError(f"{verb} asks before it removes, and nobody is there", "-f", code=USAGE)
    print(f"Going to remove {what}")
    return said_yes(sys.stdout, "Are you sure? [yN] ")


def said_yes(stream: TextIO, prompt: str = "") -> bool:
    """Return the answer typed on the terminal; Ctrl-D is a no, and ends the line on ``stream``."""
    try:
        answer = input(prompt)
    except EOFError:
        print(file=stream)
        return False
    return answer.strip().lower() in ("y", "yes")
