"""After a boot, give peers no echo while they may take tasks of this node for ready that are not.

A machine that lost its power says nothing of its tasks. Where the controller is away, or has not
heard from the node yet, peers go by what it said last, and would send to containers that are not
there yet as soon as the kernel answers them (probing.py). This node knows what they were told, it
was told the same, and that it was before the boot. So it is silent until the two agree: its tasks
are ready, or the controller has said that they are not; after ``HOLD`` seconds at the latest, for
one that never gets well must not keep the others' traffic away.

A node that was only cut off did not boot, and answers at once. Peers of any release understand it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent.network.endpoints import usable

if TYPE_CHECKING:
    from pathlib import Path

    from agent.network.wanted import Wanted

HOLD = 90.0  # seconds; a task that depends on others is started after 60 s (agent/tasks/reboot.py)


def overrated(wanted: Wanted) -> bool:
    """Say whether by the controller's last word a task of this node is ready that is not."""
    return any(
        one.ready and one.node == wanted.me.node and not usable(wanted, one)
        for service in wanted.services.values()
        for one in service.endpoints
    )


class Return:
    """Whether the node has come back since its boot; ``path``: says so, on a tmpfs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._since: float | None = None
        self._over = False

    def silent(self, wanted: Wanted, now: float) -> bool:
        """Say whether peers get no echo yet; ``now``: monotonic seconds."""
        if self._over or not wanted.in_overlay:
            return False
        if self._since is None:
            self._since = now
        waits = now - self._since < HOLD and overrated(wanted)
        if waits and not self._path.exists():
            return True
        self._over = True
        with suppress(OSError):  # the next agent may be silent for a while again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        return False
