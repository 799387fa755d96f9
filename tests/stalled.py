"""What the daemons' watch over their event loops said during a test.

Their own limit is 50 ms; a machine that runs tests is no measure for that (a first use of this or
that costs more). What fails a test is a loop's own doing whatever else the machine does: the
processor time of its thread, or a call that blocked it for long (an fsync on a busy disk takes
seconds).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit import stalls

if TYPE_CHECKING:
    from orchestrator.lab.host import LabHost

CPU = 0.3
BLOCKED = 15.0
LOGS = "var/lib/corral/log"


def on(host: LabHost) -> list[str]:
    """Return the stalls of this host's daemons that are too long."""
    found = []
    for path in Path(f"/proc/{host.pid}/root/{LOGS}").glob("*.log"):
        found += [f"{host.name} {path.name} {line}" for line in stalled(path.read_text())]
    return found


def stalled(text: str) -> list[str]:
    """Return those of a daemon's lines that tell of too long a stall."""
    lines = [line for line in text.splitlines() if stalls.MESSAGE in line]
    return [line for line in lines if too_long(json.loads(line))]


def too_long(said: dict[str, float]) -> bool:
    return bool(said["cpu"] > CPU or said["blocked"] > BLOCKED)
