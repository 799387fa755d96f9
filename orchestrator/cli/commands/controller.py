"""`corral controller`: run it here, or start, stop and inspect this machine's own.

Without a subcommand this process becomes the controller; every further argument is
the controller's.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli import said
from orchestrator.cli.errors import CliError
from orchestrator.cli.show import table
from orchestrator.client.errors import ClientError
from orchestrator.client.http import quote
from orchestrator.client.places import default_host
from specs.kit import jsontext
from specs.kit.amounts import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, NoReturn

    from orchestrator.cli.session import Invocation
    from orchestrator.client.client import Client

ACTIONS = ("start", "stop", "status", "extend")


def describe(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "corral controller [start | stop | status [--format json] | extend RANGE | "
        "DAEMON ARGUMENTS]"
    )
    parser.epilog = (
        "start    start controller and agent of this machine in the background\n"
        "stop     end them; containers keep running and are adopted by the next start\n"
        "status   what runs here (exit code 1: nothing answers)\n"
        "extend   give the cluster another range of addresses for networks, as 10.211.0.0/16\n"
        "(none)   become the controller, in the foreground"
    )


def run(_args: argparse.Namespace, session: Invocation) -> int:
    words = list(session.argv)
    if not words or words[0] not in ACTIONS:
        become("orchestrator", words)
    action, *rest = words
    if action == "extend":
        return _extend(session.client, rest)
    allowed = ([], ["--format", "json"], ["--format=json"]) if action == "status" else ([],)
    if rest not in allowed:
        raise CliError(f"corral controller {action} does not know {' '.join(rest)}", code=2)
    if not session.client.local:
        raise CliError(
            f"controller {action} is about this machine, but the host is {session.client.host}",
            hint="unset CORRAL_HOST",
        )
    if action == "start":
        return _start(session.client)
    if action == "stop":
        return _stop(session.client)
    return _status(session.client, as_json=bool(rest))


def _extend(client: Client, words: list[str]) -> int:
    if len(words) != 1:
        raise CliError(
            "corral controller extend takes one range", hint="for example 10.211.0.0/16", code=2
        )
    answer = client.request("POST", "/v1/cluster/ranges", body={"range": words[0]})
    print(f"networks get addresses of {', '.join(answer['ranges'])}")
    return 0


def become(module: str, words: list[str]) -> NoReturn:
    """Replace this process by one of the daemons."""
    sys.stdout.flush()
    # -P: the present folder must not shadow our packages.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *words])  # noqa: S606 - becoming it is the point


def _start(client: Client) -> int:
    from orchestrator.embedded import daemons

    if not daemons.ensure(client, say=said.tell):
        said.tell("the controller of this machine runs already")
    return 0


def _stop(client: Client) -> int:
    from orchestrator.embedded import daemons

    running = _running_tasks(client)
    ended = daemons.stop(client)
    if not ended:
        said.tell("neither controller nor agent runs on this machine")
        return 0
    said.tell(f"ended: {', '.join(ended)}")
    if running:
        said.tell(
            f"containers that keep running: {running}; `corral controller start` takes them over "
            "again, `corral down` removes a stack"
        )
    return 0


def _running_tasks(client: Client) -> int:
    count = 0
    try:
        for stack in client.request("GET", "/v1/stacks", timeout=5.0)["stacks"]:
            path = f"/v1/stacks/{quote(str(stack['name']))}/tasks"
            rows = client.request("GET", path, timeout=5.0)["tasks"]
            count += sum(row.get("state") == "running" for row in rows)
    except (ClientError, KeyError, TypeError):
        return 0
    return count


def _resident(pid: int) -> int:
    """Return the process's resident memory in bytes."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def status(client: Client) -> dict[str, Any]:
    """Return what runs here, as `--format json` prints it."""
    from orchestrator.embedded import daemons, systemd

    found: dict[str, Any] = {"host": client.host, "running": False, "reason": ""}
    try:
        found["version"] = client.request("GET", "/v1/version", timeout=5.0)
        found["nodes"] = client.request("GET", "/v1/nodes", timeout=5.0)["nodes"]
        found["running"] = True
    except ClientError as exc:
        found["reason"] = str(exc)
    pids = daemons.daemon_pids()
    keeper = daemons.supervisor_pid()
    if keeper is not None:
        pids["supervisor"] = keeper
    found["kept_by"] = (
        "systemd"
        if systemd.running() and systemd.installed()
        else "supervisor"
        if keeper is not None
        else "nobody"
    )
    found["processes"] = [
        {"name": name, "pid": pid, "memory": _resident(pid)} for name, pid in pids.items()
    ]
    return found


def _status(client: Client, *, as_json: bool) -> int:
    found = status(client)
    if as_json:
        print(jsontext.shown(found))
        return 0 if found["running"] else 1
    if not found["running"]:
        print(f"controller: {found['reason']}")
    else:
        version = found["version"]
        print(
            f"controller {version.get('version', '?')} on {default_host()}, "
            f"cluster {version.get('cluster') or '-'}, epoch {version.get('epoch', 0)}"
        )
        ready = sum(row.get("status") == "ready" for row in found["nodes"])
        print(f"nodes: {ready} of {len(found['nodes'])} ready")
        print(f"restarted when it ends by: {found['kept_by']}")
    if found["processes"]:
        print(
            table.render(
                ("PROCESS", "PID", "MEMORY"),
                [(row["name"], row["pid"], size(row["memory"])) for row in found["processes"]],
            )
        )
    return 0 if found["running"] else 1
