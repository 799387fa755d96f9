"""The agent's settings: where its files are.

Read once at start; no other module of the agent reads the environment for them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AgentConfig:
    """``state_dir`` survives reboots, ``run_dir`` is a tmpfs and does not."""

    state_dir: Path
    run_dir: Path
    socket: Path
    group: str = "corral"  # who may use the socket besides root
    cgroup: str = "corral"  # parent of every task's cgroup

    @property
    def journal(self) -> Path:
        return self.state_dir / "journal"

    @property
    def key(self) -> Path:
        """What the journal, the records and what is kept of them are sealed by."""
        return self.state_dir / "node.key"

    @property
    def tasks(self) -> Path:
        """Per task: what must survive a reboot (record, logs)."""
        return self.state_dir / "tasks"

    @property
    def bundles(self) -> Path:
        """Per task: what is meaningless after a reboot (bundle, pids, exit files)."""
        return self.run_dir / "tasks"


def from_environment() -> AgentConfig:
    """Return the settings of this process."""
    state = Path(os.environ.get("CORRAL_STATE_DIR") or "/var/lib/corral").absolute()
    run = Path(os.environ.get("CORRAL_RUN_DIR") or "/run/corral").absolute()
    return AgentConfig(
        state_dir=state / "agent",
        run_dir=run / "agent",
        socket=run / "agent.sock",
        cgroup=os.environ.get("CORRAL_CGROUP") or "corral",
    )
