"""A stack's releases as records: which spec belongs to one, and how one ends.

Every step of the control loops, and the rows people read, look a spec up here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror import times
from orchestrator.control.mirror.records import RELEASES
from specs.states import Desired, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.contracts import Mirror
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Release, Stack
    from specs.node import NodeCondition
    from specs.stack import StackSpec, TaskSpec
    from specs.task import Task


def spec_of(cluster: Mirror, release: Release | None) -> StackSpec | None:
    """Return what the release asks for; None when it is not kept any more."""
    return cluster.parts.get(release.spec) if release is not None else None


def spec_at(cluster: Mirror, stack: str, number: int) -> StackSpec | None:
    """Return the spec of the stack's release of that number."""
    return spec_of(cluster, cluster.releases.get((stack, number)))


def newest_spec(cluster: Mirror, stack: Stack | None) -> StackSpec | None:
    """Return the spec of the newest release of a stack, whether it was deployed or not."""
    return spec_at(cluster, stack.name, stack.release) if stack is not None else None


def spec_in_force(cluster: Mirror, stack: Stack | None) -> StackSpec | None:
    """Return the spec people are told of: the newest, or what a rollback went back to."""
    newest = cluster.releases.get((stack.name, stack.release)) if stack is not None else None
    if stack is not None and newest is not None and newest.state is ReleaseState.ROLLED_BACK:
        return spec_at(cluster, stack.name, stack.running) or newest_spec(cluster, stack)
    return newest_spec(cluster, stack)


def task_spec(cluster: Mirror, task: Task) -> TaskSpec | None:
    """Return what the task was made from; None when its release is not kept any more."""
    spec = spec_at(cluster, task.stack, task.release)
    service = spec.services.get(task.service) if spec is not None else None
    return service.task if service is not None else None


def beside(spec: StackSpec, release: Release) -> Collection[str]:
    """Return the services the release is not about: they go on as they are, and are not judged."""
    return set(spec.services) - set(release.starts) if release.only_starts else spec.carried


def newest_of(tasks: Iterable[Task]) -> dict[int, Task]:
    """Return one service's newest task in each slot, but for those that go for good."""
    kept = (t for t in tasks if t.desired is not Desired.REMOVED)
    return {t.slot: t for t in sorted(kept, key=lambda t: (t.live, t.created_at, t.id))}


def completed(
    tasks: Iterable[Task],
    *,
    before: Release | None = None,
    conditions: Mapping[str, NodeCondition] | None = None,
) -> tuple[str, ...]:
    """Return the services of which everything completed, at least once and ``before`` a release."""
    services: dict[str, list[Task]] = {}
    for task in tasks:
        services.setdefault(task.service, []).append(task)
    return tuple(
        name
        for name, mine in sorted(services.items())
        if (newest := newest_of(mine))
        and all(_completed(t, before, conditions or {}) for t in newest.values())
    )


def _completed(task: Task, before: Release | None, conditions: Mapping[str, NodeCondition]) -> bool:
    if task.state is not TaskState.COMPLETE:
        return False
    run = task.status.run
    at = run.finished_at if run is not None else None
    return before is None or (
        task.release < before.number
        and (at is None or times.by_ours(conditions, task, at) <= before.created_at)
    )


def supersede(draft: Draft, known: Iterable[Release], release: Release, *, at: float) -> None:
    """End what is still under way of these: this release takes their place."""
    for old in known:
        if not old.over:
            reason = f"release {release.number} took its place"
            finish(draft, old, ReleaseState.SUPERSEDED, reason, at=at)


def finish(
    draft: Draft,
    release: Release,
    state: ReleaseState,
    reason: str,
    *,
    at: float,
    culprit: str | None = None,
) -> None:
    """End a release: it stays as it ended, and what runs is left as it is.

    ``culprit``: the task that failed it, empty where none did.
    """
    ended = release.moved(state, reason=reason, finished_at=at)
    draft.put(RELEASES, ended.model_copy(update={"culprit": culprit}))
