"""Wait until a drained node is empty: what leaves, what cannot and why.

Level triggered: the task lists say everything, so that a drain may be watched again.
"""

from __future__ import annotations

import time

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR, INTERRUPTED
from orchestrator.cli.show.table import printable
from orchestrator.client.errors import ApiNotFound, NoAnswer
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

LOOK = 0.5  # seconds between two looks
PATIENCE = 10.0  # seconds without any move before what is left is taken to stay


class Draining:
    """What was seen of one node's tasks. Pure."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.held: dict[str, str] = {}  # name -> why it cannot leave
        self.waiting = 0  # of those that are here, how many may leave yet
        self._told: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def look(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return what is new in these rows of live tasks of the whole cluster, as lines."""
        rows = list(rows)
        here = {str(row["id"]): row for row in rows if row.get("node") == self.node}
        lines = []
        for task, name in self._known.items():
            if task not in here:
                lines.append(f"{name}: left{_whither(rows, name, self.node)}")
        self._known = {task: str(row["name"]) for task, row in here.items()}
        self.held, self.waiting = {}, 0
        for row in here.values():
            name = printable(str(row["name"]))
            why = _holds(row, rows)
            if why:
                self.held[name] = why
            # A successor that finds no place may find one yet: another task leaves room.
            self.waiting += not row.get("tied") and row.get("node_status") != "down"
            text = f"{name}: {'stays: ' + why if why else 'is leaving'}"
            if self._told.get(name) != text:
                self._told[name] = text
                lines.append(text)
        return lines

    @property
    def empty(self) -> bool:
        """Whether nothing runs there any more."""
        return not self._known

    @property
    def stuck(self) -> bool:
        """Whether something is in the way of everything that is here."""
        return len(self.held) == len(self._known)


def _holds(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return why a task cannot leave, "" when nothing is in its way."""
    if row.get("stopping"):
        return ""
    if row.get("node_status") == "down":
        return "its node does not answer"
    if row.get("tied"):
        return f"{printable(str(row['tied']))} is there"
    return next(
        (
            printable(str(other.get("reason") or ""))
            for other in rows
            if other.get("name") == row["name"] and not other.get("node") and other.get("reason")
        ),
        "",
    )


def _whither(rows: Iterable[Mapping[str, Any]], name: str, node: str) -> str:
    for row in rows:
        if row.get("name") == name and row.get("node") not in (None, "", node):
            return f", runs on {printable(str(row['node']))}"
    return ""


def wait(session: Invocation, node: str, limit: float | None = None) -> int:
    """Tell what leaves the node until nothing does; return the exit code: 1 = it is not empty."""
    drain, began = Draining(node), time.monotonic()
    moved = began
    try:
        while True:
            for line in drain.look(_rows(session)):
                said.tell(f"  {line}")
                moved = time.monotonic()
            now = time.monotonic()
            if drain.empty:
                said.done(f"{node}: drained, nothing runs there")
                return 0
            stuck = drain.stuck and now - moved > PATIENCE
            if not drain.waiting or stuck or (limit is not None and now - began > limit):
                break
            time.sleep(LOOK)
    except KeyboardInterrupt:
        said.tell(
            f"\nthe drain of {node} goes on; see it: corral node ls. "
            f"Undo it: corral node activate {node}",
            said.WARNING,
        )
        return INTERRUPTED
    for name, why in sorted(drain.held.items()):
        said.tell(f"corral: {name} stays on {node}: {why}", said.WARNING)
    said.tell(
        f"corral: {node} takes nothing new, but is not empty\n"
        f"  next: make room for what is left, stop it, or corral node activate {node}",
        said.ERROR,
    )
    return ERROR


def _rows(session: Invocation) -> list[dict[str, Any]]:
    """Return every live task of the cluster; a controller that is away is waited for."""
    found: list[dict[str, Any]] = []
    away = 0
    while True:
        try:
            for stack in session.client.get("/v1/stacks")["stacks"]:
                try:
                    path = f"/v1/stacks/{quote(stack['name'])}/tasks"
                    found += session.client.get(path)["tasks"]
                except ApiNotFound:
                    continue  # removed meanwhile
        except NoAnswer:
            away += 1
            if away > 60:
                raise
            found.clear()
            time.sleep(1.0)
            continue
        return found
