"""What `run`'s flags make of a service, before it is sent: the one-off as a Compose service (pure).

As in Compose: no ports, name, restart policy or copies of the service's, its command and input
from the command line, and a terminal where this is one.
"""

from __future__ import annotations

from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.pairs import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

# What belongs to the service's own tasks. A fixed address, too: two cannot have it.
NOT_ITS_OWN = ("container_name", "restart", "scale", "profiles")
# The same below `x-corral`: how many there are, when, and how they are replaced.
OF_ITS_TASKS = ("max_concurrent", "autoscale", "schedule", "canary", "update", "keep_old")


def changed(
    service: Mapping[str, Any],
    args: argparse.Namespace,
    *,
    command: Sequence[str],
    environment: Mapping[str, str],
    terminal: bool,
    declared: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the service as the one-off has it. Raises CliError."""
    found = {key: value for key, value in service.items() if key not in NOT_ITS_OWN}
    if args.entrypoint is not None:
        found["entrypoint"] = _split(args.entrypoint)
        found["command"] = []
    if command:
        found["command"] = list(command)
    found["environment"] = {**(service.get("environment") or {}), **environment}
    found["labels"] = {**(service.get("labels") or {}), **labels(args.label)}
    found["ports"] = [*((service.get("ports") or []) if args.service_ports else [])]
    found["ports"] += _ports(args.publish)
    found["volumes"] = _mounts(service.get("volumes") or [], args.volume, declared)
    own = {"user": args.user, "working_dir": args.workdir}
    found.update({key: value for key, value in own.items() if value is not None})
    for key, more in (("cap_add", args.cap_add), ("cap_drop", args.cap_drop)):
        if more:
            found[key] = [*(service.get(key) or []), *more]
    if not args.detach:
        found["tty"], found["stdin_open"] = terminal, True
    if args.no_deps:
        found.pop("depends_on", None)
    found["networks"] = {
        name: {k: v for k, v in (wanted or {}).items() if k not in ("ipv4_address", "ipv6_address")}
        or None
        for name, wanted in (service.get("networks") or {}).items()
    }
    if isinstance(deploy := service.get("deploy"), dict):
        kept = ("resources", "placement", "labels")
        found["deploy"] = {key: value for key, value in deploy.items() if key in kept}
    if isinstance(extension := service.get("x-corral"), dict):
        gone = (*OF_ITS_TASKS, *(("depends_deadline",) if args.no_deps else ()))
        found["x-corral"] = {key: value for key, value in extension.items() if key not in gone}
    return found


def _split(text: str) -> list[str]:
    import shlex

    try:
        return shlex.split(text)
    except ValueError as exc:
        raise CliError(f"--entrypoint {text!r}: {exc}", code=USAGE) from None


def _ports(words: Sequence[str]) -> list[dict[str, Any]]:
    if not words:
        return []
    from specs.compose.merging.shortforms import parse_port

    found: list[dict[str, Any]] = []
    for word in words:
        try:
            found += parse_port(word)
        except ValueError as exc:
            raise CliError(f"-p {word}: {exc}", hint="-p 8080:80", code=USAGE) from None
    return found


def _mounts(
    own: Sequence[dict[str, Any]], words: Sequence[str], declared: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the mounts with those of -v, which take the place of one at the same target."""
    found = {str(mount.get("target")): mount for mount in own}
    for word in words:
        from specs.compose.merging.shortforms import parse_volume

        try:
            mount = parse_volume(word)
        except ValueError as exc:
            raise CliError(f"-v {word}: {exc}", hint="-v ./data:/data:ro", code=USAGE) from None
        source = str(mount.get("source") or "")
        if mount["type"] == "bind":
            import os

            mount["source"] = os.path.abspath(os.path.expanduser(source))
        elif source and source not in declared:
            raise CliError(
                f"-v {word}: the file has no volume {source}",
                hint=f"its volumes: {', '.join(sorted(declared)) or 'none'};"
                " a folder begins with / or ./",
                code=USAGE,
            )
        found[str(mount["target"])] = mount
    return list(found.values())
