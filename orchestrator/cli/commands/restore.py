"""`corral restore FILE`: put a backup of the controller's state back, here or on a new machine.

Everything is looked at before anything is touched: the file and what is in it, whether a controller
has its state here, whose node this machine is, whether the machine it was made on still lives.
Then the controller starts and asks the agents what they have seen. Where they know no stack
better than the backup, what runs is taken over; else somebody has to decide (`corral state`).
"""

from __future__ import annotations

import os
import time

from orchestrator.cli import passphrase, said
from orchestrator.cli.errors import ERROR, CliError
from orchestrator.cli.show import table
from orchestrator.client.client import Client
from orchestrator.client.errors import ApiRefusal, ClientError, NoController
from orchestrator.client.places import agent_host, run_dir, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from pathlib import Path
    from typing import Any

    from orchestrator.backups.verifying import Verified
    from orchestrator.cli.session import Invocation
    from orchestrator.config import ControllerConfig

SETTLED = 60.0  # seconds the nodes have to be reached before it is said that one is not


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE")
    passphrase.describe(parser)
    add("-f", "--force", action="store_true", help="over a controller that is here; it is kept")
    add("--adopt", action="store_true", help="take over what runs, whatever nodes know better")
    add("--no-start", action="store_true", help="put it in place and start nothing")


def run(args: argparse.Namespace, session: Invocation) -> int:
    client = session.client
    if not client.local:
        raise CliError(
            f"restore is about this machine, but the host is {client.host}",
            hint="run it on the controller's machine to be",
        )
    if os.geteuid() != 0:
        raise CliError("only root can put a controller's state in place", "sudo corral restore")
    from pathlib import Path

    from orchestrator.backups import envelope, owing, restoring, verifying
    from orchestrator.config import from_environment

    config = from_environment(os.environ)
    path = Path(args.file)
    try:
        head = envelope.peek(path)
        _refuse_controller(client, restoring.occupied(config), force=args.force)
        own = _own_node(head.cluster)
        config.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        words = args.passphrase_file
        with verifying.opened(path, lambda: passphrase.ask(words), config.state_dir) as opened:
            folder, found = opened
            _refuse(found, own, force=args.force)
            agent = config.state_dir / "agent"
            lost = not own and not (agent / "journal").exists()  # a new machine, or disk
            owed = owing.owe(folder, found.settings.node, agent / "volumes") if lost else ()
            aside = _placed(folder, config, client, force=args.force)
    except envelope.BadBackup as exc:
        raise CliError(str(exc), exc.hint) from None
    except OSError as exc:
        raise CliError(f"{exc.filename or path}: {exc.strerror or exc}") from None
    from orchestrator.cli.commands.backup import describe_backup

    _say(f"restored {describe_backup(found)}")
    if aside is not None:
        _say(f"what was here before is kept in {aside}")
    _tell(found, owed)
    if args.no_start:
        _say("nothing was started: corral controller start")
        return 0
    _start(client, found)
    return _decided(client, found, adopt=args.adopt)


def _say(text: str) -> None:
    said.tell(table.printable(text))


def _warn(text: str) -> None:
    said.tell(table.printable(text), said.WARNING)


# Before anything is touched.


def _refuse_controller(client: Client, occupied: str, *, force: bool) -> None:
    if force:
        return
    here = Client(client.host)
    here.patient = False
    try:
        version = here.request("GET", "/v1/version", timeout=5.0)
    except NoController:
        if not occupied:
            return
        what = occupied
    except ClientError as exc:
        what = f"a controller is here and does not say whose ({exc})"
    else:
        what = f"the controller of cluster {version.get('cluster') or '?'} runs here"
    raise CliError(
        f"{what}; nothing was changed",
        hint="--force puts the backup in its place, and keeps what is here beside it; corral "
        "backup first makes one of it",
    )


def _own_node(cluster: str) -> str:
    """Return which node of the backup's cluster this machine's agent is; "" = none. Refuses."""
    try:
        hello = Client(agent_host()).request("GET", "/v1/hello", timeout=5.0)
    except ClientError:
        return ""
    stamp = hello.get("stamp") or {}
    if not stamp:
        return ""
    if stamp.get("cluster") != cluster:
        raise CliError(
            f"this machine is a node of another cluster ({stamp.get('cluster')}); "
            "nothing was changed",
            hint="take it out there (corral node rm), or take another machine",
        )
    return str(hello.get("node") or "")


def _refuse(found: Verified, own: str, *, force: bool) -> None:
    from orchestrator.backups import restoring

    was = found.settings
    if own and was.node and own != was.node:
        raise CliError(
            f"this machine is a node of the cluster, and not {was.name}, which had the controller;"
            " nothing was changed",
            hint="use the machine that had it, or one that is no node",
        )
    if force:
        return
    if found.check.errors:
        one = found.check.errors[0]
        raise CliError(
            f"the backup's records are not in order ({one.key} {one.what}); nothing was changed",
            hint="corral backup verify shows all of it; --force puts it back as it is",
        )
    if own or not was.underlay or restoring.is_own(was.underlay):
        return
    if restoring.answers(was.underlay):
        raise CliError(
            f"{was.name} had the controller, and a machine answers at its address {was.underlay}; "
            "nothing was changed",
            hint="two machines must not be one node: power it off, or restore there; --force if "
            "it is another machine by now",
        )


def _placed(folder: Path, config: ControllerConfig, client: Client, *, force: bool) -> Path | None:
    from orchestrator.backups import restoring

    if force:
        from orchestrator.embedded import daemons

        if ended := daemons.stop(client):
            _say(f"ended: {', '.join(ended)}; containers run on")
    return restoring.place(folder, config)


# Afterwards.


def _tell(found: Verified, owed: tuple[str, ...]) -> None:
    """Say what a backup cannot bring back."""
    from orchestrator.backups import restoring

    was = found.settings
    if owed:
        _warn(
            f"warning: what was on {was.name} is not here: {', '.join(owed)}. What needs it waits: "
            f"corral volume restore NAME FILE, or corral volume create --node {was.name} NAME to "
            "begin with an empty one; a path is to be put back"
        )
    if was.underlay and not restoring.is_own(was.underlay):
        _say(
            f"{was.name} was reached by other nodes at {was.underlay}, which is not this machine's "
            f"address: an address of the same /16 is found by itself, else corral node set "
            f"{was.name} --underlay-addr ADDRESS"
        )
    for name, value in sorted(was.environment.items()):
        if os.environ.setdefault(name, value) == value:
            _say(f"{name}={value}, as it was there")


def _start(client: Client, found: Verified) -> None:
    from orchestrator.embedded import daemons

    try:
        daemons.ensure(client, _say)
    except ClientError as exc:
        raise CliError(
            f"the backup is in place ({state_dir()}/controller), and its controller does not "
            f"start: {exc}",
            hint=exc.hint or f"see {run_dir()} and the controller's log",
        ) from None
    _say(f"the controller of cluster {found.head.cluster} is here now")


def _decided(client: Client, found: Verified, *, adopt: bool) -> int:
    """Take over what runs where nothing has to be decided; say what is to be done else."""
    report = _report(client)
    if not report.get("behind"):
        return _nodes(client)
    newer = list(report.get("newer") or ())
    if newer and not adopt:
        _warn("nodes know more than the backup:")
        for line in newer:
            _warn(f"  {line}")
        _warn(
            "nothing is changed before somebody has decided: corral state shows it, corral state "
            "adopt takes over what runs, corral state discard goes by the backup"
        )
        return ERROR
    absent = [name for name in report.get("absent") or () if name != found.settings.name]
    if absent:
        _warn(
            f"{', '.join(absent)} did not answer, so what runs there cannot be taken over: bring "
            "them back and say corral state adopt, or go on without: corral state adopt --yes"
        )
        return ERROR
    # The machine's own agent is new, or answers: there is nothing on it that could be missed.
    try:
        done = client.request("POST", "/v1/state/adopt", query={"without_absent": 1}, timeout=60.0)
    except ApiRefusal as exc:
        if _report(client).get("behind"):
            raise CliError(str(exc), exc.hint or "corral state") from None
        done = {}
    for line in (done or {}).get("done") or ():
        _say(f"  {line}")
    _say("what runs was taken over")
    return _nodes(client, str(report["behind"]))


def _report(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/state", patience=30.0)
    return found


def _nodes(client: Client, decided: str = "") -> int:
    """Wait a while for all nodes and say how they are.

    ``decided``: the question that was just answered. The controller says it until it has asked
    the nodes once more and begun; whatever else it cannot do anything for stays.
    """
    until = time.monotonic() + SETTLED
    while True:
        answer = client.get("/v1/nodes")
        waiting = [row for row in answer["nodes"] if row.get("status") != "ready"]
        why = str(answer.get("undecided") or "")
        settled = why != decided if why else not waiting
        if settled or time.monotonic() > until:
            break
        time.sleep(0.2)
    if why:
        _warn(why)
        return ERROR
    for row in waiting:
        _warn(f"{row['name']}: {row.get('reason') or row.get('status')}")
    _say(f"{len(answer['nodes']) - len(waiting)} of {len(answer['nodes'])} nodes are ready")
    return ERROR if waiting else 0
