"""`corral inspect NAME...`: everything about containers and other objects, as JSON.

A container may be called as everywhere (specs.kit.called), a service means all of its containers;
without a stack here a container's whole name or id still finds it. JSON as Docker's, with what
there is to know beside it in ``corral``; ``-f`` takes Docker's templates.
"""

from __future__ import annotations

import os

from orchestrator.cli import called, said
from orchestrator.cli.commands import network, node, secret, volume
from orchestrator.cli.errors import ERROR
from orchestrator.cli.show import containers, formats, objects, times
from orchestrator.cli.show import made as created
from orchestrator.client.errors import ApiNotFound
from orchestrator.client.http import quote
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

    Row = Mapping[str, Any]

KINDS = ("container", "network", "volume", "node", "secret", "config")


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="+", metavar="OBJECT", help="a container, or another")
    add("-f", "--format", type=formats.Format, metavar="FORMAT", help="'{{.State.Status}}'")
    add("--type", choices=KINDS, help="only such an object")
    add("-s", "--size", action="store_true", help="accepted; corral stats shows what is used")


def run(args: argparse.Namespace, session: Invocation) -> int:
    kinds = [args.type] if args.type else KINDS
    found: list[dict[str, Any]] = []
    code = 0
    for name in args.names:
        mine = next((rows for kind in kinds if (rows := _of(session, kind, name))), [])
        if not mine:
            said.complain(f"there is no {args.type or 'object'} {name}", "corral ps, corral ls")
            code = ERROR
        found += mine
    if args.format is None or args.format.kind != "template":
        print(jsontext.shown([formats.for_programs(row) for row in found], indent=4))
    elif found:
        formats.show(args.format, found, str)
    return code


def _of(session: Invocation, kind: str, name: str) -> list[dict[str, Any]]:
    """Return what of this kind has the name; of a service or a name with a past several."""
    if kind == "container":
        return _containers(session, name)
    shapes: dict[str, Callable[[Row], dict[str, Any]]] = {
        "network": network.whole,
        "volume": volume.dockers,
        "secret": secret.dockers,
        "config": secret.dockers,
    }
    try:
        if kind == "node":
            return [node.as_docker(session.client.get(f"/v1/nodes/{quote(name)}"))]
        row = session.client.get(objects.path(kind, name))
    except ApiNotFound:
        return []
    return [{**shapes[kind](row), **row}]


def _containers(session: Invocation, name: str) -> list[dict[str, Any]]:
    stack = _stack_here(session)
    rows = _tasks(session, stack) if stack else []
    services, ids, _ = called.meant([name], rows)
    mine = [row for row in rows if row["id"] in ids]
    mine += called.serving([row for row in rows if row.get("service") in services])
    if not mine:
        try:
            task = session.client.get(f"/v1/tasks/{quote(name)}")
        except ApiNotFound:
            return []
        stack = str(task["stack"])
        mine = [row for row in _tasks(session, stack) if row["id"] == task["id"]]
    now = containers.now(mine)
    names = {n["id"]: n["name"] for n in session.client.get(objects.path("network"))["networks"]}
    return [
        as_docker(row, stack, names, _made(session, str(row["id"])))
        for row in mine
        if row["id"] in now
    ]


def _made(session: Invocation, task: str) -> dict[str, Any]:
    """Return what a container was made from; nothing where an older controller is asked."""
    try:
        found: dict[str, Any] = session.client.get(f"/v1/tasks/{quote(task)}/made")
    except ApiNotFound:
        return {}
    return found


def _stack_here(session: Invocation) -> str:
    """Return the stack of this folder, "" where nothing here names one."""
    from orchestrator.cli import names

    named = session.flags.project_name or os.environ.get("COMPOSE_PROJECT_NAME")
    return session.stack() if named or session.flags.file or names.beside(session.flags) else ""


def _tasks(session: Invocation, stack: str) -> list[dict[str, Any]]:
    path = f"/v1/stacks/{quote(stack)}/tasks"
    try:
        found: list[dict[str, Any]] = session.client.get(path, all=True, oneoffs=True)["tasks"]
    except ApiNotFound:
        return []
    return found


def as_docker(
    row: Row, stack: str, networks: Mapping[str, str], made: Row | None = None
) -> dict[str, Any]:
    """Return a container as ``docker inspect`` has it.

    ``networks``: id -> name; ``made``: the TaskMade, where the controller can say it.
    """
    made = made or {}
    run: Row = (((made.get("task") or {}).get("status") or {}).get("runs") or ({},))[-1]
    begins = created.command(row, made)
    state = containers.state_of(row)
    health = str(row.get("health") or "none")
    ids = row.get("network_ids") or ()
    return {
        "Id": row["id"],
        "Created": _moment(row.get("created_at")),
        "Path": begins[0] if begins else "",
        "Args": begins[1:],
        "Name": f"/{row.get('name')}",
        "Service": row.get("service", ""),
        "Project": stack,
        "Node": row.get("node", ""),
        "State": {
            "Status": state,
            "Running": state in ("running", "paused"),
            "Paused": state == "paused",
            "Restarting": state == "restarting",
            "OOMKilled": bool(run.get("oom")),
            "Pid": int(run.get("pid") or 0) if state in ("running", "paused") else 0,
            "ExitCode": containers.code_of(row) if state in ("exited", "restarting") else 0,
            "Error": row.get("reason", ""),
            "StartedAt": _moment(row.get("started_at")),
            "FinishedAt": _moment(row.get("finished_at")),
            **({"Health": {"Status": health}} if health != "none" else {}),
        },
        "Image": row.get("image_digest", ""),
        "RestartCount": int(row.get("restarts") or 0),
        "HostConfig": created.host_config(made),
        "Config": created.config(row, made),
        "Mounts": created.mounts(row, made),
        "NetworkSettings": {
            "Ports": _ports(containers.ports(row)),
            "Networks": {
                networks.get(network_id, network_id): {
                    "NetworkID": network_id,
                    "IPAddress": address,
                }
                for network_id, address in zip(ids, row.get("addresses") or (), strict=False)
            },
        },
        "corral": dict(row),
    }


def _moment(at: Any) -> str:
    """Return a time as Docker writes it, of what has not come yet as well."""
    return times.rfc3339(float(at)) if at else "0001-01-01T00:00:00Z"


def _ports(texts: list[str]) -> dict[str, list[dict[str, str]] | None]:
    found: dict[str, list[dict[str, str]] | None] = {}
    for text in texts:
        port = containers.publisher(text)
        key = f"{port['TargetPort']}/{port['Protocol']}"
        known = found.setdefault(key, None)
        if port["PublishedPort"]:
            place = {"HostIp": port["URL"], "HostPort": str(port["PublishedPort"])}
            found[key] = [*(known or ()), place]
    return found
