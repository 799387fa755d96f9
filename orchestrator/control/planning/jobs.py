"""Jobs (``deploy.mode: replicated-job, global-job``): what is theirs alone in planning a service.

A job is a service whose tasks are to complete. How many run at a time ``scheduler.reconcile``
says; here a changed job becomes a new *iteration*: what ended of the old one goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.planning import gates, stopping
from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget
    from specs.api import Stack
    from specs.task import Task


def newest(kept: Iterable[Effective]) -> Effective | None:
    """Return a replicated job as the newest of its tasks has it; None where that is none."""
    found = max(kept, key=lambda effective: effective.release, default=None)
    job = found is not None and found.service.is_job and not found.service.per_node
    return found if job else None


def of_this_iteration(
    pass_: Pass, stack: Stack, effective: Effective, tasks: list[Task], target: ReleaseTarget
) -> list[Task]:
    """Let go of what ended of a job's earlier iterations; return the tasks there are then."""
    name = effective.service.name
    left = target.only_starts or name in target.beside or name in target.keeps
    if not effective.service.is_job or left or gates.created(stack, name):
        return tasks
    old = [t for t in tasks if t.state in FINAL and t.spec_hash != effective.hash]
    for task in old:
        if task.desired is not Desired.REMOVED:
            stopping.begin(pass_, task, graceful=False)
    return [t for task in tasks if (t := pass_.draft.task(task.id)) is not None] if old else tasks
