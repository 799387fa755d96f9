"""`corral volume move`: asks the controller, and shows how far it is until it is done.

The controller does it: whoever leaves (Ctrl-C, ``--detach``) leaves it to go on.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR
from orchestrator.client.http import quote
from specs.kit.amounts import size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from orchestrator.cli.session import Invocation

LOOK = 0.5  # seconds between two looks
AWAY = 60.0  # seconds the controller may be away
INTERRUPTED = 130


def run(args: argparse.Namespace, session: Invocation) -> int:
    """Have volumes moved as one, or their move taken back or confirmed."""
    acts = [act for act in ("cancel", "confirm", "back") if getattr(args, act)]
    act, (name, *others) = acts[0] if acts else "move", args.names
    body = {"act": act, "to": args.to or "", "along": others}
    row = session.client.request("POST", f"{_path(name)}/move", body=body)
    if args.detach:
        return 0
    # What moves as one is answered for as one, however many of them were named.
    names = dict.fromkeys((name, *others, *row.get("along", ())))
    try:
        rows = [_ended(session, one) for one in names]
    except KeyboardInterrupt:
        said.tell(f"the move goes on: corral volume move --cancel {name} takes it back")
        return INTERRUPTED
    return max(_told(act, row) for row in rows)


def _path(name: str) -> str:
    return f"/v1/volumes/{quote(name)}"


def _told(act: str, row: dict[str, Any]) -> int:
    name, node, kept = row["name"], row["node"], row.get("kept")
    if act == "confirm":
        said.tell(f"volume {name} stays on {node}; what was kept of it goes once its node answers")
        return 0
    if act == "cancel":
        done = bool(row.get("moved"))
        said.tell(f"volume {name} is on {node}" + ("" if done else ": the move was done already"))
        return 0 if done else ERROR
    if why := row.get("moved"):
        said.tell(f"volume {name} is on {node} still: {why}", said.WARNING)
        return ERROR
    said.tell(f"volume {name} is on {node}")
    if kept:
        said.tell(
            f"  {kept} keeps what it was before: corral volume move --confirm {name} removes that, "
            f"corral volume move --back {name} goes back to it"
        )
    return 0


def _ended(session: Invocation, name: str) -> dict[str, Any]:
    """Return the row once nothing of a move is under way."""
    shown = ""
    while True:
        row: dict[str, Any] = session.client.get(_path(name), patience=AWAY)
        if not (move := row.get("move")):
            return row
        words = move_words(move)
        if words != shown and sys.stderr.isatty():
            said.tell(f"volume {name} {words}")
            shown = words
        time.sleep(LOOK)


def move_words(move: Mapping[str, Any]) -> str:
    """Return how far a move is."""
    to = f"goes back to {move['to']}" if move.get("back") else f"is being moved to {move['to']}"
    if move["phase"] == "undoing":
        return f"{to}: that is taken back"
    # More than there was: what is written meanwhile is sent, too.
    whole = max(move["sent"], move.get("size") or 0)
    sent = f"{size(move['sent'])} of {size(whole)} sent" if move.get("size") else ""
    waits = move.get("waits", "")
    return ": ".join(filter(None, (to, ", ".join(filter(None, (sent, waits))))))
