"""Whether anything more may come of some services by itself: what keeps `logs -f` open.

What runs may print. What has ended is followed by another where its restart policy says so,
where it was asked for anew, or where a release is under way. Pure: records in, yes or no out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import newest_of, newest_spec
from orchestrator.control.mirror.serving import wanted_count
from scheduler.replicas import Replica
from scheduler.restart import verdict
from specs.states import FINAL, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator.contracts import Mirror
    from specs.api import Stack
    from specs.stack import ServiceSpec
    from specs.task import Task


def goes_on(cluster: Mirror, name: str, services: Collection[str]) -> bool:
    """Say whether tasks of these services (none: of all) run or come without being asked for."""
    stack = cluster.stacks.get(name)
    if stack is None:
        return False
    tasks = [t for t in cluster.tasks_of(name) if not services or t.service in services]
    if any(t.state not in FINAL for t in tasks):
        return True
    if _iterates(cluster, stack, services):
        return True
    if stack.desired != "up":
        return False
    release = cluster.releases.get((name, stack.release))
    if release is not None and not release.over:
        return True
    deployed = release is not None and release.state is ReleaseState.DEPLOYED
    spec = newest_spec(cluster, stack)
    return any(
        _comes(
            cluster,
            stack,
            service,
            [t for t in tasks if t.service == service.name],
            deployed=deployed,
        )
        for service in (spec.services.values() if spec is not None else ())
        if not services or service.name in services
    )


def _iterates(cluster: Mirror, stack: Stack, services: Collection[str]) -> bool:
    """Say whether an iteration of a schedule goes on, or comes when it is due."""
    scheduled = (
        record
        for (name, service), record in cluster.schedules.items()
        if name == stack.name and (not services or service in services)
    )
    return any(
        record.going or (stack.desired == "up" and not record.resting and not record.held)
        for record in scheduled
    )


def _comes(
    cluster: Mirror, stack: Stack, service: ServiceSpec, tasks: list[Task], *, deployed: bool
) -> bool:
    """Say whether a task of the service will be made; all of these have ended."""
    wanted = wanted_count(cluster, stack, service, tasks)
    newest = newest_of(tasks)
    if len(newest) < wanted and deployed:
        return True  # it had them all: what is missing is replaced
    return any(_followed(stack, service, task) for task in list(newest.values())[:wanted])


def _followed(stack: Stack, service: ServiceSpec, task: Task) -> bool:
    done, run = task.state is TaskState.COMPLETE, task.status.run
    asked = stack.asked_again if done else stack.asked
    if task.asked < asked.get(service.name, 0):
        return True
    lived = 0.0
    if run is not None and run.started_at is not None and run.finished_at is not None:
        lived = run.finished_at - run.started_at
    last = Replica(
        id=task.id,
        slot=task.slot,
        spec_hash=task.spec_hash,
        state=task.state,
        lived=lived,
        attempt=task.attempt,
        restarts=task.status.restarts,
        cut_off=service.task.on_reboot if task.cut_off else "",
    )
    found = verdict(service.task.restart, last, 0.0)
    return not found.completed and not found.give_up
