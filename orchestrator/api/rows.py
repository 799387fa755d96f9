"""From records to the rows people read. Pure: mirror and time in, rows out.

The API's handlers call this; the CLI prints what comes out. Decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.control.mirror import times
from orchestrator.control.mirror.released import spec_in_force, task_spec
from orchestrator.control.mirror.serving import beside, is_ready, queued, serving
from orchestrator.control.telling.words import (
    failed_words,
    is_complete,
    job_words,
    node_words,
    service_counts,
    stack_status,
    tied,
    words_of,
)
from specs.api import NodeDetail, NodeRow, ServiceRow, StackDetail, StackRow, TaskRow
from specs.kit import masking, versions
from specs.states import FINAL, WANTED, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.contracts import Mirror
    from specs.api import Stack
    from specs.node import Node
    from specs.oneoff import OneOff
    from specs.stack import Port, StackSpec, TaskSpec
    from specs.task import Task

S = TaskState


def stack_row(cluster: Mirror, stack: Stack) -> StackRow:
    detail, failed = stack_detail(cluster, stack), ""
    if detail.status == "degraded":
        failed = failed_words(cluster, stack, cluster.tasks_of(stack.name))
    return StackRow(
        name=stack.name,
        status=detail.status,
        release=stack.release,
        services=len(detail.services),
        tasks=detail.tasks,
        reason=detail.reason or failed,
        orphans=tuple(row.name for row in detail.services if row.carried == "orphan"),
        containers=container_counts(cluster, cluster.tasks_of(stack.name)),
        config_files=stack.config_files,
    )


def container_counts(cluster: Mirror, tasks: Iterable[Task]) -> dict[str, int]:
    """Return Docker's word for a state -> how many names' containers are in it.

    A name has one container, as ``corral ps`` shows them (orchestrator.cli.show.containers).
    """
    best: dict[str, Task] = {}
    for task in tasks:
        known = best.setdefault(task.name, task)
        if _stays(cluster, task) > _stays(cluster, known):
            best[task.name] = task
    found: dict[str, int] = {}
    for task in best.values():
        word = container_state(task)
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))


def _stays(cluster: Mirror, task: Task) -> tuple[bool, bool, bool, float, str]:
    live = task.state not in FINAL
    stays = live and task.desired in WANTED and not task.leaving
    return stays and is_ready(cluster, task), stays, live, task.created_at, task.id


def container_state(task: Task) -> str:
    """Return created, running, paused, restarting or exited."""
    run = task.status.run
    if task.state in FINAL:
        return "exited"
    if task.status.paused:
        return "paused"
    begun = run is not None and bool(run.started_at)
    if run is not None and begun and run.finished_at is None and run.exit_code is None:
        return "running"
    return "restarting" if begun else "created"


def stack_detail(cluster: Mirror, stack: Stack) -> StackDetail:
    release = cluster.releases.get((stack.name, stack.release))
    tasks = list(cluster.tasks_of(stack.name))
    services = service_rows(cluster, stack, tasks)
    ready = sum(min(row.ready, row.replicas) for row in services)
    wanted = sum(row.replicas for row in services)
    return StackDetail(
        name=stack.name,
        status=stack_status(stack, release, complete=is_complete(cluster, stack, tasks)),
        release=stack.release,
        running=stack.running,
        tasks=f"{ready}/{wanted}",
        reason=release.reason if release else "",
        services=services,
    )


def service_rows(cluster: Mirror, stack: Stack, tasks: list[Task]) -> tuple[ServiceRow, ...]:
    """Return the stack's services; where no spec is kept, what the tasks tell of them."""
    spec = spec_in_force(cluster, stack)
    counts = service_counts(cluster, stack, tasks)
    rows = []
    for name in counts or sorted({task.service for task in tasks}):
        mine = [task for task in tasks if task.service == name]
        live = sum(task.live for task in mine)
        serve, wanted = counts.get(name, (serving(cluster, mine), live))
        service = spec.services.get(name) if spec else None
        rows.append(
            ServiceRow(
                name=name,
                image=service.task.image if service else "",
                mode=service.mode if service else "replicated",
                replicas=wanted,
                tasks=live,
                ready=serve,
                queued=queued(stack, service, mine) if service else 0,
                scaled=name in stack.overrides,
                carried=_carried(spec, name),
                ports=tuple(port_text(p, {}) for p in service.task.ports) if service else (),
                labels=masking.environment(service.labels) if service else {},
            )
        )
    return tuple(rows)


def _carried(spec: StackSpec | None, service: str) -> str:
    carried = spec.carried.get(service) if spec is not None else None
    return carried.why if carried is not None else ""


def oneoff_row(cluster: Mirror, one: OneOff, *, now: float) -> TaskRow:
    row = task_row(cluster, one.task, now=now, spec=one.service.task)
    return row.model_copy(update={"oneoff": True, "carried": "", "tied": ""})


def shown_oneoffs(cluster: Mirror, stack: str) -> list[OneOff]:
    """Return the one-offs ``ps -a`` lists, in order."""
    mine = (one for one in cluster.oneoffs.values() if one.stack == stack and one.shown)
    return sorted(mine, key=lambda one: (one.task.service, one.task.created_at, one.id))


def task_row(cluster: Mirror, task: Task, *, now: float, spec: TaskSpec | None = None) -> TaskRow:
    spec = spec or task_spec(cluster, task)
    words = words_of(cluster, task, now + times.ahead(cluster.conditions, task.node))
    run = task.status.run
    in_force = spec_in_force(cluster, cluster.stacks.get(task.stack))
    service = in_force.services.get(task.service) if in_force else None
    node = cluster.nodes.get(task.node) if task.node else None
    return TaskRow(
        id=task.id,
        name=task.name,
        service=task.service,
        image=spec.image if spec else "",
        command=_command(spec, task) if spec else "",
        image_digest=task.status.image_digest,
        node=node.name if node else (task.node or ""),
        state=task.state.value,
        ready=is_ready(cluster, task),
        health=task.status.health.value,
        status=words.text,
        exit_code=run.exit_code if run else None,
        restarts=task.status.restarts,
        created_at=task.created_at,
        started_at=run.started_at if run else None,
        finished_at=run.finished_at if run else None,
        ports=tuple(port_text(port, task.host_ports) for port in spec.ports) if spec else (),
        addresses=tuple(task.addresses[network] for network in sorted(task.addresses)),
        release=task.release,
        stopping=words.stopping,
        tied=tied(cluster, task, drained=True),
        node_status=words.node_status,
        reason=words.reason,
        misplaced=task.misplaced,
        carried=_carried(in_force, task.service),
        service_labels=masking.environment(service.labels) if service else {},
        slot=task.slot,
        beside=beside(cluster, task),
        paused=task.status.paused,
        labels=masking.environment(spec.labels) if spec else {},
        networks=tuple(sorted(cluster.network_name(each) for each in task.addresses)),
        network_ids=tuple(sorted(task.addresses)),
        mounts=tuple(mount.source for mount in spec.mounts if mount.source) if spec else (),
    )


def _command(spec: TaskSpec, task: Task) -> str:
    """Return what its container runs; the image's part is known once its node has the image."""
    words = task.status.command or (*(spec.entrypoint or ()), *(spec.command or ()))
    return " ".join(masking.words(words))


def shown_tasks(tasks: Iterable[Task], *, every: bool) -> list[Task]:
    """Return the tasks ``ps`` lists, in order: those that have not ended, or with ``every`` all."""
    ordered = sorted(tasks, key=lambda task: (task.service, task.slot, task.created_at, task.id))
    if every:
        return ordered
    return [task for task in ordered if task.state not in FINAL]


_BROKEN = frozenset({S.FAILED, S.REJECTED, S.ORPHANED})


def missing(cluster: Mirror, stack: Stack, tasks: Iterable[Task], now: float) -> tuple[str, ...]:
    """Return what ``ps`` tells of replicas that ended and have none in their place.

    It lists what is there, as Compose does; a service that misses replicas is told of all the
    same, and how far a job is. What completed, was stopped, or is not wanted is missed by nobody.
    """
    if stack.desired != "up":
        return ()
    mine = list(tasks)
    counts = service_counts(cluster, stack, mine)
    slots: dict[tuple[str, int], list[Task]] = {}
    for task in mine:
        slots.setdefault((task.service, task.slot), []).append(task)
    found = []
    for (service, slot), replicas in sorted(slots.items()):
        last = max(replicas, key=lambda task: (task.state not in FINAL, task.created_at, task.id))
        spec = spec_in_force(cluster, stack)
        known = spec.services.get(service) if spec is not None else None
        _, wanted = counts.get(service, (0, 0))
        if known is None or (not known.per_node and slot > wanted) or not wanted:
            continue
        if last.state in _BROKEN and last.desired in WANTED:
            text = words_of(cluster, last, now).text
            help_ = f"corral start {service} starts it again, ps -a shows it"
            found.append(f"{last.name} is missing: {text} ({help_})")
    return (*job_words(cluster, stack, mine), *found)


def port_text(port: Port, chosen: Mapping[str, int]) -> str:
    """Return a port as Docker shows it: ``0.0.0.0:8080->80/tcp``, or ``80/tcp``."""
    inside = f"{port.target}/{port.protocol}"
    published = port.published or chosen.get(inside)
    if published is None:
        return inside
    host = port.host_ip or "0.0.0.0"
    return f"{f'[{host}]' if ':' in host else host}:{published}->{inside}"


def node_row(cluster: Mirror, node: Node, *, now: float) -> NodeRow:
    return NodeRow.model_validate(_node_fields(cluster, node, now))


def node_detail(cluster: Mirror, node: Node, *, now: float) -> NodeDetail:
    return NodeDetail(
        **_node_fields(cluster, node, now),
        facts=node.facts,
        underlay=node.underlay,
        overlay=node.overlay,
        joined_at=node.joined_at,
        mtu=node.mtu,
    )


def _node_fields(cluster: Mirror, node: Node, now: float) -> dict[str, Any]:
    condition = cluster.conditions.get(node.id)
    return {
        "id": node.id,
        "name": node.name,
        "status": condition.status if condition else "unknown",
        "reason": node_words(cluster, node, now),
        "availability": "removing" if node.removing else node.availability,
        "address": node.address,
        "labels": node.labels,
        "tasks": sum(task.state not in FINAL for task in cluster.tasks_on(node.id)),
        "cpus": node.facts.cpus,
        "memory": node.facts.memory,
        "version": node.facts.agent_version,
        "age": versions.age(node.facts.agent_version, versions.installed())
        if node.facts.agent_version
        else "",
        "warnings": (
            *(f"cannot read {what}" for what in node.facts.unread),
            *filter(None, [node.facts.cramped]),
            *filter(None, [times.words(times.ahead(cluster.conditions, node.id))]),
            *node.facts.missing,
            *node.facts.warnings,
        ),
    }
