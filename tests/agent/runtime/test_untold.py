"""Why an exit code is not known: the monitor was lost, or what it wrote found no room."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.runtime import exits
from specs.kit.room import Room

MIB = 1 << 20
LOST = "its monitor (conmon) was lost, so the exit code is unknown"
RUN = "/run/corral/agent/tasks/t1"


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (Room(0, 20 * MIB), f"could not be kept (no room is left: {RUN} has 0 of 20 MiB free"),
        (Room(9 * MIB, 20 * MIB, 0, 2000), f"{RUN} has 0 of 2000 inodes free"),
        (Room(9 * MIB, 20 * MIB, 900, 2000), LOST),
        (Room(9 * MIB, 20 * MIB), LOST),
        (Room(0, 0), LOST),
        (None, LOST),
    ],
)
def test_why_an_exit_code_is_unknown(monkeypatch, room, words):
    monkeypatch.setattr(exits, "measure", lambda _: room)
    assert words in exits._untold(Path(RUN))
    assert "unknown" in exits._untold(Path(RUN))
