"""What a list says beside its rows: that a decision is due, and which replicas are missing."""

from __future__ import annotations

from orchestrator.cli.show import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.client.client import Client


def listed(client: Client, kind: str, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return the rows of a list; where its state is in doubt, say so."""
    answer = client.get(path, **query)
    tell(answer)
    rows: list[dict[str, Any]] = answer[kind]
    return rows


def tell(answer: Mapping[str, Any]) -> None:
    """Say that a decision is due before what is listed is known, and how it is taken."""
    why, missing = str(answer.get("undecided") or ""), answer.get("missing") or ()
    warnings = [why] if why else []
    warnings += map(str, answer.get("warnings") or ())
    if not warnings and not missing:
        return
    from orchestrator.cli import said  # most lists have nothing to say beside them

    for line in warnings:
        said.tell(f"corral: warning: {table.printable(line)}", said.WARNING)
    for line in missing:
        said.tell(f"corral: {table.printable(str(line))}", said.WARNING)
