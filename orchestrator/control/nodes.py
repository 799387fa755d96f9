"""Which nodes are ready, unknown or down: heartbeats in, conditions out.

A node that is heard is ready; one whose session ended is unknown; one not heard for
DOWN_AFTER is down, and what may run elsewhere is replaced. A node that was down is
taken back only after it stayed heard for a while, longer each time it flaps. All
times are the controller's own monotonic clock, never the nodes'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.node import NodeCondition
from specs.wire import HEARTBEAT

if TYPE_CHECKING:
    from orchestrator.control.state import Cluster
    from specs.kit.clock import Clock

UNKNOWN_AFTER = 2.5 * HEARTBEAT
DOWN_AFTER = 4.0 * HEARTBEAT
START_GRACE = 2.0 * HEARTBEAT  # more patience with nodes a starting controller has not met yet
STEADY = HEARTBEAT  # a node that was down must be heard this long before it counts again
FLAP_MEMORY = 600.0
LONGEST_STEADY = 60.0
BRAKE = 0.55  # share of nodes down at once beyond which nothing lost is replaced


@dataclass(slots=True)
class _Pulse:
    """What is known of one node's session."""

    heard: float
    connected: bool = False
    reported: bool = False  # a full report came in this session
    since: float = 0.0  # connected since
    reason: str = ""
    falls: int = 0
    fell_at: float = 0.0
    was_down: bool = False


class NodeHealth:
    """Keeps ``cluster.conditions`` current."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._pulses: dict[str, _Pulse] = {}

    def _pulse(self, node: str) -> _Pulse:
        found = self._pulses.get(node)
        if found is None:
            now = self._clock.monotonic()
            found = self._pulses[node] = _Pulse(heard=now + START_GRACE)
        return found

    def connected(self, node: str) -> None:
        """Note that a session began."""
        now = self._clock.monotonic()
        pulse = self._pulse(node)
        pulse.connected, pulse.reported, pulse.reason = True, False, ""
        pulse.heard = pulse.since = now

    def heard(self, node: str, *, full: bool) -> None:
        """Note a report: the node lives."""
        pulse = self._pulse(node)
        pulse.heard = self._clock.monotonic()
        pulse.connected = True
        pulse.reported = pulse.reported or full

    def disconnected(self, node: str, reason: str) -> None:
        """Note that the session ended."""
        pulse = self._pulse(node)
        pulse.connected, pulse.reported, pulse.reason = False, False, reason

    def update(self) -> tuple[list[tuple[str, str, str]], float | None]:
        """Recompute conditions; return (node, old, new) changes and when to look again."""
        now = self._clock.monotonic()
        moved = []
        wake: float | None = None
        for gone in set(self._pulses) - set(self._cluster.nodes):
            del self._pulses[gone]
        for node in self._cluster.nodes:
            old = self._cluster.conditions.get(node)
            status, reason, until = self._judge(self._pulse(node), now)
            if until is not None:
                wake = until if wake is None else min(wake, until)
            if old is None or old.status != status or old.reason != reason:
                since = self._clock.wall() if old is None or old.status != status else old.since
                self._cluster.conditions[node] = NodeCondition.model_validate(
                    {"status": status, "reason": reason, "since": since}
                )
            before = old.status if old is not None else "unknown"
            if before != status:
                moved.append((node, before, status))
        return moved, wake

    def _judge(self, pulse: _Pulse, now: float) -> tuple[str, str, float | None]:
        """Return status, reason and when it may change by itself."""
        silent = now - pulse.heard
        if pulse.was_down:
            return self._return(pulse, now, silent)
        if silent >= DOWN_AFTER:
            pulse.was_down = True
            pulse.falls = pulse.falls + 1 if now - pulse.fell_at < FLAP_MEMORY else 1
            pulse.fell_at = now
            return "down", self._silence(pulse, silent), None
        if not pulse.connected or not pulse.reported:
            reason = pulse.reason or (
                "connected, its first report is awaited"
                if pulse.connected
                else "not heard from yet"
            )
            return "unknown", reason, pulse.heard + DOWN_AFTER
        if silent >= UNKNOWN_AFTER:
            return "unknown", self._silence(pulse, silent), pulse.heard + DOWN_AFTER
        return "ready", "", pulse.heard + UNKNOWN_AFTER

    def _return(self, pulse: _Pulse, now: float, silent: float) -> tuple[str, str, float | None]:
        if not pulse.connected or not pulse.reported or silent >= UNKNOWN_AFTER:
            return "down", self._silence(pulse, max(silent, DOWN_AFTER)), None
        steady = min(LONGEST_STEADY, STEADY * 2.0 ** (pulse.falls - 1))
        until = pulse.since + steady
        if now < until:
            return "down", f"it is back; counted again after {steady:g} s without a break", until
        pulse.was_down = False
        return "ready", "", pulse.heard + UNKNOWN_AFTER

    def _silence(self, pulse: _Pulse, silent: float) -> str:
        # Rounded to what it was judged by: a reason that counts seconds would change all the time.
        limit = DOWN_AFTER if silent >= DOWN_AFTER else UNKNOWN_AFTER
        text = f"not heard for more than {limit:g} s"
        return f"{text}: {pulse.reason}" if pulse.reason else text

    def brake(self) -> bool:
        """Say whether so many nodes are down that the fault is likelier ours than theirs."""
        total = len(self._cluster.nodes)
        down = sum(1 for c in self._cluster.conditions.values() if c.status == "down")
        return total > 0 and down / total > BRAKE
