"""A stack that no release may move now: what is lost comes back as it was, no more.

So it is after a release failed half way, and while the next one prepares its images.
Called by ``stacks`` instead of ``services``.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.released import spec_at
from orchestrator.control.mirror.serving import copies, is_leaving, stands_by
from orchestrator.control.planning import gates, jobs, misplaced, pairs, stopping
from orchestrator.control.planning.keeping import stop_unwanted
from orchestrator.control.planning.passes import earliest
from orchestrator.control.planning.service_state import ServiceState
from orchestrator.control.planning.starting import create_task, let_run
from orchestrator.control.planning.terms import at_home, replica
from scheduler.reconcile import CreateTask, WantedService, reconcile
from specs.states import FINAL, Desired, TaskState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack
    from specs.task import Task


def plan_frozen(pass_: Pass, stack: Stack) -> float | None:
    """Keep a stack as it is while no release may move it: replace what is lost, no more.

    So it is after a release failed half way, and while the next one prepares its images.
    Return when to look again.
    """
    due: float | None = None
    tasks = _by_service(pass_, stack)
    stop_unwanted(pass_, stack, spec_at(pass_.cluster, stack.name, stack.release))
    failed = misplaced.failed_release(pass_, stack)
    states: dict[str, ServiceState] = {}
    for name in _in_order(pass_, stack, {*tasks, *(stack.overrides if failed else ())}):
        found = tasks[name]
        if failed is not None:
            misplaced.mark(pass_, found, misplaced.as_failed(pass_, failed, name, found))
        kept = _slots_as_they_are(pass_, stack, found)
        if name in stack.stopped_services:
            continue
        # A new copy is one of what was deployed last: what failed would only fail again.
        deployed = pass_.specs.of(stack.name, stack.running, name)
        sample = deployed or (kept[min(kept)] if kept else None)
        if sample is None:
            continue
        job = jobs.newest(kept.values())
        if job is not None:  # what waits for its turn is of the iteration that was begun
            kept = {slot: kept.get(slot, job) for slot in range(1, copies(stack, job.service) + 1)}
        elif name in stack.overrides:
            slots = range(1, copies(stack, sample.service) + 1)
            kept = {slot: kept.get(slot, sample) for slot in slots}
        wanted = WantedService(
            {slot: effective.hash for slot, effective in kept.items()},
            sample.task.restart,
            asked=stack.asked.get(name, 0),
            asked_again=stack.asked_again.get(name, 0),
            at_once=job.service.max_concurrent if job is not None else None,
        )
        moves = misplaced.leaving(pass_, sample, found).moves
        replicas = [
            replica(pass_, task, kept.get(task.slot), displaced=task.id in moves) for task in found
        ]
        plan = reconcile(wanted, replicas, pass_.now)
        states[name] = ServiceState(name, sample, wanted, replicas, plan=plan)
        waits_for = gates.created(stack, name)
        if not waits_for and not gates.admitted(wanted, replicas):
            waits_for = gates.waits_for(sample.service, states, wanted)
        due = earliest(due, plan.wake)
        begun = {
            t.slot
            for t in found
            if t.desired is not Desired.PREPARED or pairs.came_so_far(pass_, t)
        }
        by_id = {task.id: task for task in found}
        left = pairs.left_behind(pass_, sample, found)
        for going in [*left, *(by_id[t] for t in (*(s.task for s in plan.stop), *sorted(moves)))]:
            stopping.begin(pass_, going)
        for create in (*plan.create, *_successors(found, moves)):
            asked = any(wanted.behind(t) for t in replicas if t.slot == create.slot)
            if not asked and _failed_attempt(pass_, found, create, stack):
                continue
            # What waits for its dependencies since before goes on to, and new copies with it.
            held = deployed is None and bool(found) and not begun
            gate = not held and not waits_for
            task = create_task(pass_, kept[create.slot], create, gate=gate, waits_for=waits_for)
            if held:
                pass_.draft.put_task(task.with_reason(_waiting(found)))
        # What was deployed may start; of others the slots that had come so far.
        serves = deployed.hash if deployed is not None else ""
        started = [t for t in found if t.slot in begun or t.spec_hash == serves]
        home = partial(_at_home, pass_, sample)
        let_run(pass_, sample, started, wanted, blocked=waits_for, at_home=home)
    return due


def _by_service(pass_: Pass, stack: Stack) -> dict[str, list[Task]]:
    """Return the stack's tasks, but for those that stand by: they are left as they are."""
    tasks: dict[str, list[Task]] = defaultdict(list)
    for task in pass_.draft.tasks(stack.name).values():
        if not stands_by(pass_.cluster, task):
            tasks[task.service].append(task)
    return tasks


def _at_home(pass_: Pass, effective: Effective, task: Task) -> bool:
    return at_home(pass_, task, effective)


def _in_order(pass_: Pass, stack: Stack, names: Iterable[str]) -> list[str]:
    """Return the services so that each comes after what it depends on."""
    spec = spec_at(pass_.cluster, stack.name, stack.release)
    order = dependencies_of(spec).order if spec is not None else ()
    places = {name: place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def _successors(tasks: list[Task], moves: Collection[str]) -> list[CreateTask]:
    """Return what takes the places of tasks that move, at once: an empty slot is none here."""
    stay = {t.slot for t in tasks if t.live and t.id not in moves}
    return [
        CreateTask(t.slot, t.spec_hash, replaces=t.id)
        for t in tasks
        if t.id in moves and t.slot not in stay
    ]


def _waiting(tasks: list[Task]) -> str:
    """Return what the tasks of a service that was never let start wait for."""
    return next((t.pending_reason for t in tasks if t.live and t.pending_reason), "")


def _slots_as_they_are(pass_: Pass, stack: Stack, tasks: list[Task]) -> dict[int, Effective]:
    """Return, for every slot in use, the service as its newest task has it."""
    kept: dict[int, Effective] = {}
    for task in sorted(tasks, key=lambda t: (t.live, t.created_at, t.id)):
        effective = pass_.specs.of(task.stack, task.release, task.service)
        if effective is None:
            continue
        going = task.desired is not Desired.SHUTDOWN and is_leaving(task)
        if not going:
            kept[task.slot] = effective
        elif pairs.goes_with_partner(pass_, effective, task):
            kept[task.slot] = pairs.comes_as(pass_, stack, effective, task)
    return kept


def _failed_attempt(pass_: Pass, tasks: list[Task], create: CreateTask, stack: Stack) -> bool:
    """Say whether the slot holds only what a failed release left: that is kept to be seen."""
    ended = [t for t in tasks if t.slot == create.slot and t.state in FINAL]
    if not ended:
        return False
    last = max(ended, key=lambda t: (t.created_at, t.id))
    broken = last.state in (TaskState.FAILED, TaskState.REJECTED)
    return broken and last.release > stack.running and not pass_.observed.mark(last.id).was_ready
