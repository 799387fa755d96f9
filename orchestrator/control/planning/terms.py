"""Records and observations in the scheduler's terms: a service's tasks, and what is wanted.

``services`` makes these for every service it plans, ``frozen`` for what is kept as it is;
``scheduler`` decides about them. Pure: reads the draft, writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import availability
from orchestrator.control.mirror.serving import global_slots, is_ready, wanted_count
from orchestrator.control.planning import binds
from orchestrator.control.planning.placement import homes
from scheduler.reconcile import WantedService
from scheduler.replicas import Replica
from specs.node import NodeCondition
from specs.stack import TaskSpec
from specs.states import FINAL, HEARD, Health, TaskState

if TYPE_CHECKING:
    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack
    from specs.task import Task


def wanted_service(
    pass_: Pass, stack: Stack, effective: Effective, tasks: list[Task]
) -> WantedService:
    """Return what the service should be: its slots, and where they are bound to a node."""
    service = effective.service
    nodes: dict[int, str] = {}
    if service.mode == "global":
        nodes = global_slots(pass_.cluster, service, tasks)
        slots = dict.fromkeys(nodes, effective.hash)
    else:
        slots = dict.fromkeys(
            range(1, wanted_count(pass_.cluster, stack, service, tasks) + 1), effective.hash
        )
    return WantedService(
        slots,
        service.task.restart,
        nodes,
        effective.exclusive,
        asked=stack.asked.get(service.name, 0),
        asked_again=stack.asked_again.get(service.name, 0),
    )


def replica(
    pass_: Pass, task: Task, effective: Effective | None, *, displaced: bool = False
) -> Replica:
    """Return a task in the scheduler's terms; ``displaced``: see misplaced."""
    mark = pass_.observed.mark(task.id)
    status = pass_.node_status(task.node)
    record = pass_.cluster.nodes.get(task.node) if task.node is not None else None
    evicted = record is not None and availability(record) == "drain"
    tied = effective is not None and (
        effective.service.mode == "global"
        or bool(homes(pass_, effective, task.slot))
        # Asked of nodes, so only where it matters.
        or ((evicted or status == "down") and binds.tied(pass_, effective))
    )
    gone = task.node is not None and record is None
    spec = effective.service.task if effective is not None else TaskSpec(image="")
    lived = pass_.now - mark.ready_since if mark.ready_since is not None else mark.lived
    condition = pass_.cluster.conditions.get(task.node or "", NodeCondition())
    lost = status == "down" and not (gone or tied) and spec.on_reboot != "keep"
    return Replica(
        id=task.id,
        slot=task.slot,
        spec_hash=task.spec_hash,
        node=task.node,
        release=task.release,
        state=TaskState.ORPHANED if gone and task.state not in FINAL else task.state,
        desired=task.desired,
        ready=is_ready(pass_.cluster, task),
        leaving=task.leaving,
        lost=lost,
        awaited=lost and (pass_.brake or condition.returning),
        evicted=evicted and not tied,
        displaced=displaced,
        unheard=status not in HEARD,
        returned_at=condition.returned_at,
        created_at=task.created_at,
        ready_since=mark.ready_since,
        ended_at=mark.ended_at,
        was_ready=mark.was_ready,
        has_run=any(r.started_at is not None for r in task.status.runs)
        or task.state in (TaskState.RUNNING, TaskState.COMPLETE),
        checked=task.status.health is not Health.NONE,
        unhealthy=task.status.health is Health.UNHEALTHY,
        pending_since=mark.pending_since,
        lived=lived,
        restarts=task.status.restarts,
        restarting=task.live and task.status.restart_done < task.restart_asked,
        attempt=task.attempt,
        asked=task.asked,
        cut_off=spec.on_reboot if task.cut_off else "",
        sick_since=None if spec.restarts_unhealthy else mark.sick_since,
    )
