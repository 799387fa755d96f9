"""Rows for the API: records shaped for people, pure functions of the mirror.

``orchestrator.api`` and progress.py call these; they never wait and never write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.api import (
    NodeDetail,
    NodeRow,
    Problem,
    Release,
    ReleaseRow,
    ReleaseState,
    ServiceRow,
    StackDetail,
    StackRow,
    TaskRow,
)
from specs.node import NodeCondition
from specs.task import FINAL, Desired, Health, Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.state import Cluster
    from specs.api import Stack
    from specs.node import Node
    from specs.stack import Port, ServiceSpec, StackSpec
    from specs.task import Run


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
    condition = cluster.conditions.get(task.node or "")
    if condition is not None and condition.status != "ready":
        return _unheard_text(cluster, task, condition)
    if task.leaving or task.desired in (Desired.SHUTDOWN, Desired.REMOVED):
        return "stopping"
    if task.state is TaskState.RUNNING:
        return _running_text(task, now, times=times)
    word = "pending" if task.state is TaskState.NEW else task.state.value
    reason = task.pending_reason or task.status.reason
    return f"{word}: {reason}" if reason else word


def _unheard_text(cluster: Cluster, task: Task, condition: NodeCondition) -> str:
    node = cluster.nodes[task.node or ""].name
    text = f"{condition.status}: node {node} {_node_words(condition)}"
    tied = _tied(cluster, task)
    return f"{text}; waits for it because {tied} is there" if tied else text


def _node_words(condition: NodeCondition) -> str:
    return condition.reason or "does not answer"


def _running_text(task: Task, now: float, *, times: bool) -> str:
    run = task.status.run
    if run is not None and run.finished_at is not None:
        words = f"restarting: {exit_words(run)}"
        return f"{words}, {task.status.restarts} restarts" if task.status.restarts else words
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


def _tied(cluster: Cluster, task: Task) -> str:
    """Return what ties the task to its node: a volume's name, or ""."""
    release = cluster.releases.get((task.stack, task.release))
    spec = cluster.spec_of(release) if release is not None else None
    service = spec.services.get(task.service) if spec is not None else None
    if spec is None or service is None:
        return ""
    for mount in service.task.mounts:
        if mount.type == "volume" and mount.source is not None:
            volume = spec.volumes.get(mount.source)
            return f"volume {volume.name if volume is not None else mount.source}"
    return ""


def _service_of(cluster: Cluster, task: Task) -> ServiceSpec | None:
    release = cluster.releases.get((task.stack, task.release))
    spec = cluster.spec_of(release) if release is not None else None
    return spec.services.get(task.service) if spec is not None else None


def port_texts(ports: Iterable[Port], chosen: dict[str, int] | None = None) -> tuple[str, ...]:
    """Return ports as docker ps writes them: ``0.0.0.0:8080->80/tcp``."""
    texts = []
    for port in ports:
        number = port.published or (chosen or {}).get(f"{port.target}/{port.protocol}")
        if number is None:
            texts.append(f"{port.target}/{port.protocol}")
        else:
            texts.append(f"{port.host_ip or '0.0.0.0'}:{number}->{port.target}/{port.protocol}")
    return tuple(texts)


def task_row(cluster: Cluster, task: Task, now: float) -> TaskRow:
    """Return one line of ``corral ps``."""
    service = _service_of(cluster, task)
    node = cluster.nodes.get(task.node or "")
    run = task.status.run
    spec = service.task if service is not None else None
    return TaskRow(
        id=task.id,
        name=task.name,
        service=task.service,
        image=spec.image if spec is not None else "",
        command=" ".join(spec.command or ()) if spec is not None else "",
        node=node.name if node is not None else (task.node or ""),
        state=task.state.value,
        ready=task.status.ready,
        health=task.status.health.value,
        status=status_text(cluster, task, now),
        exit_code=run.exit_code if run is not None and run.finished_at is not None else None,
        restarts=task.status.restarts,
        created_at=task.created_at,
        started_at=run.started_at if run is not None else None,
        ports=port_texts(spec.ports, task.host_ports) if spec is not None else (),
        addresses=tuple(task.addresses.values()),
        release=task.release,
    )


def shown_tasks(cluster: Cluster, stack: str, *, everything: bool = False) -> list[Task]:
    """Return the tasks ``corral ps`` lists: those that count, with ``everything`` all."""
    tasks = list(cluster.by_stack.get(stack, {}).values())
    if not everything:
        tasks = [t for t in tasks if t.state not in FINAL]
    return sorted(tasks, key=lambda t: (t.service, t.slot, t.created_at, t.id))


def _spec(cluster: Cluster, stack: Stack) -> StackSpec | None:
    for number in (stack.release, stack.running):
        release = cluster.releases.get((stack.name, number))
        if release is not None:
            return cluster.spec_of(release)
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


def _good(task: Task) -> bool:
    return (task.live and task.status.ready) or (
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
        if task.service in slots and _good(task):
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


def stack_status(cluster: Cluster, stack: Stack) -> tuple[str, str]:
    """Return a word and a reason for a stack."""
    if stack.desired == "removed":
        return "removing", ""
    tasks = cluster.by_stack.get(stack.name, {}).values()
    if stack.desired == "stopped":
        return ("stopping" if any(t.state not in FINAL for t in tasks) else "stopped"), ""
    release = cluster.releases.get((stack.name, stack.release))
    if release is None:
        return "unknown", ""
    if release.state in (ReleaseState.PENDING, ReleaseState.DEPLOYING, ReleaseState.FAILED):
        return release.state.value, release.reason
    counts = service_counts(cluster, stack.name)
    short = [f"{s} {r}/{w}" for s, (r, w) in counts.items() if r < w]
    if short:
        return "degraded", ", ".join(short)
    return (
        ("rolled back", release.reason)
        if release.state is ReleaseState.ROLLED_BACK
        else (
            "running",
            "",
        )
    )


def stack_row(cluster: Cluster, stack: Stack) -> StackRow:
    """Return one line of ``corral ls``."""
    status, reason = stack_status(cluster, stack)
    counts = service_counts(cluster, stack.name)
    return StackRow(
        name=stack.name,
        status=status,
        release=stack.release,
        services=len(counts),
        tasks=f"{sum(r for r, _ in counts.values())}/{sum(w for _, w in counts.values())}",
        reason=reason,
    )


def stack_detail(cluster: Cluster, stack: Stack) -> StackDetail:
    """Return a stack with a row for each service."""
    row = stack_row(cluster, stack)
    spec = _spec(cluster, stack)
    counts = service_counts(cluster, stack.name)
    live: dict[str, int] = {}
    for task in cluster.by_stack.get(stack.name, {}).values():
        if task.live:
            live[task.service] = live.get(task.service, 0) + 1
    services = tuple(
        ServiceRow(
            name=name,
            image=service.task.image,
            mode=service.mode,
            replicas=counts[name][1],
            tasks=live.get(name, 0),
            ready=counts[name][0],
            scaled=name in stack.overrides,
            ports=port_texts(service.task.ports),
        )
        for name, service in sorted((spec.services if spec is not None else {}).items())
    )
    return StackDetail(
        name=row.name,
        status=row.status,
        release=row.release,
        running=stack.running,
        tasks=row.tasks,
        reason=row.reason,
        services=services,
    )


def release_row(release: Release, warnings: tuple[Problem, ...] = ()) -> ReleaseRow:
    """Return one line of a stack's releases."""
    return ReleaseRow(
        stack=release.stack,
        number=release.number,
        state=release.state,
        reason=release.reason,
        created_at=release.created_at,
        warnings=warnings,
    )


def node_row(cluster: Cluster, node: Node) -> NodeRow:
    """Return one line of ``corral node ls``."""
    return NodeRow(**_node_fields(cluster, node))


def node_detail(cluster: Cluster, node: Node) -> NodeDetail:
    """Return a node with what its agent found out about the machine."""
    return NodeDetail(
        **_node_fields(cluster, node),
        facts=node.facts,
        underlay=node.underlay,
        overlay=node.overlay,
        joined_at=node.joined_at,
    )


def _node_fields(cluster: Cluster, node: Node) -> dict[str, object]:
    condition = cluster.conditions.get(node.id, NodeCondition())
    tasks = cluster.by_node.get(node.id, {}).values()
    return {
        "id": node.id,
        "name": node.name,
        "status": condition.status,
        "reason": condition.reason,
        "availability": node.availability,
        "address": node.address,
        "labels": node.labels,
        "tasks": sum(1 for t in tasks if t.state not in FINAL),
        "cpus": node.facts.cpus,
        "memory": node.facts.memory,
        "version": node.facts.agent_version,
        "warnings": (*node.facts.missing, *node.facts.warnings),
    }
