"""What every command gets: the global flags, the client, the stack's name.

The name is found without reading YAML where that is possible: -p, then
COMPOSE_PROJECT_NAME, then the cache in orchestrator.cli.names, and only then the
file itself.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli import wishes
from orchestrator.cli.errors import CliError
from orchestrator.client import contexts
from orchestrator.client.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Sequence
    from typing import Any

    from specs import Project

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


class Invocation:
    """One run of the command line."""

    def __init__(self, flags: argparse.Namespace, argv: Sequence[str] = ()) -> None:
        self.flags = flags
        self.argv = list(argv)  # the command's own words, unparsed
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The controller's client; nothing is sent before the first request."""
        if self._client is None:
            host, _ = contexts.chosen(self.flags.host, self.flags.context)
            self._client = Client(host)
        return self._client

    @property
    def colour(self) -> bool:
        """Whether standard output may be coloured."""
        return wants_colour(sys.stdout.isatty())

    def stack(self) -> str:
        """Return the stack the command is about. Raises CliError."""
        given = self.flags.project_name or os.environ.get("COMPOSE_PROJECT_NAME")
        if given:
            source = "-p" if self.flags.project_name else "COMPOSE_PROJECT_NAME"
            return checked_name(given, source)
        from orchestrator.cli import names

        found = names.lookup(self.flags)
        if found is None:
            try:
                found = self.project().name
            except CliError as exc:
                raise CliError(
                    str(exc), hint="repair it, or name the stack: corral -p NAME ...", code=exc.code
                ) from None
        self.flags.project_name = found  # asked once
        return found

    def project(self, services: Sequence[str] = ()) -> Project:
        """Load the Compose files. Raises CliError with every problem already shown."""
        from orchestrator.cli import project

        return project.load(self.flags, services)

    def path(self, *rest: str) -> str:
        """Return the API path of the stack, or of something below it."""
        from orchestrator.client.http import quote

        return "/".join(["/v1/stacks", quote(self.stack()), *rest])


def checked_name(name: str, source: str) -> str:
    """Return ``name`` if it can be a stack's."""
    if not name or name[0] in "_-" or not set(name) <= _NAME:
        raise CliError(
            f"{source} {name!r} cannot be the name of a stack",
            hint="use lower-case letters, digits, - and _, beginning with a letter or digit",
        )
    return name


def check_services(asked: Sequence[str], known: Collection[str], stack: str) -> None:
    """Refuse services that a stack does not have. Raises CliError."""
    if wrong := [name for name in asked if name not in known]:
        services = ", ".join(sorted(known)) or "none"
        raise CliError(f"no service {wrong[0]!r}", hint=f"services of {stack}: {services}")


def wants_colour(terminal: bool) -> bool:  # noqa: FBT001 - the question itself
    """Say whether to colour: --ansi decides, else NO_COLOR and TERM=dumb say no."""
    wish = wishes.ansi()
    if wish != "auto":
        return wish == "always"
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def as_number(value: Any) -> float:
    """Return a JSON number, or 0 where the server sent none."""
    return float(value) if isinstance(value, int | float) else 0.0
