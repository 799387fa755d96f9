"""An answer of `corral why` as text. Pure; the controller chose the words."""

from __future__ import annotations

from orchestrator.cli.show import times
from orchestrator.cli.show.table import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


def text(found: Mapping[str, Any]) -> str:
    """Return the lines: the answer, what is behind it, who refuses, what helps, what led here."""
    return "\n".join(printable(line) for line in _lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield str(found.get("answer", ""))
    for line in found.get("because") or ():
        yield f"  - {line}"
    nodes = found.get("nodes") or ()
    width = max((len(str(node.get("node", ""))) for node in nodes), default=0)
    for node in nodes:
        rules = "; ".join(node.get("rules") or ()) or "would take it"
        yield f"  {'>' if node.get('binding') else ' '} {node.get('node', '')!s:<{width}}  {rules}"
    for number, line in enumerate(found.get("helps") or ()):
        yield f"  {'fix:' if not number else ' or:'} {line}"
    history = found.get("history") or ()
    if history:
        yield "  history:"
    for event in history:
        at = times.of_day(event.get("last") or event.get("time"))
        many = f" ({event['count']} times)" if int(event.get("count") or 1) > 1 else ""
        by = f", by {event['by']}" if event.get("by") else ""
        yield f"    {at} {event.get('message', '')}{many if event.get('last') else ''}{by}"
