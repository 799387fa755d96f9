"""Where this machine's controller listens and keeps its state, for programs beside it."""

from __future__ import annotations

import os

BOOT = 60.0  # seconds after a boot in which what is started then may be on its way


def run_dir() -> str:
    """Return the directory of the sockets."""
    return os.environ.get("CORRAL_RUN_DIR") or "/run/corral"


def state_dir() -> str:
    """Return the directory of durable state."""
    return os.environ.get("CORRAL_STATE_DIR") or "/var/lib/corral"


def default_host() -> str:
    """Return where this machine's own controller listens."""
    return f"unix://{run_dir()}/controller.sock"


def agent_host() -> str:
    """Return where this machine's agent listens."""
    return f"unix://{run_dir()}/agent.sock"


def had_controller() -> bool:
    """Say whether a controller keeps its state here; who may not look takes it that one does."""
    try:
        os.stat(f"{state_dir()}/controller/state.db")
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def kept_alive() -> bool:
    """Say whether something on this machine starts the controller again when it ends."""
    try:
        with open(f"{run_dir()}/supervisor.pid", encoding="ascii") as file:
            keeper = f"/proc/{int(file.read().split()[0])}"
    except (OSError, ValueError, IndexError):
        keeper = "/etc/systemd/system/corral-controller.service"
    return os.path.exists(keeper)


def starting() -> bool:
    """Say whether this machine was started just now and had a controller before: it will again."""
    try:
        with open("/proc/uptime", encoding="ascii") as file:
            up = float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return False
    return up < BOOT and os.path.exists(f"{state_dir()}/controller/state.db")
