"""Where the controller keeps its things: the environment read once, at start.

CORRAL_STATE_DIR (default /var/lib/corral) survives a reboot, CORRAL_RUN_DIR
(default /run/corral) does not. CORRAL_HOST is the CLI's way to the controller; the
controller itself only needs it to say where it listens. CORRAL_AGENT_PATIENCE (default 60)
is how many seconds an agent may not answer on a host that does before its tasks are replaced.
CORRAL_HEARTBEAT (default 3, at least 0.5) is how often agents report: a host that was silent for
three of them is down after 1.7 more, so that 1 is three times as quick, and as easily mistaken
about a line that stutters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specs.wire import HEARTBEAT, SHORTEST_HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import Mapping


RESTORED = "restored"  # in the controller's folder: its state is a backup's, put back just now


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    state_dir: Path
    run_dir: Path
    patience: float = 60.0  # seconds an agent may be away from a host that answers
    heartbeat: float = HEARTBEAT  # seconds between two reports of an agent

    @property
    def folder(self) -> Path:
        """Return the controller's own part of the state folder."""
        return self.state_dir / "controller"

    @property
    def database(self) -> Path:
        return self.folder / "state.db"

    @property
    def restored(self) -> Path:
        """Return the file that is there from a restore until its first epoch is taken."""
        return self.folder / RESTORED

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def socket(self) -> Path:
        return self.run_dir / "controller.sock"

    @property
    def lock(self) -> Path:
        """Return the lock of the running controller; it holds its process id."""
        return self.run_dir / "controller.lock"

    @property
    def agent_socket(self) -> Path:
        return self.run_dir / "agent.sock"


def from_environment(environment: Mapping[str, str]) -> ControllerConfig:
    """Return the configuration; empty variables count as unset."""
    return ControllerConfig(
        state_dir=Path(environment.get("CORRAL_STATE_DIR") or "/var/lib/corral"),
        run_dir=Path(environment.get("CORRAL_RUN_DIR") or "/run/corral"),
        patience=_seconds(environment, "CORRAL_AGENT_PATIENCE", 60.0),
        heartbeat=_seconds(
            environment, "CORRAL_HEARTBEAT", HEARTBEAT, SHORTEST_HEARTBEAT, HEARTBEAT
        ),
    )


def _seconds(
    environment: Mapping[str, str],
    name: str,
    usual: float,
    least: float = 0.0,
    most: float = math.inf,
) -> float:
    text = environment.get(name) or str(usual)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= most or math.isinf(seconds):
        between = f" from {least:g} to {most:g}" if not math.isinf(most) else ""
        raise ValueError(f"{name} is a number of seconds{between}, not {text!r}")
    return seconds
