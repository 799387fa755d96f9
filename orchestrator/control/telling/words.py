"""Records in words and numbers for people, pure functions of the mirror.

progress.py calls these, and ``orchestrator.api.rows`` where the whole cluster is needed
to say how a task is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.api import (
    ProblemRow,
    Release,
    ReleaseRow,
)
from specs.states import FINAL, Desired, Health, TaskState

if TYPE_CHECKING:
    from orchestrator.contracts import Mirror
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Stack
    from specs.stack import ServiceSpec, StackSpec
    from specs.task import Run, Task


def ago(seconds: float) -> str:
    """Return a span of time for people: ``8 s``, ``2 min``, ``3 h``, ``12 days``."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // 86400)} days"


def status_text(cluster: Cluster, task: Task, now: float, *, times: bool = True) -> str:
    """Return one phrase on how the task is: ``running 2 min (healthy)``."""
    if task.state in FINAL:
        return _ended_text(task, now, times=times)
    if unheard := unheard_text(cluster, task):
        return unheard
    if task.leaving or task.desired in (Desired.SHUTDOWN, Desired.REMOVED):
        return "stopping"
    if task.state is TaskState.RUNNING:
        return _running_text(task, now, times=times)
    word = "pending" if task.state is TaskState.NEW else task.state.value
    reason = task.pending_reason or task.status.reason
    return f"{word}: {reason}" if reason else word


def unheard_text(cluster: Mirror, task: Task) -> str:
    """Return how a task is whose node does not answer, "" where that is not so."""
    condition = cluster.conditions.get(task.node or "")
    if task.state in FINAL or condition is None or condition.status == "ready":
        return ""
    node = cluster.nodes[task.node or ""].name
    reason = condition.reason or f"node {node} does not answer"
    text = f"{condition.status}: {reason if node in reason else f'node {node}: {reason}'}"
    tied = _tied(cluster, task)
    return f"{text}; waits for it because {tied} is there" if tied else text


def is_ready(cluster: Mirror, task: Task) -> bool:
    """Say whether the task gets traffic: what a dead node said last does not count."""
    condition = cluster.conditions.get(task.node or "")
    return task.status.ready and (condition is None or condition.status != "down")


def _running_text(task: Task, now: float, *, times: bool) -> str:
    run = task.status.run
    if run is not None and run.finished_at is not None:
        words = f"restarting: {exit_words(run)}"
        count = task.status.restarts
        return f"{words}, {count} restart{'s' if count != 1 else ''}" if count else words
    text = "running"
    if times and run is not None and run.started_at is not None:
        text += f" {ago(now - run.started_at)}"
    health = task.status.health
    if health is not Health.NONE:
        text += f" ({health.value if health is not Health.STARTING else 'health: starting'})"
    elif not task.status.ready and task.status.ready_reason:
        text += f" (not ready: {task.status.ready_reason})"
    return text


def exit_words(run: Run) -> str:
    """Return how a run ended, for people."""
    if run.oom:
        return "killed because it used more memory than its limit"
    if run.exit_code is None:
        return run.reason or "ended, exit code unknown"
    return f"exit code {run.exit_code}"


def _ended_text(task: Task, now: float, *, times: bool) -> str:
    run = task.status.run
    word = {
        TaskState.COMPLETE: "completed",
        TaskState.FAILED: "failed",
        TaskState.SHUTDOWN: "stopped",
        TaskState.REJECTED: "rejected",
        TaskState.ORPHANED: "lost with its node",
    }[task.state]
    if task.state is TaskState.REJECTED:
        return f"{word}: {task.status.reason}" if task.status.reason else word
    if run is not None:
        word += (
            f": {exit_words(run)}" if task.state is TaskState.FAILED else f" ({exit_words(run)})"
        )
        if times and run.finished_at is not None:
            word += f", {ago(now - run.finished_at)} ago"
    elif task.status.reason:
        word += f": {task.status.reason}"
    return word


def _tied(cluster: Mirror, task: Task) -> str:
    """Return what ties the task to its node: a volume's name, or ""."""
    release = cluster.releases.get((task.stack, task.release))
    spec = cluster.parts.get(release.spec) if release is not None else None
    service = spec.services.get(task.service) if spec is not None else None
    if spec is None or service is None:
        return ""
    for mount in service.task.mounts:
        if mount.type == "volume" and mount.source is not None:
            volume = spec.volumes.get(mount.source)
            return f"volume {volume.name if volume is not None else mount.source}"
    return ""


def _spec(cluster: Cluster, stack: Stack) -> StackSpec | None:
    for number in (stack.release, stack.running):
        release = cluster.releases.get((stack.name, number))
        if release is not None:
            return cluster.parts.get(release.spec)
    return None


def wanted_count(cluster: Cluster, stack: Stack, service: ServiceSpec) -> int:
    """Return how many tasks a service should have now."""
    if stack.desired != "up":
        return 0
    if service.mode == "global":
        return sum(
            1
            for node in cluster.nodes.values()
            if node.availability != "drain" and not node.removing
        )
    return stack.overrides.get(service.name, service.replicas)


def _good(cluster: Cluster, task: Task) -> bool:
    return (task.live and is_ready(cluster, task)) or (
        task.state is TaskState.COMPLETE and task.desired is Desired.RUNNING
    )


def service_counts(cluster: Cluster, name: str) -> dict[str, tuple[int, int]]:
    """Return service -> (slots that serve or completed, wanted) of a stack."""
    stack = cluster.stacks.get(name)
    spec = _spec(cluster, stack) if stack is not None else None
    if stack is None or spec is None:
        return {}
    slots: dict[str, set[int]] = {service: set() for service in spec.services}
    for task in cluster.by_stack.get(name, {}).values():
        if task.service in slots and _good(cluster, task):
            slots[task.service].add(task.slot)
    return {
        service: (len(found), wanted_count(cluster, stack, spec.services[service]))
        for service, found in sorted(slots.items())
    }


def failed_tasks(cluster: Cluster, stack: str, release: int) -> list[Task]:
    """Return tasks of a release that say something about its failure."""
    return [
        t
        for t in cluster.by_stack.get(stack, {}).values()
        if t.release == release
        and (
            t.state in (TaskState.FAILED, TaskState.REJECTED)
            or (t.live and not t.status.ready and (t.status.restarts or t.status.log_tail))
        )
    ]


def release_row(release: Release, warnings: tuple[ProblemRow, ...] = ()) -> ReleaseRow:
    """Return one line of a stack's releases."""
    return ReleaseRow(
        stack=release.stack,
        number=release.number,
        state=release.state,
        reason=release.reason,
        created_at=release.created_at,
        warnings=warnings,
    )
