"""The two units that run controller and agent on a machine with systemd.

Called by orchestrator.embedded.daemons only. KillMode=process: stopping a unit ends the
daemon and never the containers beside it; Delegate=yes: systemd leaves the agent's
cgroups alone. A daemon that ends, or whose event loop stops turning (specs/kit/alive.py), is
restarted, however often: SIGKILL, because what is stopped takes no other.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orchestrator.client.errors import ClientError

UNIT_DIR = Path("/etc/systemd/system")
RUNS = Path("/run/systemd/system")  # sd_booted(3)
COMMANDS = {
    "controller": ("-P", "-m", "orchestrator", "--embedded"),
    "agent": ("-P", "-m", "agent"),
}


class UnitFailed(ClientError):
    """systemctl refused."""


def running() -> bool:
    """Say whether systemd runs this machine."""
    return RUNS.is_dir()


def unit(name: str) -> str:
    """Return the unit's name."""
    return f"corral-{name}.service"


def installed() -> bool:
    """Say whether our units are there."""
    return any((UNIT_DIR / unit(name)).exists() for name in COMMANDS)


def _quoted(text: str) -> str:
    # systemd.service(5): quotes and backslashes are C-like, % starts a specifier.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def unit_text(
    name: str,
    environment: dict[str, str],
    python: str = sys.executable,
    *,
    argv: tuple[str, ...] = (),
) -> str:
    """Return the unit file. ``argv``: what is run instead of the daemon itself; it becomes it."""
    words = argv or (python, *COMMANDS[name])
    command = " ".join(_quoted(word) for word in words).replace("$", "$$")
    variables = "\n".join(
        f"Environment={_quoted(f'{key}={value}')}" for key, value in sorted(environment.items())
    )
    return f"""\
# Written by corral; `corral controller stop` removes it.
[Unit]
Description=corral {name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart={command}
{variables}
Restart=always
RestartSec=1
WatchdogSec=30
WatchdogSignal=SIGKILL
NotifyAccess=main
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def install(environment: dict[str, str]) -> None:
    """Write, enable and start the units. Raises UnitFailed."""
    for name in COMMANDS:
        (UNIT_DIR / unit(name)).write_text(unit_text(name, environment), encoding="utf-8")
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", *(unit(name) for name in COMMANDS))


def remove() -> None:
    """Stop, disable and delete the units; containers go on. Raises UnitFailed."""
    _systemctl("disable", "--now", *(unit(name) for name in COMMANDS))
    for name in COMMANDS:
        (UNIT_DIR / unit(name)).unlink(missing_ok=True)
    _systemctl("daemon-reload")


def restart(name: str) -> None:
    """Start a unit anew, by its file as it is now. Raises UnitFailed."""
    _systemctl("daemon-reload")
    _systemctl("restart", unit(name))


def restarts(name: str) -> int:
    """Return how often systemd started the unit again by itself."""
    words = ["systemctl", "show", "-p", "NRestarts", "--value", unit(name)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(done.stdout) if done.stdout.strip().isdecimal() else 0


def journal(name: str, lines: int) -> list[str]:
    """Return the last lines a unit logged."""
    try:
        done = subprocess.run(
            ["journalctl", "-u", unit(name), "-n", str(lines), "--no-pager", "-o", "cat"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()


def _systemctl(*words: str) -> None:
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, check=False, timeout=90
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UnitFailed(f"systemctl {' '.join(words)}: {exc}") from exc
    if done.returncode != 0:
        raise UnitFailed(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}")
