"""The node's packet filter: our nftables table, the ports we hold, and others' firewalls.

Part of agent.network.node, which calls everything here but the questions in the nft
thread. It turns a wanted state into a ruleset (rules.py), withholds the ports that
another program has, forgets UDP flows that the change made wrong, and watches who
else drops packets. In force is what was last applied, until somebody else touches it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.network import conntrack, foreign, nft
from agent.network.endpoints import PerService
from agent.network.ports import PortSockets
from agent.network.rules import owned_elements, port_key, port_targets, ruleset, service_part
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.network.rules import Ruleset
    from agent.network.wanted import Wanted
    from specs.stack import Port
    from specs.wire import Assignment


class PacketFilter:
    """What the kernel filters and translates for us."""

    def __init__(self) -> None:
        self._table = nft.Table()
        self._ports = PortSockets()
        self._parts = PerService(service_part)
        self._rules: Ruleset | None = None
        self._foreign: tuple[str, ...] = ()
        self._judged = -1  # the ruleset generation ``_foreign`` was found at

    # questions, from any thread

    @property
    def in_force(self) -> bool:
        """Say whether a ruleset of ours is in the kernel."""
        return self._rules is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what people should know now: ports not to be had, foreign firewalls."""
        return (*sorted(self._ports.warnings), *self._foreign)

    def knows(self, assignment: Assignment) -> bool:
        """Say whether the kernel's filters know the task, and the fate of its ports is known."""
        if self._rules is None:
            return False
        owned = self._rules.sets["owned"]
        ports = [port_key(port) for port in assignment.host_ports if port.published is not None]
        return all(element in owned for element in owned_elements(assignment)) and all(
            self._ports.decided(key) for key in ports
        )

    def refused_port(self, assignment: Assignment) -> str:
        """Return why one of the task's ports cannot be had; "" when all can."""
        reasons = (self._ports.refused.get(port_key(port), "") for port in assignment.host_ports)
        return next(filter(None, reasons), "")

    # the kernel, in the nft thread

    def check_ports(self, ports: Iterable[Port]) -> list[str]:
        """Return a sentence for each published port that is taken on this node."""
        return self._ports.check([port_key(port) for port in ports if port.published is not None])

    def apply(self, wanted: Wanted) -> None:
        """Bring the kernel to this state, and forget the UDP flows it makes wrong."""
        old = self._rules
        new = self._put_in_force(wanted)
        stale = conntrack.stale(old, new)
        if stale:
            conntrack.delete(stale)

    def verify(self, wanted: Wanted) -> list[str]:
        """Put right what others changed; return what it was."""
        intact = self._table.intact()
        # A refused port is tried again: whoever had it may have ended.
        if not intact or self._ports.refused:
            self._put_in_force(wanted)
        self._table.remember()
        self._judge(wanted)
        return [] if intact else ["nftables table corral"]

    def _put_in_force(self, wanted: Wanted) -> Ruleset:
        parts, _ = self._parts.update(wanted)
        targets = port_targets(wanted, parts)
        withheld = self._ports.hold(targets)
        new = ruleset(wanted, parts, targets, withheld=withheld)
        reached("nft.before_commit")
        self._table.apply(new)
        reached("nft.after_commit")
        self._rules = new
        if self._judged < 0:
            self._judge(wanted)
        return new

    def _judge(self, wanted: Wanted) -> None:
        """Look at others' firewalls, if anything in nftables changed since the last look."""
        if self._table.generation != self._judged:
            self._foreign = foreign.look(wanted)
            self._judged = self._table.generation

    # the end

    def forget(self) -> None:
        """Take nothing for in force any more; the next apply() loads all of it."""
        self._rules = None

    def withdraw(self) -> None:
        """Take everything of ours out of the kernel."""
        self._table.remove()
        foreign.leave()
        self._ports.close()
        self._table, self._judged, self._foreign = nft.Table(), -1, ()

    def close(self) -> None:
        """Give the held ports back; the rules stay."""
        self._ports.close()
