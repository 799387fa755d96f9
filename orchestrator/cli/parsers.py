"""The parsers of the command line: of the flags before the verb, and of each verb's own words.

``orchestrator.cli.main`` parses with them; completion and the man page read them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys

from orchestrator.cli import errors, registry, wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

NOTHING = argparse.Namespace()  # of a verb whose words are somebody else's to parse


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that end in the next command to type."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        # `add_argument` makes one each time, to try it. Where it has to find the width itself it
        # loads what unpacks archives (shutil).
        made: Callable[..., argparse.HelpFormatter] = self.formatter_class
        return made(prog=self.prog, width=_columns() - 2)

    def error(self, message: str) -> NoReturn:
        raise errors.CliError(message, hint=f"{self.prog} --help", code=errors.USAGE)


def _columns() -> int:
    """Return how wide the terminal is, as shutil.get_terminal_size does."""
    with contextlib.suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    with contextlib.suppress(AttributeError, ValueError, OSError):
        if sys.__stdout__ is not None:
            return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80
    return 80


def _global_help() -> str:
    width = max(len(name) for name in registry.COMMANDS)
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in registry.COMMANDS.items()]
    return (
        "commands:\n"
        + "\n".join(lines)
        + "\n\nenvironment: CORRAL_HOST, CORRAL_CONTEXT, COMPOSE_FILE, "
        + ("COMPOSE_PROJECT_NAME, COMPOSE_PROFILES, COMPOSE_ENV_FILES, NO_COLOR")
    )


def global_parser() -> Parser:
    """Return the parser of the flags that stand before the command."""
    parser = Parser(
        prog="corral",
        usage="corral [options] COMMAND [arguments]",
        description="Run Compose files on one or many Linux machines.",
        epilog=_global_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-f", "--file", action="append", default=[], help="Compose file (repeatable; - = stdin)")
    add("-p", "--project-name", metavar="STACK", help="name of the stack")
    add("--profile", action="append", default=[], help="profile to switch on (repeatable; * = all)")
    add("--env-file", action="append", default=[], help="file of variables (repeatable)")
    add("--project-directory", metavar="DIR", help="folder relative paths start from")
    add("--all-resources", action="store_true", help="keep resources no active service uses")
    add("--ansi", choices=wishes.ANSI, help="colours and a moving picture, or not")
    add("--progress", choices=wishes.PROGRESS, help="how progress is shown (on standard errors)")
    add("--parallel", type=int, metavar="N", help="accepted: each node decides what it can do")
    add("--compatibility", action="store_true", help="accepted: names keep their - here")
    add("-H", "--host", metavar="ADDRESS", help="the controller: unix:///path, ssh://user@host")
    add("-c", "--context", metavar="CONTEXT", help="the controller of this name (corral context)")
    add("-v", "--version", action="store_true", help="print the version")
    add("words", nargs=argparse.PARSER, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _place(name: str, rest: Sequence[str]) -> tuple[str, str]:
    """Return a command's module and line of help; some second words have their own."""
    second = registry.SECOND.get((name, rest[0])) if rest else None
    return second or registry.COMMANDS[name]


def module(name: str, rest: Sequence[str] = ()) -> registry.Command:
    """Import the command's module."""
    place, _ = _place(name, rest)
    found: registry.Command = importlib.import_module(f"orchestrator.cli.commands.{place}")
    return found


def command_parser(name: str, rest: Sequence[str] = ()) -> Parser:
    """Return the parser of what stands behind a command."""
    own = Parser(
        prog=f"corral {name}",
        description=_sentence(_place(name, rest)[1]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module(name, rest).describe(own)
    return own


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
