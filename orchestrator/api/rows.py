"""From records to the rows people read. Pure: mirror and time in, rows out.

The API's handlers call this; the CLI prints what comes out. Decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.control.telling.words import is_ready, unheard_text
from specs.api import NodeDetail, NodeRow, ReleaseRow, ServiceRow, StackDetail, StackRow, TaskRow
from specs.states import FINAL, Desired, Health, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.contracts import Mirror
    from specs.api import Release, Stack
    from specs.node import Node
    from specs.stack import Port, ServiceSpec, StackSpec, TaskSpec
    from specs.task import Task

S = TaskState


def stack_row(cluster: Mirror, stack: Stack) -> StackRow:
    detail = stack_detail(cluster, stack)
    return StackRow(
        name=stack.name,
        status=detail.status,
        release=stack.release,
        services=len(detail.services),
        tasks=detail.tasks,
        reason=detail.reason,
    )


def stack_detail(cluster: Mirror, stack: Stack) -> StackDetail:
    release = cluster.releases.get((stack.name, stack.release))
    spec = spec_of(cluster, release)
    tasks = [task for task in cluster.tasks.values() if task.stack == stack.name]
    names = sorted(spec.services) if spec else sorted({task.service for task in tasks})
    services = tuple(
        service_row(
            name,
            spec.services[name] if spec else None,
            stack.overrides,
            [task for task in tasks if task.service == name],
            {
                task.slot
                for task in tasks
                if task.service == name and task.live and is_ready(cluster, task)
            },
        )
        for name in names
    )
    ready = sum(min(row.ready, row.replicas) for row in services)
    wanted = sum(row.replicas for row in services)
    return StackDetail(
        name=stack.name,
        status=stack_status(stack, release, complete=ready >= wanted),
        release=stack.release,
        running=stack.running,
        tasks=f"{ready}/{wanted}",
        reason=release.reason if release else "",
        services=services,
    )


def stack_status(stack: Stack, release: Release | None, *, complete: bool) -> str:
    """Return one word: how the stack is, or what is being done with it."""
    if stack.desired == "removed":
        return "removing"
    if stack.desired == "stopped":
        return "stopped"
    if release is None:
        return "unknown"
    match release.state:
        case ReleaseState.PENDING | ReleaseState.DEPLOYING | ReleaseState.FAILED:
            return release.state.value
        case _:
            return "running" if complete else "degraded"


def service_row(
    name: str,
    spec: ServiceSpec | None,
    overrides: Mapping[str, int],
    tasks: list[Task],
    ready: set[int],
) -> ServiceRow:
    live = [task for task in tasks if task.live]
    done = {task.slot for task in tasks if task.state is S.COMPLETE}
    wanted = len(live)
    if spec is not None and spec.mode == "replicated":
        wanted = overrides.get(name, spec.replicas)
    return ServiceRow(
        name=name,
        image=spec.task.image if spec else "",
        mode=spec.mode if spec else "replicated",
        replicas=wanted,
        tasks=len(live),
        ready=len(ready | done),
        scaled=name in overrides,
        ports=tuple(port_text(port, {}) for port in spec.task.ports) if spec else (),
    )


def release_row(release: Release) -> ReleaseRow:
    return ReleaseRow(
        stack=release.stack,
        number=release.number,
        state=release.state,
        reason=release.reason,
        created_at=release.created_at,
    )


def task_row(cluster: Mirror, task: Task, *, now: float) -> TaskRow:
    spec = task_spec(cluster, task)
    run = task.status.run
    node = cluster.nodes.get(task.node) if task.node else None
    return TaskRow(
        id=task.id,
        name=task.name,
        service=task.service,
        image=spec.image if spec else "",
        command=" ".join((*(spec.entrypoint or ()), *(spec.command or ()))) if spec else "",
        node=node.name if node else (task.node or ""),
        state=task.state.value,
        ready=is_ready(cluster, task),
        health=task.status.health.value,
        status=unheard_text(cluster, task) or status_text(task, now=now),
        exit_code=run.exit_code if run else None,
        restarts=task.status.restarts,
        created_at=task.created_at,
        started_at=run.started_at if run else None,
        ports=tuple(port_text(port, task.host_ports) for port in spec.ports) if spec else (),
        addresses=tuple(task.addresses[network] for network in sorted(task.addresses)),
        release=task.release,
    )


def shown_tasks(tasks: Iterable[Task], *, every: bool) -> list[Task]:
    """Return the tasks ``ps`` lists, in order: those that have not ended, or with ``every`` all."""
    ordered = sorted(tasks, key=lambda task: (task.service, task.slot, task.created_at, task.id))
    if every:
        return ordered
    return [task for task in ordered if task.state not in FINAL]


def status_text(task: Task, *, now: float) -> str:
    """Return the task's state for people, with how long and why."""
    status, run = task.status, task.status.run
    reason = f": {status.reason}" if status.reason else ""
    if task.state in FINAL:
        when = f" {ago(now - run.finished_at)} ago" if run and run.finished_at else ""
        code = f" ({run.exit_code})" if run and run.exit_code is not None else ""
        return f"{task.state.value}{code}{when}{reason}"
    if task.desired in (Desired.SHUTDOWN, Desired.REMOVED):
        return "stopping"
    if task.state in (S.NEW, S.PENDING, S.PREPARED):
        waits = task.pending_reason or status.reason
        return f"{task.state.value}: {waits}" if waits else task.state.value
    if task.state is not S.RUNNING:
        return f"{task.state.value}{reason}"
    if run is None or run.finished_at is not None or run.started_at is None:
        return f"restarting{reason}"
    health = "" if status.health is Health.NONE else f" ({status.health.value})"
    unready = (
        f", not ready: {status.ready_reason}" if not status.ready and status.ready_reason else ""
    )
    return f"running {ago(now - run.started_at)}{health}{unready}"


def ago(seconds: float) -> str:
    """Return a duration in its largest unit: 12 s, 2 min, 3 h, 4 days."""
    whole = max(0, int(seconds))
    for unit, size, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 172800)):
        if whole < limit:
            return f"{whole // size} {unit}"
    return f"{whole // 86400} days"


def port_text(port: Port, chosen: Mapping[str, int]) -> str:
    """Return a port as Docker shows it: ``0.0.0.0:8080->80/tcp``, or ``80/tcp``."""
    inside = f"{port.target}/{port.protocol}"
    published = port.published or chosen.get(inside)
    if published is None:
        return inside
    host = port.host_ip or "0.0.0.0"
    return f"{f'[{host}]' if ':' in host else host}:{published}->{inside}"


def node_row(cluster: Mirror, node: Node) -> NodeRow:
    return NodeRow.model_validate(_node_fields(cluster, node))


def node_detail(cluster: Mirror, node: Node) -> NodeDetail:
    return NodeDetail(
        **_node_fields(cluster, node),
        facts=node.facts,
        underlay=node.underlay,
        overlay=node.overlay,
        joined_at=node.joined_at,
    )


def _node_fields(cluster: Mirror, node: Node) -> dict[str, Any]:
    condition = cluster.conditions.get(node.id)
    return {
        "id": node.id,
        "name": node.name,
        "status": condition.status if condition else "unknown",
        "reason": condition.reason if condition else "not heard from yet",
        "availability": "removing" if node.removing else node.availability,
        "address": node.address,
        "labels": node.labels,
        "tasks": sum(
            task.node == node.id and task.state not in FINAL for task in cluster.tasks.values()
        ),
        "cpus": node.facts.cpus,
        "memory": node.facts.memory,
        "version": node.facts.agent_version,
        "warnings": (*node.facts.missing, *node.facts.warnings),
    }


def spec_of(cluster: Mirror, release: Release | None) -> StackSpec | None:
    return cluster.parts.get(release.spec) if release else None


def task_spec(cluster: Mirror, task: Task) -> TaskSpec | None:
    """Return what the task was made from; None when its release is not kept any more."""
    spec = spec_of(cluster, cluster.releases.get((task.stack, task.release)))
    service = spec.services.get(task.service) if spec else None
    return service.task if service else None
