"""`corral man`: the manual page, made from the parsers; shown on a terminal, else printed."""

from __future__ import annotations

import shutil
import sys

from orchestrator.cli import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from orchestrator.cli.session import Invocation

SOURCE = "corral"


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", nargs="?", metavar="COMMAND", help="only this command's part")


def run(args: argparse.Namespace, session: Invocation) -> int:  # noqa: ARG001 - all have it
    table = words.table()
    if args.verb and args.verb not in table:
        from orchestrator.cli.errors import USAGE, CliError

        raise CliError(f"corral has no command {args.verb!r}", "corral man", code=USAGE)
    text = page(table, args.verb or "")
    if not sys.stdout.isatty() or not shutil.which("man"):
        print(text, end="")
        return 0
    import subprocess

    return subprocess.run(["man", "-l", "-"], input=text, text=True, check=False).returncode


def page(table: dict[str, Any], verb: str = "") -> str:
    """Return the page in roff; of one ``verb`` only its part."""
    return "\n".join(_lines(table, verb)) + "\n"


def _lines(table: dict[str, Any], verb: str) -> Iterator[str]:
    name = f"corral-{verb}" if verb else "corral"
    yield f'.TH {name.upper()} 1 "" "{SOURCE}" "User Commands"'
    yield ".SH NAME"
    what = table[verb]["help"] if verb else "run Compose files on one or many Linux machines"
    yield f"{name} \\- {_roff(what)}"
    if verb:
        yield from _command(verb, table[verb], ".SH SYNOPSIS")
        return
    yield ".SH SYNOPSIS"
    yield ".B corral"
    yield "[options] COMMAND [arguments]"
    yield ".SH OPTIONS"
    yield from _flags(table[""]["flags"])
    yield ".SH COMMANDS"
    for word, place in table.items():
        if word and word not in words.HIDDEN:
            yield from _command(word, place, ".SS " + _roff(f"corral {word}"))
    yield ".SH ENVIRONMENT"
    for variable, text in ENVIRONMENT.items():
        yield from (".TP", f".B {variable}", _roff(text))
    yield ".SH FILES"
    for path, text in FILES.items():
        yield from (".TP", f".I {_roff(path)}", _roff(text))
    yield ".SH EXIT STATUS"
    for code, text in CODES.items():
        yield from (".TP", f".B {code}", _roff(text))


ENVIRONMENT = {
    "CORRAL_HOST": "the controller: unix:///path or ssh://user@host",
    "COMPOSE_FILE": "the Compose files, separated by colons",
    "COMPOSE_PROJECT_NAME": "the name of the stack",
    "COMPOSE_PROFILES": "profiles to switch on",
    "COMPOSE_ENV_FILES": "files of variables",
    "COMPOSE_ANSI, COMPOSE_PROGRESS": "as --ansi and --progress",
    "CORRAL_BACKUP_PASSPHRASE": "of backups, where --passphrase-file names none",
    "NO_COLOR": "no colours",
}
FILES = {
    "compose.yaml": "the stack, found here or in a folder above",
    "/run/corral/controller.sock": "where this machine's controller listens",
    "/var/lib/corral": "what controller and agent keep",
}
CODES = {
    "0": "what was asked for is so",
    "1": "it is not, and the reason was said",
    "2": "the command line makes no sense",
    "130": "ended by Ctrl-C",
}


def _command(name: str, place: dict[str, Any], head: str) -> Iterator[str]:
    yield head
    # A verb with actions may do something of its own, too: then it has flags besides --help.
    own = {"": place} if len(place["flags"]) > 2 or not place["actions"] else {}
    for action, sub in {**own, **place["actions"]}.items():
        yield from (".PP", f".B {_roff(f'corral {name} {action}'.strip())}")
        yield _roff(_synopsis(sub))
        yield ".br"
        yield _roff((sub.get("help") or place["help"]).capitalize() + ".")
        yield from _flags(sub["flags"])


def _synopsis(place: dict[str, Any]) -> str:
    found = ["[options]"] if len(place["flags"]) > 2 else []
    for word in place["words"]:
        name = "|".join(word["choices"]) or word["takes"]
        name += "..." if word["many"] or word["rest"] else ""
        found.append(f"[{name}]" if word["optional"] else name)
    return " ".join(found)


def _flags(flags: dict[str, Any]) -> Iterator[str]:
    seen = set()
    for flag in flags.values():
        same = ", ".join(flag["same"])
        if same in seen or "--help" in flag["same"]:
            continue
        seen.add(same)
        takes = "|".join(flag["choices"]) or flag["takes"]
        yield from (".TP", f".B {_roff(same)}" + (f" \\fI{_roff(takes)}\\fR" if takes else ""))
        yield _roff(flag["help"] or "no more is to be said")


def _roff(text: str) -> str:
    """Return a text whose characters mean nothing to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
