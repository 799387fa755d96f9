"""What the controller saw and when: nothing here is stored, a restart begins anew.

Times are monotonic. Losing them is harmless: back-offs start over, what runs is taken to
have run since its node says it started, and an acknowledgement that was forgotten is
waited for again (at most ACK_LIMIT).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror import times
from orchestrator.control.mirror.answers import PathAnswers
from orchestrator.control.mirror.cluster import copied
from orchestrator.control.mirror.records import RELEASES, RESTING, STACKS, TASKS, Kind
from orchestrator.store import keys
from specs.api import Release, Stack
from specs.states import FINAL, Health, TaskState
from specs.task import Task

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from scheduler.replicas import Replica
    from specs.api import RolloutRow
    from specs.base import Model
    from specs.kit.clock import Clock


BY_HAND = ""  # of what is watched of a release: no service's, but whose decision it waits for


@dataclass(slots=True)
class MoveFigures:
    """How far a move is; for people."""

    waits: str = ""
    sent: int = 0
    size: int = 0


@dataclass(slots=True)
class TaskMark:
    """One task's history as far as this process saw it."""

    ready_since: float | None = None
    served_since: float | None = None  # when it was ready first, whatever came then
    ended_at: float | None = None
    pending_since: float | None = None  # no node takes it
    was_ready: bool = False
    lived: float = 0.0
    sick_since: float | None = None
    misplaced_since: float | None = None
    leaving_since: float | None = None
    withdrawn: int = 0  # revision at which its endpoints were taken out
    served: int = 0  # and at which they were put in last
    # The task in the scheduler's terms, and of what it was made: ``planning.terms``.
    seen: tuple[Task, object, object, Replica] | None = None


@dataclass
class Observed:
    """Marks by task id, acknowledged revisions by node, rest of freed addresses."""

    cluster: Cluster
    clock: Clock
    marks: dict[str, TaskMark] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    # network -> address -> since when it rests, in that order
    resting_on: dict[str, dict[str, float]] = field(default_factory=dict)
    progress_at: dict[tuple[str, int], tuple[int, float, bool]] = field(default_factory=dict)
    paths: PathAnswers = field(default_factory=PathAnswers)  # what nodes said of theirs
    volumes: dict[str, frozenset[str]] = field(default_factory=dict)  # node -> what it holds
    # network -> ``Cluster.network_moves`` of it when every block of it was held
    blocks_held: dict[str, int] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)  # stack -> since it cannot be planned
    # release -> service -> words that its tasks serve and are only watched for a while
    watched: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)

    # release -> (service, whom it depends on) -> since when that one alone is waited for
    edges: dict[tuple[str, int], dict[tuple[str, str], float]] = field(default_factory=dict)
    # stack -> when another set of its tasks got traffic last, and the revision of that
    changed_over: dict[str, tuple[float, int]] = field(default_factory=dict)
    # stack -> how far its services' rollouts are, see ``planning.rollout_rows``
    rollouts: dict[str, tuple[RolloutRow, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = self.clock.monotonic()
        for task in self.cluster.tasks.values():
            self._task(None, task)
            since = self.mark(task.id).ready_since
            if since is not None:
                # How long it has been there already is known from its node's clock only.
                mark = self.mark(task.id)
                mark.ready_since = mark.served_since = since - _ran(task, self.clock.wall())
        for network, found in self.cluster.resting.items():
            self.resting_on[network] = dict.fromkeys(found, now)
        self.cluster.listen(self._changed)

    def forked(self, cluster: Cluster, clock: Clock, stack: str) -> Observed:
        """Return what was seen, apart, for a fork of the mirror in which only ``stack`` moves."""
        made = Observed.__new__(Observed)
        for name, value in vars(self).items():
            setattr(made, name, copied(value))
        made.cluster, made.clock = cluster, clock
        for task_id in cluster.by_stack.get(stack, {}):
            made.marks[task_id] = replace(self.mark(task_id), seen=None)
        made.paths = PathAnswers(dict(self.paths.said))
        cluster.listen(made._changed)  # noqa: SLF001 - it is one of us
        return made

    def mark(self, task_id: str) -> TaskMark:
        """Return the task's mark."""
        found = self.marks.get(task_id)
        if found is None:
            found = self.marks[task_id] = TaskMark()
        return found

    def _changed(self, kind: Kind, old: Model | None, new: Model | None) -> None:
        if kind is TASKS:
            if isinstance(new, Task):
                self._task(old if isinstance(old, Task) else None, new)
            elif isinstance(old, Task):
                self.marks.pop(old.id, None)
        elif kind is STACKS and isinstance(old, Stack) and isinstance(new, Stack):
            if old.standby != new.standby:
                revision = self.cluster.version(keys.stack(new.name))
                self.changed_over[new.name] = (self.clock.monotonic(), revision)
        elif kind is RELEASES and new is None and isinstance(old, Release):
            # After `down -v` the numbers begin anew; the old one's standstill is not this one's.
            self.progress_at.pop((old.stack, old.number), None)
            self.progress_at.pop((old.stack, -old.number), None)  # of the way back from it
            self.watched.pop((old.stack, old.number), None)
        elif kind is RELEASES and isinstance(old, Release) and isinstance(new, Release):
            if (old.promoted, old.paused) != (new.promoted, new.paused):
                # What it waited for was decided; the next look says how it is then.
                self.watch(new.stack, new.number, BY_HAND, "")
            if new.over:
                self.edges.pop((new.stack, new.number), None)
        elif kind is RESTING:
            self._rests(new or old, over=new is None)

    def _rests(self, model: Model | None, *, over: bool) -> None:
        network, address = getattr(model, "network", ""), getattr(model, "address", "")
        found = self.resting_on.setdefault(network, {})
        found.pop(address, None)
        if not over:
            found[address] = self.clock.monotonic()
        elif not found:
            del self.resting_on[network]

    def _task(self, old: Task | None, new: Task) -> None:
        now = self.clock.monotonic()
        mark = self.mark(new.id)
        mark.seen = None
        if old is not None and new.status.restarts > old.status.restarts:
            self._ended(mark, now)  # it may be ready again in the very report that tells of it
        if new.status.ready:
            if mark.ready_since is None:
                mark.ready_since = now
                mark.served_since = now if mark.served_since is None else mark.served_since
                mark.served = self.cluster.version(keys.task(new.stack, new.id))
            mark.was_ready = True
        else:
            self._ended(mark, now)
        pending = new.state is TaskState.PENDING
        if not pending or mark.pending_since is None:
            mark.pending_since = now if pending else None
        if new.status.health is not Health.UNHEALTHY:
            mark.sick_since = None
        elif mark.sick_since is None:
            mark.sick_since = now
        if not new.misplaced or mark.misplaced_since is None:
            mark.misplaced_since = now if new.misplaced else None
        if new.state in FINAL and mark.ended_at is None:
            mark.ended_at = now
        if new.leaving and (old is None or not old.leaving):
            mark.leaving_since = now
            mark.withdrawn = self.cluster.version(keys.task(new.stack, new.id))

    @staticmethod
    def _ended(mark: TaskMark, now: float) -> None:
        """Note that a spell of being ready is over."""
        if mark.ready_since is not None:
            mark.lived = now - mark.ready_since
            mark.ready_since = None

    def watch(self, stack: str, release: int, service: str, words: str) -> bool:
        """Note what is said of a service that is watched, "" = it is not; tell if that is news."""
        before = self.watched.get((stack, release), {})
        if before.get(service, "") == words:
            return False
        self.watched[stack, release] = {**before, service: words}
        return True

    def settled(self, stack: str, release: int, count: int, *, stands: bool = False) -> float:
        """Note how many replicas of a release came to stay; return when that number last grew.

        While it ``stands`` it is not to get on, and when it goes on it begins anew.
        """
        now = self.clock.monotonic()
        best, at, stood = self.progress_at.get((stack, release), (-1, now, False))
        if count > best or stands or stood:
            at = now
        self.progress_at[(stack, release)] = (max(best, count), at, stands)
        return at


def _ran(task: Task, wall: float) -> float:
    """Return how long a task without a health check has run; 0 where clocks disagree."""
    return times.ran({}, task, wall) if task.status.health is Health.NONE else 0.0
