"""Rows of what goes on inside running tasks, asked for and complained about in one way."""

from __future__ import annotations

from orchestrator.cli import said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation


def rows(
    session: Invocation, what: str, services: Sequence[str], *, quiet: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of ``usage`` or ``processes`` and an exit code: 1 when one has no answer."""
    found = session.client.get(session.path(what), patience=30.0, service=list(services))["tasks"]
    silent = [row for row in found if row.get("reason")]
    if not quiet:
        for row in silent:
            said.tell(f"corral: {row['name']} on {row['node']}: {row['reason']}", said.WARNING)
    return found, 1 if silent else 0
