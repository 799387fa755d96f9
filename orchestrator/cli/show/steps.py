"""What the controller does step by step (`node add`, `node rm`, `upgrade`), as it says it."""

from __future__ import annotations

from orchestrator.cli import said
from orchestrator.cli.errors import ERROR, INTERRUPTED, CliError
from orchestrator.cli.show import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.client.http import Stream

WHERE = "see where it stands: corral node ls"


def follow(stream: Stream, what: str, interrupted: str = WHERE) -> tuple[int, dict[str, Any]]:
    """Print each step once; return the exit code and the line that says how it ended."""
    try:
        for line in stream:
            message = table.printable(str(line.get("message") or line.get("state") or ""))
            if line.get("kind") != "end":
                if line.get("kind") == "warning":
                    said.tell(f"  warning: {message}", said.WARNING)
                else:
                    said.tell(f"  {message}")
                continue
            if line.get("ok"):
                said.tell(message or f"{what}: done")
                return 0, line
            if not line.get("host_key"):  # else it is asked about
                failed(what, {**line, "message": message})
            return ERROR, line
    except KeyboardInterrupt:
        said.tell(f"\n{what}: interrupted; {interrupted}", said.WARNING)
        return INTERRUPTED, {}
    raise CliError(f"{what}: the controller stopped answering on the way", "corral node ls")


def failed(what: str, end: dict[str, Any]) -> None:
    """Say why it did not work, what it said last, and what to do."""
    lines = [f"{what} failed: {table.printable(str(end['message']))}"]
    lines += [f"    | {table.printable(str(text))}" for text in end.get("log_tail") or ()]
    said.complain("\n".join(lines), table.printable(str(end.get("hint") or "")))
