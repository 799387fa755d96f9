"""How what a release asked for fares after another one, about something else, took its place.

Two people who say ``up web`` and ``up db`` of one stack in the same moment: the later release
keeps what the earlier had begun, and judges only what is its own. So whoever waits for the
earlier is told by the services themselves (``telling.progress``). Pure but for the mirror.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orchestrator.control.mirror import times
from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.released import newest_of, spec_of
from orchestrator.control.mirror.serving import is_ready, wanted_count
from orchestrator.control.mirror.successors import about_of, keeps, successor
from specs.patience import CRASHES, TRIAL
from specs.states import Health, TaskState

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.task import Task


class KeptOn(NamedTuple):
    """``ok`` None: it is still under way. ``failed``: the task that will not come."""

    ok: bool | None
    failed: Task | None = None
    message: str = ""


def keeper(cluster: Cluster, release: Release) -> Release | None:
    """Return the release that runs now and keeps what this one asked for; None if none does."""
    found = successor(cluster, release)
    while found is not None and keeps(cluster, release, found):
        later = successor(cluster, found)
        if later is None:
            return found
        found = later
    return None


def fares(cluster: Cluster, release: Release, kept: Release, now: float) -> KeptOn:
    """Say how far what the release asked for has come."""
    stack, spec = cluster.stacks.get(release.stack), spec_of(cluster, release)
    if stack is None or spec is None or stack.desired != "up":
        gone = stack is None or stack.desired == "removed"
        return KeptOn(ok=False, message=f"the stack was {'removed' if gone else 'stopped'}")
    specs, coming = Specs(cluster), False
    mine = list(cluster.by_stack.get(release.stack, {}).values())
    for name in sorted(about_of(cluster, release)):
        if name in stack.stopped_services and name not in release.starts:
            continue
        wanted = specs.under(release, spec, name)
        tasks = [t for t in mine if t.service == name and t.spec_hash == wanted.hash]
        count = wanted_count(cluster, stack, wanted.service, tasks)
        newest = list(newest_of(tasks).values())
        for task in newest:
            if _lost(task):
                return KeptOn(ok=False, failed=task)
        coming |= sum(_come(cluster, task, now) for task in newest) < count
    if not coming:
        return KeptOn(ok=True)
    if now > kept.created_at + spec.deadline:
        return KeptOn(ok=False, message="no progress before its deadline")
    return KeptOn(ok=None)


def _lost(task: Task) -> bool:
    if task.state in (TaskState.FAILED, TaskState.REJECTED):
        return True
    run = task.status.run
    waits = run is not None and run.finished_at is not None
    return task.live and waits and task.status.restarts >= CRASHES


def _come(cluster: Cluster, task: Task, now: float) -> bool:
    """Say whether the task came to stay: a check says so, else that it has run for a moment."""
    if task.state is TaskState.COMPLETE:
        return True
    run = task.status.run
    if not (task.live and is_ready(cluster, task)) or run is None or run.started_at is None:
        return False
    return task.status.health is Health.HEALTHY or times.ran(cluster.conditions, task, now) >= TRIAL
