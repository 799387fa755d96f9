"""`corral down`: stop and remove a stack, in reverse order of its dependencies.

Needs no Compose file when the stack is named with -p.
"""

from __future__ import annotations

import argparse
import os
import time

from orchestrator.cli import loaded, said
from orchestrator.cli.errors import INTERRUPTED, CliError
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch
from orchestrator.client.errors import ApiNotFound, NoController
from orchestrator.client.places import state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these; the stack stays")
    add("-v", "--volumes", action="store_true", help="also remove named volumes and their data")
    add("-t", "--timeout", type=float, metavar="S", help="grace period before the kill")
    add("--remove-orphans", action="store_true", help="accepted; every task of the stack goes")
    add(
        "--rmi",
        choices=("local", "all"),
        help="also remove images: those built without a name in `image:`, or all; what another"
        " stack uses stays",
    )


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.services:
        return _services(args, session)
    stack = session.stack()
    began = time.monotonic()
    board = boards.Board(stack, "down")
    loaded.forget(stack)
    _wake_controller(session)
    images = _images(args.rmi, session)
    try:
        session.client.persist(
            "DELETE",
            session.path(),
            query={"volumes": args.volumes, "timeout": args.timeout},
        )
    except ApiNotFound:
        said.tell(
            f"{stack}: no such stack, nothing to remove (corral ls lists stacks)", said.WARNING
        )
        return 0
    try:
        good = watch.follow(session, board, session.path("progress"))
    except KeyboardInterrupt:
        said.tell(f"\nthe removal of {stack} goes on in the background: corral ls", said.WARNING)
        return INTERRUPTED
    code = watch.report(
        board,
        good=good,
        seconds=time.monotonic() - began,
        command=watch.command_prefix(session),
    )
    if code == 0 and images:
        _remove_images(images, session)
    elif images:
        said.tell("its images stay: the removal did not come to its end", said.WARNING)
    return code


def _images(rmi: str | None, session: Invocation) -> list[dict[str, Any]]:
    """Return the images that are to go; asked for while the stack is there to say them."""
    if not rmi:
        return []
    try:
        found = session.client.get(session.path("images"), built=rmi == "local")
    except ApiNotFound:  # said when the stack itself is asked for
        return []
    return list(found["images"])


def _remove_images(images: list[dict[str, Any]], session: Invocation) -> None:
    """Have every node remove them; say of each what became of it. What stays is no failure."""
    rows = session.client.persist("POST", "/v1/images/forget", body={"images": images})["rows"]
    gone: dict[str, list[str]] = {}
    for row in rows:
        if row["image"] and not row["reason"]:
            gone.setdefault(str(row["image"]), []).append(str(row["node"]))
    for image, nodes in sorted(gone.items()):
        said.tell(f"image {image} removed on {', '.join(nodes)}")
    for row in rows:
        if row["reason"]:
            what = f"image {row['image']} stays on" if row["image"] else "images stay on"
            said.tell(f"{what} {row['node']}: {row['reason']}", said.WARNING)
    known = {str(row["image"]) for row in rows}
    for name in (str(image["name"]) for image in images):
        if name not in known:
            said.tell(f"image {name}: no node that answers has it", said.WARNING)


def _services(args: argparse.Namespace, session: Invocation) -> int:
    """Stop single services and remove what is left of them, until the next `up` makes them anew."""
    if args.volumes:
        raise CliError(
            "-v removes the volumes of a whole stack", hint="corral down -v, without services"
        )
    if args.rmi:
        raise CliError(
            "--rmi removes the images of a whole stack",
            hint=f"corral down --rmi {args.rmi}, without services",
        )
    from orchestrator.cli.commands import rm, stop

    code = stop.run(argparse.Namespace(services=args.services, timeout=args.timeout), session)
    if code:
        return code
    return rm.run(argparse.Namespace(services=args.services, stop=False, force=True), session)


def _wake_controller(session: Invocation) -> None:
    """Start this machine's own controller if it was stopped: its containers may still run."""
    try:
        session.client.get("/v1/version")
    except NoController:
        known = os.path.exists(f"{state_dir()}/controller/state.db")
        if not (session.client.local and known):
            raise
        from orchestrator.embedded import daemons

        daemons.ensure(session.client, say=said.tell)
