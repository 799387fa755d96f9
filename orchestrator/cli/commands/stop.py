"""`corral stop`: end every container of a stack, or those of some services; all is kept."""

from __future__ import annotations

import time

from orchestrator.cli import called, said
from orchestrator.cli.errors import INTERRUPTED
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import containers, watch
from orchestrator.cli.show.rows import lines_of
from orchestrator.client.errors import ApiNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

LOOK = 0.15  # seconds


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these; the others run on")
    add("-t", "--timeout", type=float, metavar="S", help="grace period before the kill")


def run(args: argparse.Namespace, session: Invocation) -> int:
    command = watch.command_prefix(session)
    began = time.monotonic()
    board = boards.Board(session.stack(), "stop")
    services, named = split(session, args.services, args.verb if "verb" in args else "stop")
    if named:
        _stop_oneoffs(session, named, args.timeout)
        if not services:
            return 0
    body: dict[str, Any] = {"timeout": args.timeout}
    if services:
        body["services"] = services
    try:
        session.client.persist("POST", session.path("stop"), body=body)
    except ApiNotFound:
        if is_there(session):
            raise  # a service the stack does not have
        # As Compose: what does not run is stopped.
        said.tell(f"there is no stack {board.stack}: nothing to stop (corral ls)", said.WARNING)
        return 0
    try:
        if services:
            _until_stopped(session, board, services)
            good = True
        else:
            good = watch.follow(session, board, session.path("progress"))
    except KeyboardInterrupt:
        said.tell(f"\nstopping goes on in the background: {command} ps", said.WARNING)
        return INTERRUPTED
    return watch.report(board, good=good, seconds=time.monotonic() - began, command=command)


def split(session: Invocation, words: list[str], verb: str) -> tuple[list[str], list[str]]:
    """Return the services the words mean, and the names of one-offs (`run`). Raises CliError.

    The only container of a service stands for it.
    """
    if not words:
        return [], []
    try:
        rows = watch.rows(session, every=True, oneoffs=True, first=True)
    except ApiNotFound:
        return words, []
    return called.whole(words, rows, verb, containers.FINAL)


def _stop_oneoffs(session: Invocation, names: list[str], timeout: float | None) -> None:
    body = {"action": "stop", "names": names, "timeout": timeout}
    session.client.persist("POST", session.path("oneoffs"), body=body)
    while True:
        rows = watch.rows(session, every=True, oneoffs=True)
        mine = [row for row in rows if row.get("name") in names and row.get("oneoff")]
        if all(row.get("state") in boards.ENDED for row in mine):
            return
        time.sleep(LOOK)


def is_there(session: Invocation) -> bool:
    """Say whether there is such a stack, whatever of it."""
    try:
        session.client.get(session.path())
    except ApiNotFound:
        return False
    return True


def _until_stopped(session: Invocation, board: boards.Board, services: list[str]) -> None:
    """Look until nothing of the services runs; what a node that is down has is named.

    Single services have no progress stream: the stack's own is about what runs.
    """
    view = watch.make_view(board)
    away: set[str] = set()
    try:
        while True:
            tasks = watch.rows(session, every=True)
            mine = [row for row in tasks if row.get("service") in services]
            for line in lines_of({}, mine):
                view.update(board.apply(line))
            left = [row for row in mine if row.get("state") not in boards.ENDED]
            down = {str(row.get("node")) for row in left if row.get("node_status") == "down"}
            for node in sorted(down - away):
                text = f"node {node} does not answer; what runs there is stopped when it is back"
                view.update(board.apply({"kind": "warning", "message": text}))
            away |= down
            if all(row.get("node_status") == "down" for row in left):
                return
            time.sleep(LOOK)
    finally:
        view.close()
