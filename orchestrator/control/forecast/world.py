"""Nodes as a forecast has them: they do what they are told, and say so after the usual time.

Pure: looks at tasks of the fork and hands reports to ``planning.ingest`` like a node's. It is an
optimist: an image arrives, a container starts, a check passes. What cannot come to be because of
the cluster as it is (no node, no address, a dependency that is not there) the planner says itself.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.planning import ingest
from specs.stack import Condition
from specs.states import FINAL, HEARD, Desired, Health, TaskState
from specs.task import Run, TaskStatus
from specs.wire import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.task import Task

# Seconds where nothing else is known; alike, as what ends at one time takes one pass.
PREPARE, START, STOP, END = 0.3, 0.3, 0.3, 0.9
_COMING = (TaskState.ASSIGNED, TaskState.PREPARING)
_READY = (TaskState.PREPARED, TaskState.STARTING)


Step = tuple[str, float, TaskStatus | None]


def _ends(task: Task) -> Step | None:
    """Return how a task goes that is to go."""
    status = task.status
    if task.state in FINAL:
        return ("gone", 0.0, None) if task.desired is Desired.REMOVED else None
    alive = status.run is not None and status.run.alive
    ended = status.model_copy(update={"state": TaskState.SHUTDOWN, "ready": False})
    return "end", STOP if alive else 0.0, ended


@dataclass(frozen=True, slots=True)
class Usual:
    """How one service's replicas turned out so far; None: nobody knows.

    ``checked``: its image or file has a health check. ``healthy``: from the start of a run until it
    was ready. ``runs``: of what completes, how long that took.
    """

    checked: bool = False
    completes: bool = False
    healthy: float | None = None
    runs: float | None = None


@dataclass
class World:
    """The nodes of one forecast. ``awaited``: services that others want to be healthy."""

    usual: Mapping[str, Usual]
    awaited: frozenset[str] = frozenset()
    ending: frozenset[str] = frozenset()  # services that others want to complete
    _begun: dict[tuple[str, str], float] = field(default_factory=dict)

    def turn(self, pass_: Pass, stack: str) -> float | None:
        """Report what is done by now; return when the next thing will be."""
        due: float | None = None
        reports: dict[str, dict[str, TaskStatus]] = defaultdict(dict)
        gone: dict[str, list[str]] = defaultdict(list)
        for task in list(pass_.draft.tasks(stack).values()):
            if task.node is None or pass_.node_status(task.node) not in HEARD:
                continue
            effective = pass_.specs.of(task.stack, task.release, task.service)
            step = self._step(task, effective, pass_.wall)
            if step is None:
                continue
            what, lasts, status = step
            at = self._begun.setdefault((task.id, what), pass_.now) + lasts
            if at > pass_.now:
                due = at if due is None else min(due, at)
            elif status is None:
                gone[task.node].append(task.id)
            else:
                reports[task.node][task.id] = status
        for node in sorted({*reports, *gone}):
            ingest.take(pass_, node, Report(tasks=reports[node], gone=tuple(gone[node])))
        return due

    def _step(self, task: Task, effective: Effective | None, wall: float) -> Step | None:
        """Return what the task's node does next, for how long, and what it is then; None = gone."""
        if task.desired not in (Desired.PREPARED, Desired.RUNNING):
            return _ends(task)
        if task.state in FINAL or effective is None:
            return None
        status = task.status
        if task.restart > status.restart_done:
            return "restart", START, status.model_copy(update={"restart_done": task.restart})
        if task.state in _COMING:
            return "prepare", PREPARE, status.model_copy(update={"state": TaskState.PREPARED})
        if task.state not in _READY or status.run is not None:
            return self._goes_on(task, effective, wall)
        held = task.desired is not Desired.RUNNING or task.leaving
        return None if held else ("start", START, self._started(task, wall))

    def _usual(self, service: str) -> Usual:
        return self.usual.get(service, Usual())

    def _checked(self, service: str) -> bool:
        return self._usual(service).checked or service in self.awaited

    def _started(self, task: Task, wall: float) -> TaskStatus:
        checked = self._checked(task.service)
        run = Run(number=1, pid=1, started_at=wall)
        return TaskStatus(
            state=TaskState.STARTING if checked else TaskState.RUNNING,
            ready=not checked,
            health=Health.STARTING if checked else Health.NONE,
            runs=(run,),
        )

    def _goes_on(self, task: Task, effective: Effective, wall: float) -> Step | None:
        """Return what becomes of one that was started: it gets healthy, it completes."""
        status, usual = task.status, self._usual(task.service)
        ends = task.service in self.ending or usual.completes
        if ends and status.run is not None and not task.leaving:
            long = usual.runs if usual.runs is not None else END
            run = status.run.with_end(wall, 0, "exited with 0")
            done = {"state": TaskState.COMPLETE, "ready": False, "runs": (run,)}
            return "complete", long, status.model_copy(update=done)
        if status.ready or status.health is not Health.STARTING:
            return None
        lasts = usual.healthy
        if lasts is None:
            check = effective.task.healthcheck
            early = check.start_interval if check and check.start_period else None
            lasts = early or (check.interval if check else START)
        well = {"state": TaskState.RUNNING, "ready": True, "health": Health.HEALTHY}
        return "healthy", lasts, status.model_copy(update=well)


def edges(effectives: Mapping[str, Effective]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the services that others want to be healthy, and those that are to complete."""
    healthy, ending = set(), set()
    for effective in effectives.values():
        for other, edge in effective.service.depends_on.items():
            if edge.condition is Condition.HEALTHY:
                healthy.add(other)
            elif edge.condition is Condition.COMPLETED:
                ending.add(other)
    return frozenset(healthy), frozenset(ending)
