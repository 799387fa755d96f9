"""A machine whose agent is gone while it and its containers live: what may follow, and what not.

Nothing of it is replaced before the product's own deadline, and it goes on being sent what it
serves. Judged only where nothing else is wrong with the machine: its power is on, and its line has
been whole for as long as the agent is away, so that whoever asks hears that only the agent is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.health import AGENT_PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specs.task import Task
    from tests.sim.host import SimHost
    from tests.sim.world import World

SHORTER = 0.9  # of the deadline: it counts from when the absence is heard of
SETTLED = 3.0  # seconds after which an absence shows in what others are told


def absent_for(world: World, host: SimHost) -> float:
    """Return for how long nothing but its agent is missing there; 0 = not, or not only that."""
    if not host.on or host.agent is not None or host.down_since is None:
        return 0.0
    link = world.wire.link("home", host)
    if not link.whole or link.loss or link.late or link.good_since > host.down_since:
        return 0.0
    return world.now - host.down_since


class Absent:
    """What is known of such machines, from look to look."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._served: dict[str, set[tuple[str, str]]] = {}  # machine -> (who sends, what)

    def replaced(self, others: Iterable[Task], nodes: dict[str, str]) -> str:
        """Say which of the tasks a new one replaces too early; ``nodes``: id -> name."""
        hosts = {host.name: host for host in self.world.hosts}
        for task in others:
            host = hosts.get(nodes.get(task.node or "", ""))
            if host is None or not task.live:
                continue
            away = absent_for(self.world, host)
            runs = any(found.task == task.id for found in host.running())
            if runs and 0 < away < AGENT_PATIENCE * SHORTER:
                return f"{task.id} on {host.name}, whose agent alone is away for {away:.1f} s"
        return ""

    def unserved(self, calm: set[str]) -> str:
        """Say who no longer sends what to such a machine, though it serves it still."""
        world = self.world
        for host in world.hosts:
            away = absent_for(world, host)
            if not away:
                self._served.pop(host.name, None)
                if host.on and host.agent is not None:
                    self._served[host.name] = set(self._senders(host))
                continue
            if not SETTLED < away < AGENT_PATIENCE * SHORTER or world.rewound:
                continue
            if host.name in world.laws.leaving or world.users.availability[host.name] != "active":
                continue
            serve = {f"calm/{c.assignment.service}" for c in host.running() if c.task in calm}
            now = set(self._senders(host))
            lost = {
                (who, what)
                for who, what in self._served.get(host.name, set()) - now
                if what in serve and self._hears(world.host(who), host)
            }
            if lost:
                who, what = min(lost)
                return f"{who} sends {what} to {host.name} no more, whose agent alone is away"
        return ""

    def _senders(self, host: SimHost) -> Iterable[tuple[str, str]]:
        for other in self.world.hosts:
            if other is not host and other.on and other.agent is not None:
                for what, names in other.traffic_to().items():
                    if host.name in names:
                        yield other.name, what

    def _hears(self, other: SimHost, host: SimHost) -> bool:
        """Say whether a machine was well for all the time: its own faults are not judged here."""
        assert host.down_since is not None
        return other.on and other.agent is not None and other.agent_since < host.down_since
