"""What is known of one service after it was planned, for gates, verdicts and progress.

``services`` makes one for every service of a release, in dependency order; a later
service's gate looks at the earlier ones' states, and ``releases`` judges all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.planning.passes import earliest
from scheduler.reconcile import SlotPlan
from scheduler.rollout import Moves

if TYPE_CHECKING:
    from orchestrator.control.mirror.effective import Effective
    from scheduler.reconcile import WantedService
    from scheduler.replicas import Replica
    from specs.api import Release
    from specs.stack import StackSpec


@dataclass(slots=True)
class ServiceState:
    """One service after planning: what releases.py judges and progress shows."""

    name: str
    effective: Effective
    wanted: WantedService
    replicas: list[Replica]
    plan: SlotPlan = field(default_factory=SlotPlan)
    moves: Moves = field(default_factory=Moves)
    waits_for: str = ""  # the dependency it waits for, for people
    networks: str = ""  # why its addresses cannot be given
    must_end: bool = False  # others wait for it to complete: running is not enough
    carried: bool = False  # the release is not about it: left as it is, and not judged
    settled: int = 0  # wanted slots whose current task serves, or completed

    @property
    def due(self) -> float | None:
        """Return when the service must be looked at again even if nothing happens."""
        return earliest(self.plan.wake, self.moves.wake)


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """What a stack is steered to: a release, and whether its rollout may move."""

    release: Release
    spec: StackSpec
    rollback: bool = False
