"""Makes a host's link and clock as the lab's faults say; nothing is decided here (effects).

Called by ``host.py`` when a host boots, because a link's settings end with it, and by ``lab.py``
at every change. All of it may be repeated.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from orchestrator.lab import faults
from orchestrator.lab.layout import LabError
from specs.kit.disk import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.lab.layout import Layout

PATIENCE = 90.0  # seconds a program may take


def recorded(layout: Layout) -> set[faults.Fault]:
    """Return the faults of a lab; none while it is being made."""
    try:
        return faults.recorded(json.loads(layout.record.read_text()))
    except FileNotFoundError:
        return set()


def shape(layout: Layout, host: str, pid: int, found: Iterable[faults.Fault]) -> None:
    """Have a running host's link be as slow, and its packets as large, as the faults say.

    Both ends: what the host sends waits at its own device, what it is sent at the bridge's.
    Raises LabError.
    """
    found = set(found)
    slow = [fault for fault in found if isinstance(fault, faults.Slow) and fault.host == host]
    ends = ((layout.switch, host), (f"/proc/{pid}/ns/net", "eth0"))
    for space, device in ends:
        inside = ["nsenter", f"--net={space}"]
        for fault in slow:
            _do([*inside, "tc", *faults.shaped(fault, device).split()])
        if not slow:  # there may be nothing to delete
            _try([*inside, "tc", "qdisc", "delete", "dev", device, "root"])
    large = "off" if faults.splits(found) else "on"
    own = ["nsenter", f"--net=/proc/{pid}/ns/net", "ethtool", "-K", "eth0"]
    if large == "off":
        _do([*own, "tso", large])
    else:
        _try([*own, "tso", large])  # a machine without ethtool has no such fault either


def set_clock(folder: Path, host: str, found: Iterable[faults.Fault]) -> bool:
    """Write how far off a host's clock is; return whether it is. In force at once where it was."""
    seconds = [f.seconds for f in found if isinstance(f, faults.WrongClock) and f.host == host]
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    program, shown = faults.CLOCK_PROGRAM.encode(), str(sum(seconds)).encode()
    for name, data in (("sitecustomize.py", program), ("seconds", shown)):
        write_file(folder / name, data, durable=False, mode=0o644)
    return bool(seconds)


def _do(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")


def _try(argv: list[str]) -> None:
    subprocess.run(argv, capture_output=True, check=False, timeout=PATIENCE)
