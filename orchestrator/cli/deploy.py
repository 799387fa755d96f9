"""Make the request that `up` sends: the canonical mapping, positions, file contents.

Reads secrets and configs on this machine, because only this machine has the
files; the controller seals them. Values never appear in messages.
"""

from __future__ import annotations

import os
import socket

from orchestrator.cli import project as projects
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from orchestrator.cli.loaded import Loaded
    from orchestrator.client.client import Client


def scales(words: list[str]) -> dict[str, int]:
    """Return ``{"web": 3}`` for ``["web=3"]``. Raises CliError."""
    found: dict[str, int] = {}
    for word in words:
        name, mark, count = word.partition("=")
        if not mark or not name or not count.isdecimal():
            raise CliError(f"{word!r} is not SERVICE=NUMBER", hint="write web=3", code=USAGE)
        found[name] = int(count)
    return found


def known_services(model: Mapping[str, Any], names: Mapping[str, Any] | list[str]) -> None:
    """Refuse names the file does not have."""
    services = model.get("services") or {}
    for name in names:
        if name not in services:
            known = ", ".join(sorted(services)) or "none"
            raise CliError(f"no such service: {name}", hint=f"the file has: {known}")


def client_identity() -> dict[str, str]:
    """Return which machine this is: its relative binds and build contexts are real here."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return {"hostname": socket.gethostname(), "boot_id": boot}


LONGEST_MESSAGE = 500  # characters, as specs.made_by has it


def made_by(directory: str = "", message: str | None = None) -> dict[str, Any]:
    """Return why a release is made, and from what (specs.made_by). Raises CliError.

    With the ``directory`` of a project goes the commit it is at. Who asks is in the request's head.
    """
    text = (message or "").strip()
    if len(text) > LONGEST_MESSAGE:
        raise CliError(
            f"-m: {len(text)} characters are too many, {LONGEST_MESSAGE} are possible", code=USAGE
        )
    found: dict[str, Any] = {"message": text} if text else {}
    if directory:
        from orchestrator.cli import checkout  # nobody else needs it

        found["directory"] = directory
        found.update(checkout.found(directory))
    return found


def body(args: argparse.Namespace, project: Loaded, *, again: Sequence[str] = ()) -> dict[str, Any]:
    """Return the Deploy body (specs.api.Deploy) for these arguments of `up`. Raises CliError.

    ``again`` are services that run even if they completed before.
    """
    scale = scales(args.scale)
    contents = projects.contents(project, args.services, dependencies=not args.no_deps)
    known_services(project.model, args.services)
    known_services(project.model, scale)
    orphans = args.remove_orphans or _switch(project.environment, "COMPOSE_REMOVE_ORPHANS")
    request: dict[str, Any] = {
        "key": os.urandom(16).hex(),
        "project": dict(project.model),
        "directory": project.working_dir,
        "origins": dict(project.origins),
        "contents": dict(contents),
        "client": client_identity(),
        "services": list(args.services),
        "scale": scale,
        "build": "always" if args.build else "never" if args.no_build else "missing",
        "pull": args.pull,
        "force_recreate": args.force_recreate,
        "remove_orphans": orphans,
        "known": sorted(project.disabled),  # their profile is off
        "no_deps": args.no_deps,
        "always_recreate_deps": args.always_recreate_deps,
        "config_files": list(project.files),
        "by": made_by(project.working_dir, getattr(args, "message", None)),
    }
    if args.deadline is not None:
        request["deadline"] = args.deadline
    if args.timeout is not None:
        request["timeout"] = args.timeout
    if getattr(args, "no_start", False):
        request["no_start"] = True
    if getattr(args, "renew_anon_volumes", False):
        request["renew_volumes"] = True
    if getattr(args, "no_recreate", False):
        request["no_recreate"] = True
    if again:
        request["again"] = list(again)
    return request


def told(
    warnings: Iterable[dict[str, Any]], environ: Mapping[str, str], command: str = "corral"
) -> Iterator[dict[str, Any]]:
    """Yield what is shown of the controller's warnings: COMPOSE_IGNORE_ORPHANS silences one.

    ``command`` is how the user calls corral for this stack, which the controller cannot know.
    """
    for warning in warnings:
        if warning.get("code") == "orphans" and _switch(environ, "COMPOSE_IGNORE_ORPHANS"):
            continue
        hint = str(warning.get("hint") or "")
        if hint.startswith(("corral scale ", "corral up ")):
            yield {**warning, "hint": command + hint.removeprefix("corral")}
        else:
            yield warning


def show(warnings: Iterable[dict[str, Any]]) -> None:
    """Print what is left of them."""
    if found := list(warnings):
        from orchestrator.cli import findings  # most have none

        findings.show_json(found)


def _switch(environ: Mapping[str, str], name: str) -> bool:
    return (environ.get(name) or "").lower() in ("1", "true", "t", "y", "yes")


def send(client: Client, stack: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Post the release; the key makes it safe to repeat while the controller restarts."""
    row: dict[str, Any] = client.persist(
        "POST", f"/v1/stacks/{quote(stack)}/releases", body=request
    )
    return row
