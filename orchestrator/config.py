"""Where the controller keeps its things: the environment read once, at start.

CORRAL_STATE_DIR (default /var/lib/corral) survives a reboot, CORRAL_RUN_DIR
(default /run/corral) does not. CORRAL_HOST is the CLI's way to the controller; the
controller itself only needs it to say where it listens. CORRAL_AGENT_PATIENCE (default 60)
is how many seconds an agent may not answer on a host that does before its tasks are replaced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    state_dir: Path
    run_dir: Path
    patience: float = 60.0  # seconds an agent may be away from a host that answers

    @property
    def folder(self) -> Path:
        """Return the controller's own part of the state folder."""
        return self.state_dir / "controller"

    @property
    def database(self) -> Path:
        return self.folder / "state.db"

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
        patience=_seconds(environment.get("CORRAL_AGENT_PATIENCE") or "60"),
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"CORRAL_AGENT_PATIENCE is a number of seconds, not {text!r}")
    return seconds
