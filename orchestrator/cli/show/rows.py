"""Rows of ``ps`` as the progress lines a board understands: for what has no progress stream."""

from __future__ import annotations

import re

from orchestrator.cli.show import board as boards
from specs.states import TaskState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

COMING = frozenset({TaskState.ASSIGNED, TaskState.PREPARING, TaskState.STARTING})
# What `ps` says of the time since a task ended, and whatever stands behind it.
_AGO = re.compile(r", \d+ \S+ ago.*")


def _phrase(row: Mapping[str, Any]) -> str:
    """Return the phrase of `ps` where it is news: it counts seconds, a reason to wait does not."""
    status = str(row.get("status") or "")
    if row.get("state") in boards.ENDED:
        return _AGO.sub("", status)
    if row.get("state") in boards.WAITING or row.get("stopping"):
        return status
    # The words of `ps` count bytes as well; the reason is the same at every try.
    coming, reason = row.get("state") in COMING, row.get("reason")
    return f"{row.get('state')}: {reason}" if coming and reason else ""


def lines_of(
    services: Mapping[str, Mapping[str, Any]], tasks: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return rows as the progress lines a board understands."""
    lines: list[dict[str, Any]] = [
        {
            "kind": "task",
            "service": row.get("service"),
            "task": row.get("id"),
            "name": row.get("name"),
            "node": row.get("node"),
            "state": row.get("state"),
            "ready": row.get("ready"),
            "message": _phrase(row),
            "reason": row.get("reason"),
            "health": row.get("health"),
            "stopping": row.get("stopping"),
        }
        for row in tasks
    ]
    lines += [
        {
            "kind": "service",
            "service": name,
            "running": row.get("ready"),
            "wanted": row.get("replicas"),
        }
        for name, row in services.items()
    ]
    return lines
