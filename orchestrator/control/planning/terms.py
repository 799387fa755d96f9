"""Records and observations in the scheduler's terms: a service's tasks, and what is wanted.

``services`` makes these for every service it plans, ``frozen`` for what is kept as it is;
``scheduler`` decides about them. Pure: reads the draft, writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.serving import global_slots, wanted_count
from orchestrator.control.planning import binds
from orchestrator.control.planning.placement import homes
from scheduler.reconcile import WantedService
from scheduler.replicas import Replica
from specs.stack import TaskSpec
from specs.states import FINAL, HEARD, Health, TaskState

if TYPE_CHECKING:
    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.mirror.observed import TaskMark
    from orchestrator.control.planning.passes import Pass, Whereabouts
    from specs.api import Stack
    from specs.task import Task

NO_SPEC = TaskSpec(image="")


def wanted_service(
    pass_: Pass, stack: Stack, effective: Effective, tasks: list[Task]
) -> WantedService:
    """Return what the service should be: its slots, and where they are bound to a node."""
    service = effective.service
    nodes: dict[int, str] = {}
    if service.per_node:
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
        at_once=service.max_concurrent,
    )


def replica(
    pass_: Pass, task: Task, effective: Effective | None, *, displaced: bool = False
) -> Replica:
    """Return a task in the scheduler's terms; ``displaced``: see misplaced.

    Kept in the task's mark: as long as neither the task nor its node moves it is the same.
    """
    mark = pass_.observed.mark(task.id)
    place = pass_.place(task.node)
    key = (place, pass_.brake, displaced)
    known = mark.seen
    if known is not None and known[0] is task and known[1] is effective and known[2] == key:
        return known[3]
    made = _replica(pass_, task, effective, mark, place, displaced=displaced)
    # How long a task lived grows by itself while it counts as ready; it is asked after its end,
    # or after a restart. What ties it to its node is more than is compared here.
    grows = mark.ready_since is not None and (task.status.restarts or task.state in FINAL)
    if not grows and not place.leaves and not task.status.crowded:
        mark.seen = (task, effective, key, made)
    return made


def must_leave(pass_: Pass, task: Task) -> str:
    """Return why a task is to leave its node, which works: "" where it need not."""
    place, view = pass_.place(task.node), pass_.view(task.node)
    name = view.name if view is not None else task.node
    if place.draining:
        return f"{name} is to be empty"
    return f"nothing more fits on {name}" if _crowded(task, place) else ""


def _crowded(task: Task, place: Whereabouts) -> bool:
    """Say whether it cannot be made where it is, since nothing more fits there."""
    return task.status.crowded and place.status in HEARD and not task.status.runs


def _tied(pass_: Pass, task: Task, effective: Effective | None) -> bool:
    """Say whether the task stays with its node whatever becomes of that."""
    return effective is not None and (
        bool(effective.task.partner)  # it goes when that goes, see pairs
        or at_home(pass_, task, effective)
    )


def at_home(pass_: Pass, task: Task, effective: Effective) -> bool:
    """Say whether the task can run on one node only: its data is there, or it is that node's."""
    return (
        effective.service.per_node
        or bool(homes(pass_, effective, task.slot))
        or binds.tied(pass_, effective)
    )


def _replica(
    pass_: Pass,
    task: Task,
    effective: Effective | None,
    mark: TaskMark,
    place: Whereabouts,
    *,
    displaced: bool,
) -> Replica:
    status = place.status
    crowded = _crowded(task, place)
    stays = (place.leaves or crowded) and _tied(pass_, task, effective)
    spec = effective.service.task if effective is not None else NO_SPEC
    lived = pass_.now - mark.ready_since if mark.ready_since is not None else mark.lived
    lost = status == "down" and not (place.gone or stays) and spec.on_reboot != "keep"
    return Replica(
        id=task.id,
        slot=task.slot,
        spec_hash=task.spec_hash,
        node=task.node,
        release=task.release,
        state=TaskState.ORPHANED if place.gone and task.state not in FINAL else task.state,
        desired=task.desired,
        ready=task.status.ready and status != "down",
        leaving=task.leaving,
        lost=lost,
        awaited=lost and (pass_.brake or place.returning),
        evicted=(place.draining or crowded) and not (stays or displaced),
        displaced=displaced,
        unheard=status not in HEARD,
        returned_at=place.returned_at,
        created_at=task.created_at,
        ready_since=mark.ready_since,
        ended_at=mark.ended_at,
        was_ready=mark.was_ready,
        has_run=any(r.started_at is not None for r in task.status.runs)
        or task.state in (TaskState.RUNNING, TaskState.COMPLETE),
        after=task.turn == "after",
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
