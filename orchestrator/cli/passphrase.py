"""Where the passphrase of a backup comes from: a file, the environment, or the terminal.

Never from the command line, which everybody on the machine can read.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli.errors import USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

VARIABLE = "CORRAL_BACKUP_PASSPHRASE"
LONGEST = 4096


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a file."""
    parser.add_argument(
        "--passphrase-file", metavar="FILE", help=f"its first line is the passphrase ({VARIABLE})"
    )


def ask(file: str | None, *, twice: bool = False) -> str:
    """Return the passphrase; ``twice``: of a new one, typed again. Raises CliError, OSError."""
    if file is not None:
        try:
            with open(file, encoding="utf-8") as opened:
                return _checked(opened.readline(LONGEST).rstrip("\n"), file)
        except UnicodeDecodeError:
            raise CliError(
                f"the passphrase in {file} is no text",
                hint="its first line is what one could type: base64 FILE makes text of anything",
                code=USAGE,
            ) from None
    if VARIABLE in os.environ:
        return _checked(os.environ[VARIABLE], VARIABLE)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CliError(
            "a backup is encrypted, and nobody is there to type the passphrase",
            hint=f"--passphrase-file FILE, or {VARIABLE} in the environment",
            code=USAGE,
        )
    import getpass

    given = _checked(getpass.getpass("passphrase: ", sys.stderr), "what was typed")
    if twice and getpass.getpass("again: ", sys.stderr) != given:
        raise CliError("the two are not the same; nothing was made")
    return given


def _checked(text: str, source: str) -> str:
    if not text.strip():
        raise CliError(
            f"the passphrase is empty ({source})",
            hint="write some words; --plain makes a backup that anybody can read",
            code=USAGE,
        )
    return text
