"""How many of a service's tasks serve, and how many should: the one count of both.

Traffic, ``ps``, the progress of ``up`` and the verdict on a release all ask here, so
none of them can call a service complete that another one still waits for. Pure.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import availability, node_status, node_view
from scheduler import constraints
from specs.bounds import MOST_TASKS
from specs.stack import Condition
from specs.states import FINAL, Desired, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from orchestrator.contracts import Mirror
    from specs.api import Stack, Standby
    from specs.node import Node
    from specs.stack import Canary, ServiceSpec
    from specs.task import Task

GOING = frozenset({Desired.SHUTDOWN, Desired.REMOVED})
SHOWN = frozenset({TaskState.STARTING, TaskState.RUNNING})  # as endpoints


def is_ready(cluster: Mirror, task: Task) -> bool:
    """Say whether the task answers: what a node that is down said last does not count."""
    return task.status.ready and node_status(cluster, task.node) != "down"


def answers(cluster: Mirror, task: Task, *, doubting: bool) -> bool:
    """Say whether a node is told that the task answers; ``doubting``: it was doubted itself.

    Who fell silent with most others was hardly gone, the controller was. Of them one that is met
    again is told what was known before: what it cannot reach it finds out itself. One that was
    heard all the time is told of those that are met again.
    """
    if is_ready(cluster, task) or not task.status.ready:
        return task.status.ready
    found = cluster.conditions.get(task.node or "")
    return found is not None and found.doubted and (doubting or found.returning)


def comes_back(cluster: Mirror, task: Task) -> bool:
    """Say whether the task answers on a node that only has to stay for a while to count again."""
    found = cluster.conditions.get(task.node or "")
    return found is not None and found.returning and task.status.ready


def stands_by(cluster: Mirror, task: Task) -> bool:
    """Say whether the task runs without traffic, beside those that have it: see blue-green."""
    return _standby_of(cluster, task) is not None


def was_replaced(cluster: Mirror, task: Task) -> bool:
    """Say whether the task stands by and had its traffic before: it is kept to go back to."""
    standby = _standby_of(cluster, task)
    return standby is not None and standby.since > 0


def _standby_of(cluster: Mirror, task: Task) -> Standby | None:
    """Return the record by which the task stands by, None where it does not."""
    stack = cluster.stacks.get(task.stack)
    standby = stack.standby.get(task.service) if stack is not None else None
    return standby if standby is not None and task.spec_hash in standby.hashes else None


def beside(cluster: Mirror, task: Task) -> str:
    """Return what a task is that runs beside another of its name; "": nothing of the kind."""
    if task.state in FINAL or is_leaving(task):
        return ""
    if stands_by(cluster, task):
        return "stands by"
    return "canary" if task.turn == "beside" and _canary_of(cluster, task) is not None else ""


def canary_share(cluster: Mirror, task: Task) -> int:
    """Return the percent of connections that canaries get which this task is one of; 0: none."""
    canary = _canary_of(cluster, task)
    return canary.weight if canary is not None else 0


def _canary_of(cluster: Mirror, task: Task) -> Canary | None:
    """Return the canary that the task's release still tries; the task is one if made beside."""
    stack = cluster.stacks.get(task.stack)
    release = cluster.releases.get((task.stack, stack.release)) if stack is not None else None
    if release is None or task.release != release.number or task.service in release.promoted:
        return None
    spec = cluster.parts.get(release.spec)
    service = spec.services.get(task.service) if spec is not None else None
    canary = service.update.canary if service is not None else None
    stands = release.state in (ReleaseState.DEPLOYING, ReleaseState.FAILED)
    return canary if stands else None


def is_leaving(task: Task) -> bool:
    """Say whether the task was asked to go; it may still be there.

    One that had completed when `stop` came to it stays what it is.
    """
    if task.state is TaskState.COMPLETE and task.desired is Desired.SHUTDOWN:
        return False
    return task.leaving or task.desired in GOING


def meets(condition: Condition, task: Task) -> bool:
    """Say whether the task is as somebody's dependency on it asks."""
    run = task.status.run
    match condition:
        case Condition.COMPLETED:
            return task.state is TaskState.COMPLETE
        case Condition.HEALTHY:
            return task.status.ready or task.state is TaskState.COMPLETE
        case Condition.STARTED:
            return (
                run is not None
                and run.started_at is not None
                and (task.state not in FINAL or task.state is TaskState.COMPLETE)
            )


def serves(cluster: Mirror, task: Task) -> bool:
    """Say whether the task does what its slot is for: it is ready, or a one-off that completed.

    One that was asked to go does not count any more, however ready it is.
    """
    if is_leaving(task):
        return False
    return task.state is TaskState.COMPLETE or (task.live and is_ready(cluster, task))


def serving(cluster: Mirror, tasks: Iterable[Task]) -> int:
    """Return how many slots of one service have a task that serves.

    Slots and not tasks: while a task is replaced, two of them serve one slot.
    """
    return len({task.slot for task in tasks if serves(cluster, task)})


def wanted_count(cluster: Mirror, stack: Stack, service: ServiceSpec, tasks: Iterable[Task]) -> int:
    """Return how many tasks a service should have while its stack is up.

    ``tasks`` are the service's present ones: a global service keeps its place on a node that
    is silent or paused, but does not take one there.
    """
    if service.name in stack.stopped_services:
        return 0
    if not service.per_node:
        return copies(stack, service)
    return len(global_nodes(cluster, service, list(tasks)))


def copies(stack: Stack, service: ServiceSpec) -> int:
    """Return how many slots a service has that is not global: by its file, or scaled.

    A release that an earlier version took must not keep a pass busy for ever either.
    """
    if service.schedule is not None:
        return 0  # whatever it was scaled to before it had one
    return min(stack.overrides.get(service.name, service.replicas), MOST_TASKS)


def queued(stack: Stack, service: ServiceSpec, tasks: Iterable[Task]) -> int:
    """Return how many slots of a job have no task yet because as many run as may at a time."""
    if service.max_concurrent is None:
        return 0
    mine = [task for task in tasks if task.desired is not Desired.REMOVED]
    busy = {task.slot for task in mine if task.state not in FINAL}
    if len(busy) < service.max_concurrent:
        return 0
    begun = {task.slot for task in mine}
    return sum(slot not in begun for slot in range(1, copies(stack, service) + 1))


def global_nodes(cluster: Mirror, service: ServiceSpec, tasks: Collection[Task]) -> set[str]:
    """Return the nodes a global service belongs on; ``tasks`` are its present ones.

    Where a job has completed it has: a node that is drained then, and used again, runs it no more.
    """
    used = {task.node for task in tasks}
    done = _done(tasks) if service.is_job else frozenset()
    return {
        node.id
        for node in cluster.nodes.values()
        if node.id in done or _belongs(cluster, service, node, has_task=node.id in used)
    }


def _done(tasks: Iterable[Task]) -> frozenset[str | None]:
    return frozenset(
        task.node
        for task in tasks
        if task.state is TaskState.COMPLETE and task.desired is not Desired.REMOVED
    )


def global_slots(cluster: Mirror, service: ServiceSpec, tasks: Collection[Task]) -> dict[int, str]:
    """Return slot -> node for a global service: nodes keep the slot their task has."""
    eligible = global_nodes(cluster, service, tasks)
    slots: dict[int, str] = {}
    placed: set[str] = set()
    for task in sorted(tasks, key=lambda t: (t.created_at, t.id)):
        if task.node in eligible and task.node not in placed and task.slot not in slots:
            slots[task.slot] = task.node
            placed.add(task.node)
    # A number is given again once what had it on another node is gone.
    used = {task.slot for task in tasks if task.node is not None and task.state not in FINAL}
    free = (n for n in itertools.count(1) if n not in slots and n not in used)
    for node in sorted(eligible - placed):
        slots[next(free)] = node
    return slots


def _belongs(cluster: Mirror, service: ServiceSpec, node: Node, *, has_task: bool) -> bool:
    takes = availability(node)
    if takes == "drain":
        return False
    if not has_task and (takes == "pause" or node_status(cluster, node.id) != "ready"):
        return False
    asked = service.placement.constraints
    if not asked:
        return True  # a view costs more than the answer
    return constraints.broken(asked, node_view(cluster, node)) is None
