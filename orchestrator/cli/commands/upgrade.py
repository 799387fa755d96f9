"""`corral upgrade`: bring the controller, then every node's agent, to this version of corral.

On the controller's machine the controller is restarted as the corral that runs this command
(orchestrator.embedded.renewal), with the agent of that machine; the other agents are the
controller's business. Nothing of it stops a container.
"""

from __future__ import annotations

import os

from orchestrator.cli import said
from orchestrator.cli.errors import CliError
from orchestrator.cli.show import steps, table
from orchestrator.client.errors import ApiRefusal
from specs.kit import versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

SILENCE = 480.0  # seconds without a word: a node that changes over, and back again
INTERRUPTED = (
    "the node under way ends by itself, as the old or the new version; "
    "corral upgrade again does what is left"
)


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--nodes", action="append", default=[], metavar="NODE,...", help="only these (all)")
    add("--dry-run", action="store_true", help="say what would be done, and change nothing")
    add("--identity", "-i", metavar="FILE", help="private key to log in with, as in node add")


def run(args: argparse.Namespace, session: Invocation) -> int:
    names = [name for word in args.nodes for name in word.split(",") if name]
    client, mine = session.client, versions.installed()
    own_machine = client.local and os.geteuid() == 0
    if own_machine and not args.dry_run:
        from orchestrator.embedded import daemons

        daemons.ensure(client, _say)
    theirs = str(client.get("/v1/version")["version"])
    age = versions.age(theirs, mine)
    _refuse(age, theirs, mine, session, own_machine=own_machine)
    if args.dry_run:
        return _foretell(session, names, theirs, mine, own_machine=own_machine)
    if own_machine:
        from orchestrator.embedded import renewal

        renewal.renew(client, _say, agent=_has_own(session, names))
    else:
        _say(f"controller: {theirs} already")
    body: dict[str, Any] = {"nodes": names}
    if args.identity:
        body["identity"] = os.path.abspath(os.path.expanduser(args.identity))
    stream = client.stream("POST", "/v1/upgrade", body=body, idle=SILENCE)
    return steps.follow(stream, "upgrade", INTERRUPTED)[0]


def _say(text: str) -> None:
    said.tell(f"  {text}")


def _refuse(age: str, theirs: str, mine: str, session: Invocation, *, own_machine: bool) -> None:
    if age == "newer":
        raise CliError(
            f"the controller has {theirs}, which is newer than this corral ({mine}): upgrade does "
            "not go back",
            hint=f"install corral {theirs} here",
        )
    if age and not own_machine:
        who = "only root restarts it" if session.client.local else "it is another machine's"
        raise CliError(
            f"the controller has {theirs}, this corral is {mine}, and {who}",
            hint="run corral upgrade as root on the controller's machine, with this version there",
        )


def _has_own(session: Invocation, names: list[str]) -> bool:
    """Say whether the agent of the controller's machine is among the nodes that are meant."""
    rows = session.client.get("/v1/nodes")["nodes"]
    return any(not row.get("address") and (not names or row["name"] in names) for row in rows)


def _foretell(
    session: Invocation, names: list[str], theirs: str, mine: str, *, own_machine: bool
) -> int:
    """Say what would be done: of the controller here, of nodes as the controller plans it."""
    changes = theirs != mine
    if changes:
        plan = f"{theirs} -> {mine}; would be restarted, containers and agents run on"
    else:
        plan = f"{theirs} already"
    said.tell(f"  controller: {plan}")
    body = {"nodes": names, "dry_run": True, "version": mine, "here": own_machine}
    try:
        stream = session.client.stream("POST", "/v1/upgrade", body=body)
        return steps.follow(stream, "upgrade --dry-run")[0]
    except ApiRefusal as refusal:
        if not changes or refusal.status not in (400, 404, 405, 422):
            raise
    # A controller of before cannot say: this is what it knows of its nodes.
    rows = session.client.get("/v1/nodes")["nodes"]
    if unknown := set(names) - {row["name"] for row in rows}:
        raise CliError(f"there is no node {min(unknown)}", "corral node ls")
    for row in rows:
        if not names or row["name"] in names:
            was = str(row.get("version") or versions.UNKNOWN)
            text = f"{was} already" if was == mine else f"{was} -> {mine}"
            said.tell(f"  {table.printable(str(row['name']))}: {text}")
    return 0
