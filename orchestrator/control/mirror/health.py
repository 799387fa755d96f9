"""Which nodes are ready, unknown or down: heartbeats in, conditions out.

The dispatcher holds a session with every node and ends it when the node was silent
for 3 heartbeats (session.MISSED), so here a node with a session that has reported is
ready (unready while it says itself that its network does not work, or that its disk is full),
one without is unknown, and one without for DOWN_AFTER is down: what may run elsewhere is
replaced. Where
the host lets us in and only its agent does not answer, what runs there runs on, and the host
restarts the agent by itself (a unit's watchdog, or the supervisor): that gets
AGENT_PATIENCE. A node that was down is taken back only after it stayed for a while, longer
each time it flaps.

Where most nodes fell silent, or one is down and most are silent, the fault is likelier ours
than theirs (nodes that are cut off at once are found out, and found again, some seconds
apart): then the brake is on, and nothing is replaced until all are back, or most have been
for RELEASE. The nodes that fell silent in it are *doubted* for as long: what each of them is told
of the others is what those said last (serving.answers). All times are the controller's own
monotonic clock, never the nodes'.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.control.mirror import times
from specs.node import NodeCondition
from specs.states import HEARD, NodeStatus
from specs.wire import HEARTBEAT

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from specs.kit.clock import Clock

log = logging.getLogger(__name__)

# Seconds without a session, at the usual heartbeat. With the 9 s of silence before a session ends,
# a node that was switched off is down after 14 s at most; at a heartbeat of 1 s after 4.7.
DOWN_AFTER = 5.0
AGENT_PATIENCE = 60.0  # the same for a node whose host answers while its agent does not
START_GRACE = 10.0  # more patience with nodes a starting controller has not met yet
STEADY = HEARTBEAT  # a node that was down must stay this long before it counts again
FLAP_MEMORY = 600.0
LONGEST_STEADY = 60.0
BRAKE = 0.55  # share of nodes silent at once beyond which nothing lost is replaced
MEASURED = 3  # reports by which a node's clock is judged
RELEASE = 15.0  # seconds the others get to be reached again: a long pause and a slow connect


@dataclass(slots=True)
class _Pulse:
    """What is known of one node's session; ``lost`` = when the last one ended."""

    lost: float
    connected: bool = False
    met: bool = False  # it was connected once
    reported: bool = False  # a full report came in this session
    host: bool = False  # no session, but the machine let us in when we last tried
    since: float = 0.0  # connected since
    reason: str = ""
    trouble: str = ""  # why its network is not as it should be, or its disk full, by its own word
    full: str = ""  # the part of it that is about the disk
    falls: int = 0
    fell_at: float = 0.0
    was_down: bool = False
    returned_at: float = 0.0
    doubted: bool = False  # silent with most others, and the brake is still on
    ahead: list[float] = field(default_factory=list)  # its clock's difference to ours, newest last


class NodeHealth:
    """Keeps ``cluster.conditions`` current."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        patience: float = AGENT_PATIENCE,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._down_after = DOWN_AFTER * heartbeat / HEARTBEAT
        self._patience = max(patience, self._down_after)
        self._pulses: dict[str, _Pulse] = {}
        self._braking = False
        self._release_at: float | None = None  # when the brake is let go if nothing happens
        self._heard = True  # something was noted since the last look
        self._due: float | None = None  # when one is due if nothing is
        self._looked: set[str] = set()  # the nodes of the last look

    def _pulse(self, node: str) -> _Pulse:
        found = self._pulses.get(node)
        if found is None:
            now = self._clock.monotonic()
            found = self._pulses[node] = _Pulse(lost=now + START_GRACE)
        return found

    def connected(self, node: str) -> None:
        """Note that a session began."""
        pulse = self._pulse(node)
        pulse.connected, pulse.reported, pulse.reason, pulse.trouble = True, False, "", ""
        pulse.met, pulse.host = True, False
        pulse.since = self._clock.monotonic()
        self._heard = True

    def reported(self, node: str) -> None:
        """Note a full report: the node's state is known."""
        self._pulse(node).reported = True
        self._heard = True

    def reached(self, node: str) -> None:
        """Note that the machine let us in; whether its agent answers is not known yet."""
        pulse = self._pulse(node)
        pulse.host = not pulse.connected
        self._heard = True

    def troubled(self, node: str, network: str, room: str) -> None:
        """Note what the node says of its own network and its disk; "" = all is well."""
        found = f"its network is not in order: {network}" if network else ""
        pulse = self._pulse(node)
        said = "; ".join(why for why in (found, room) if why), room
        if said != (pulse.trouble, pulse.full):
            pulse.trouble, pulse.full = said
            self._heard = True

    def shows(self, node: str, moment: float) -> None:
        """Note what the node's clock shows now.

        A line that came late makes it look behind, never ahead: of the last few the best counts.
        """
        pulse = self._pulse(node)
        pulse.ahead = [*pulse.ahead[1 - MEASURED :], moment - self._clock.wall()]
        known, found = self._cluster.conditions.get(node), _ahead(pulse)
        if known is not None and known.ahead != found:
            if times.words(found) and not times.words(known.ahead):
                log.warning(times.words(found), extra={"node": node})
            self._cluster.conditions[node] = known.model_copy(update={"ahead": found})

    def disconnected(self, node: str, reason: str, *, host: bool = False) -> None:
        """Note that the session ended, or could not be made again; by the agent where ``host``."""
        pulse = self._pulse(node)
        if pulse.connected:
            pulse.lost = self._clock.monotonic()
        pulse.connected, pulse.reported, pulse.reason = False, False, reason
        pulse.host = host
        self._heard = True

    def update(self) -> tuple[list[tuple[str, str, str]], float | None]:
        """Recompute conditions; return (node, old, new) changes and when to look again."""
        now = self._clock.monotonic()
        still = not self._heard and (self._due is None or now < self._due)
        known = self._looked == self._cluster.nodes.keys() == self._cluster.conditions.keys()
        if still and known:
            return [], self._due  # as ever, but for reports of tasks: a thousand nodes take 20 ms
        self._heard = False
        moved: list[tuple[str, str, str]] = []
        wake: float | None = None
        for gone in set(self._pulses) - set(self._cluster.nodes):
            del self._pulses[gone]
        down = {node for node, pulse in self._pulses.items() if pulse.was_down}
        for node in self._cluster.nodes:
            old = self._cluster.conditions.get(node)
            status, reason, until = self._judge(self._pulse(node), now)
            if until is not None:
                wake = until if wake is None else min(wake, until)
            new = self._condition(self._pulse(node), old, status, reason, until, now)
            if new is not old:
                self._cluster.conditions[node] = new
            before = old.status if old is not None else NodeStatus.UNKNOWN
            if before != status or (old is not None and old.returning != new.returning):
                moved.append((node, before, status))
        self._look_at_brake(now)
        self._doubt(down)
        self._looked = set(self._cluster.nodes)
        self._due = min((t for t in (wake, self._release_at) if t is not None), default=None)
        return moved, self._due

    def _condition(
        self,
        pulse: _Pulse,
        old: NodeCondition | None,
        status: NodeStatus,
        reason: str,
        until: float | None,
        now: float,
    ) -> NodeCondition:
        """Return a node's condition, the one there is where it is the same (mostly)."""
        awaited = pulse.host and status is NodeStatus.UNKNOWN
        values: dict[str, Any] = {
            "status": status,
            "reason": reason,
            "full": pulse.full if status is NodeStatus.UNREADY else "",
            "returning": status is NodeStatus.DOWN and pulse.reported,
            "returned_at": pulse.returned_at,
            "ahead": _ahead(pulse),
        }
        if old is not None and old.status == status:
            values["since"] = old.since
            same = not awaited and not old.replaced_at
            if same and all(getattr(old, name) == value for name, value in values.items()):
                return old
        else:
            values["since"] = self._clock.wall()
        values["replaced_at"] = self._clock.wall() + until - now if awaited and until else 0.0
        return NodeCondition(**values)

    def _judge(self, pulse: _Pulse, now: float) -> tuple[NodeStatus, str, float | None]:
        """Return status, reason and when it may change by itself."""
        if pulse.connected and pulse.reported:
            return self._ready(pulse, now)
        reason = pulse.reason or "not heard from yet"
        if pulse.was_down:
            return NodeStatus.DOWN, reason, None
        if pulse.connected:
            # It answers: what it holds is known with its first report, due at once.
            return NodeStatus.UNKNOWN, "connected, its first report is awaited", None
        until = pulse.lost + (self._patience if pulse.host else self._down_after)
        if now < until:
            return NodeStatus.UNKNOWN, reason, until
        pulse.was_down = True
        pulse.falls = pulse.falls + 1 if now - pulse.fell_at < FLAP_MEMORY else 1
        pulse.fell_at = now
        return NodeStatus.DOWN, reason, None

    def _ready(self, pulse: _Pulse, now: float) -> tuple[NodeStatus, str, float | None]:
        if pulse.trouble and not pulse.was_down:
            # What runs there runs on; nothing new comes to it, and nobody waits for its word.
            return NodeStatus.UNREADY, pulse.trouble, None
        if not pulse.was_down:
            return NodeStatus.READY, "", None
        steady = min(LONGEST_STEADY, STEADY * 2.0 ** (pulse.falls - 1))
        if self._braking:
            steady = STEADY  # its fall was hardly its own fault
        if len(self._cluster.nodes) == 1:
            steady = 0.0  # there is nowhere else to go, so nothing to be careful about
        until = pulse.since + steady
        if now < until:
            again = f"it was down {pulse.falls} times lately, " if pulse.falls > 1 else ""
            return (
                NodeStatus.DOWN,
                f"it is back; {again}counted again after {steady:g} s without a break",
                until,
            )
        pulse.was_down, pulse.returned_at = False, now
        return NodeStatus.READY, "", None

    def _doubt(self, down: set[str]) -> None:
        """Mark what fell silent with most others; ``down`` were that before, whoever's fault it is.

        Nodes that are cut off together are found silent within a heartbeat of each other, which is
        less than a node takes to be down: the brake comes on with the first of them.
        """
        for node, found in self._cluster.conditions.items():
            pulse = self._pulse(node)
            fell = found.status not in HEARD and node not in down
            pulse.doubted = self._braking and (pulse.doubted or fell)
            # Where there is one node only nothing would be replaced anyway.
            alone = len(self._cluster.nodes) == 1
            braked = self._braking and found.status not in HEARD and not alone
            if (found.doubted, found.braked) != (pulse.doubted, braked):
                update = {"doubted": pulse.doubted, "braked": braked}
                self._cluster.conditions[node] = found.model_copy(update=update)

    def brake(self) -> bool:
        """Say whether so many nodes are silent that the fault is likelier ours than theirs."""
        return self._braking

    def _look_at_brake(self, now: float) -> None:
        found = {node: self._cluster.conditions[node].status for node in self._cluster.nodes}
        silent = {node for node, status in found.items() if status not in HEARD}
        # A starting controller has not heard anybody yet: that is no silence. Nor is it one where
        # the first report is on its way.
        fell = {node for node in silent if (p := self._pulse(node)).met and not p.connected}
        counted = silent if NodeStatus.DOWN in found.values() else fell
        if len(counted) > BRAKE * len(found):
            self._braking, self._release_at = True, None
        elif not silent:
            self._braking, self._release_at = False, None
        elif self._braking and self._release_at is None:
            self._release_at = now + RELEASE
        elif self._release_at is not None and now >= self._release_at:
            self._braking, self._release_at = False, None


def _ahead(pulse: _Pulse) -> float:
    """Return how many seconds the node's clock is ahead of ours, or behind (negative)."""
    found = max(pulse.ahead, default=0.0)
    return found if abs(found) >= times.NOTICED else 0.0
