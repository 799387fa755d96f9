"""What is known of one service after it was planned, for gates, verdicts and progress.

``services`` makes one for every service of a release, in dependency order; a later
service's gate looks at the earlier ones' states, and ``releases`` judges all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import beside
from orchestrator.control.planning.passes import earliest
from scheduler.displaced import Displaced
from scheduler.reconcile import SlotPlan
from scheduler.rollout import Moves
from scheduler.trial import Trial
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.telling.causes import Cause
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
    unchecked: tuple[tuple[str, bool], ...] = ()  # whose health nothing checks; is it required
    networks: str = ""  # why its addresses cannot be given
    must_end: bool = False  # others wait for it to complete: running is not enough
    carried: bool = False  # the release is not about it: left as it is, and not judged
    own_specs: Mapping[int, Effective] = field(default_factory=dict)  # slots with another spec
    misplaced: Displaced = field(default_factory=Displaced)  # on nodes they may not be on
    settled: int = 0  # wanted slots whose current task serves, or completed
    steady: int = 0  # those of them that came to stay, see scheduler.trial
    steady_at: float | None = None  # when one more may have, if nothing happens
    trial: Trial = field(default_factory=Trial)
    failed: Cause | None = None  # it will not come as it is, see failing
    hopeless: Cause | None = None  # as things are, waiting for it is of no use
    homeless: tuple[Replica, ...] = ()  # no node has taken them for a while, see nowhere
    look_at: float | None = None  # when it may become so, if nothing happens
    current: tuple[Replica, ...] | None = None  # see gates.current
    patient_until: float = 0.0  # a dependency's own deadline, should it be later than all others
    gone_without: frozenset[str] = frozenset()  # whom it waited for long enough, see deadlines
    held: str = ""  # why the release cannot end yet, though nothing is wrong: see holding
    stands: bool = False  # all that may move did: only time or somebody decides
    by_hand: bool = False  # somebody, at last
    until: float | None = None  # when time does

    @property
    def due(self) -> float | None:
        """Return when the service must be looked at again even if nothing happens."""
        return earliest(self.plan.wake, self.moves.wake, self.steady_at, self.look_at)


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """What a stack is steered to: a release, and whether its rollout may move."""

    release: Release
    spec: StackSpec
    rollback: bool = False
    untouched: Collection[str] = ()  # of release.keeps: what failed after it did not change them

    @property
    def deploys(self) -> bool:
        """Whether the release is deployed now, and nothing is gone back to."""
        return self.release.state is ReleaseState.DEPLOYING and not self.rollback

    @property
    def beside(self) -> Collection[str]:
        """Return the services it is not about: they are left as they are, and not judged."""
        return self.spec.carried if self.rollback else beside(self.spec, self.release)

    @property
    def only_starts(self) -> bool:
        """Whether every task keeps the spec it has: it was made by `start`."""
        return self.release.only_starts and not self.rollback

    @property
    def keeps(self) -> Collection[str]:
        """Return the services of which every task keeps the spec it has: `up --no-recreate`."""
        return self.untouched if self.rollback else self.release.keeps

    @property
    def renews(self) -> bool:
        """Whether what it makes begins with empty anonymous volumes; never what is lost later."""
        return self.release.renew_volumes and self.deploys

    @property
    def grace(self) -> float | None:
        """Return the seconds that `up -t` gave what the release replaces, while it is deployed."""
        return self.release.grace if self.deploys else None
