"""`scale`: another number of copies, at once and whatever became of the last release.

The number is an override in the stack's record; how many tasks there are follows from it. What a
failed update left and does not serve makes room: so many copies were asked for, and those come
from the release before it, which serves (``planning.frozen``). What is stopped is started by a
number above zero, as `start SERVICE` does it: by a release, after what it depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy import starting
from orchestrator.control.deploy.release import scale_problem, shared_problem
from orchestrator.control.mirror import times
from orchestrator.control.mirror.records import RELEASES, STACKS
from orchestrator.control.mirror.released import spec_at
from orchestrator.errors import Invalid
from specs import bounds
from specs.api import ProblemRow, Rescaled, Start
from specs.problems import Problem
from specs.states import Desired, Health, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Stack
    from specs.made_by import MadeBy
    from specs.stack import StackSpec
    from specs.task import Task


def rescale(
    cluster: Cluster,
    draft: Draft,
    record: Stack,
    spec: StackSpec,
    services: Mapping[str, int],
    *,
    key: str,
    by: MadeBy,
    wall: float,
) -> Rescaled:
    """Set the numbers, all or none. Raises Invalid.

    ``key`` is the request's and ``by`` whose it is, for the release that starts what is stopped.
    """
    problems = [
        Problem(text, "bad-scale", f"services.{name}")
        for name, count in services.items()
        if (text := scale_problem(spec, name, count))
    ]
    scaled = record.with_overrides(services)
    problems = problems or _too_many(record, scaled, spec)
    if problems:
        raise Invalid(problems)
    # A number above zero asks for what has ended, as `up` does.
    asked = {name for name, count in services.items() if count}
    down = asked if record.desired == "stopped" else asked & set(record.stopped_services)
    if asked - down:
        scaled = scaled.with_asked(sorted(asked - down))
    draft.put(STACKS, scaled)
    newest = cluster.releases.get((record.name, record.release))
    if newest is not None and newest.state is ReleaseState.PENDING:
        draft.put(RELEASES, newest.with_overrides(services))  # the later number wins
    started = None
    if down:
        request = Start(key=key, services=tuple(sorted(down)), by=by)
        started = starting.start(cluster, draft, scaled, request, wall=wall).release
    if 0 < record.running < record.release:
        _let_go(cluster, draft, record, services, wall)
    warnings = []
    for name, count in services.items():
        had = record.overrides.get(name, spec.services[name].replicas)
        warnings.append(shared_problem(spec, name, before=had, count=count))
        warnings.append(_paused(cluster, record, name) if count else None)
    told = tuple(ProblemRow.of(w) for w in warnings if w is not None)
    return Rescaled(warnings=told, started=started)


def _too_many(before: Stack, after: Stack, spec: StackSpec) -> list[Problem]:
    """Refuse more copies than a stack can have; fewer than there are is always right."""
    had, wanted = (bounds.copies(spec, record.overrides) for record in (before, after))
    why = bounds.excess(wanted, bounds.MOST_TASKS, "replicas")
    if not why or sum(wanted.values()) < sum(had.values()):
        return []
    return [Problem(why, "too-many", hint="scale to fewer, or another service down with it")]


def _let_go(
    cluster: Cluster, draft: Draft, record: Stack, services: Mapping[str, int], wall: float
) -> None:
    """Free slots that hold only what a failed update left."""
    for task in list(draft.tasks(record.name).values()):
        if task.service not in services or task.release <= record.running:
            continue
        if task.state in (TaskState.FAILED, TaskState.REJECTED):
            draft.put_task(task.with_desired(Desired.REMOVED))
        elif (
            task.live
            and _failed(cluster, record, task.release)
            and not _sound(cluster, task, spec_at(cluster, record.name, task.release), wall)
        ):
            if task.node is None:
                draft.delete_task(task)
            else:
                draft.put_task(task.with_leaving())


def _sound(cluster: Cluster, task: Task, spec: StackSpec | None, wall: float) -> bool:
    """Say whether a task serves, and not only for a moment between two crashes."""
    status, run = task.status, task.status.run
    if not status.ready or run is None or run.started_at is None or spec is None:
        return False
    if status.health is Health.HEALTHY and not status.restarts:
        return True
    lasted = times.ran(cluster.conditions, task, wall)
    return lasted >= spec.services[task.service].update.trial


def _failed(cluster: Cluster, record: Stack, number: int) -> bool:
    release = cluster.releases.get((record.name, number))
    return release is not None and release.state is ReleaseState.FAILED


def _paused(cluster: Cluster, record: Stack, service: str) -> Problem | None:
    """Return the warning that new copies are of the release before the one that failed."""
    if record.running <= 0 or not _failed(cluster, record, record.release):
        return None
    before = spec_at(cluster, record.name, record.running)
    after = spec_at(cluster, record.name, record.release)
    old = before.services.get(service) if before is not None else None
    if old is None or after is None or old == after.services.get(service):
        return None
    return Problem(
        f"{service} is scaled as release {record.running} has it: release {record.release} "
        "failed, its update is paused",
        "paused-update",
        f"services.{service}",
        hint=f"corral -p {record.name} up tries again",
        severity="warning",
    )
