"""Which tasks of a stack should exist now: one pass over its services.

Joins records and observations into ``scheduler`` terms, asks ``reconcile`` and
``rollout``, and writes the answer into the draft: tasks created, started (the
``depends_on`` gate), stopped. Placement follows for all stacks together.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.released import spec_at
from orchestrator.control.planning import (
    deadlines,
    failing,
    gates,
    holding,
    jobs,
    misplaced,
    nowhere,
    pairs,
    standby,
    staying,
    stopping,
)
from orchestrator.control.planning.keeping import Kept, as_it_is, stop_unwanted
from orchestrator.control.planning.networks import ensure_vips
from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
from orchestrator.control.planning.starting import (
    adopt_unplaced,
    create_task,
    let_run,
    tasks_by_slot,
    why_made,
)
from orchestrator.control.planning.terms import at_home, replica, wanted_service
from scheduler.reconcile import StopTask, WantedService, reconcile_in_steps
from scheduler.rollout import Moves, advance_in_steps
from scheduler.steps import STEP
from specs.stack import Condition
from specs.states import FINAL, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.reconcile import CreateTask
    from scheduler.steps import Steps
    from specs.api import Stack
    from specs.stack import UpdateConfig
    from specs.task import Task


def plan_services(
    pass_: Pass, stack: Stack, target: ReleaseTarget
) -> Steps[dict[str, ServiceState]]:
    """Plan every service of the target in dependency order."""
    tasks: dict[str, list[Task]] = defaultdict(list)
    for task in pass_.draft.tasks(stack.name).values():
        tasks[task.service].append(task)
    states: dict[str, ServiceState] = {}
    stop_unwanted(pass_, stack, target.spec)
    graph = dependencies_of(target.spec)
    for name in graph.order:
        effective = pass_.specs.under(target.release, target.spec, name)
        if name in stack.stopped_services:
            states[name] = ServiceState(name, effective, WantedService({}), [], carried=True)
            continue
        states[name] = yield from _plan_service(
            pass_, stack, effective, tasks[name], states, target
        )
    for name, found in tasks.items():
        if name not in target.spec.services:
            for task in found:
                stopping.begin(pass_, task, grace=target.grace)
    return states


def _plan_service(
    pass_: Pass,
    stack: Stack,
    effective: Effective,
    tasks: list[Task],
    states: Mapping[str, ServiceState],
    target: ReleaseTarget,
) -> Steps[ServiceState]:
    """Plan one service: what should be, may it start, what moves, and how far it is then."""
    tasks = jobs.of_this_iteration(pass_, stack, effective, tasks, target)
    state = yield from _as_wanted(pass_, stack, effective, tasks, target)
    yield len(tasks) // 2
    state.networks = ensure_vips(pass_, effective) if state.wanted.slots else ""
    held = gates.created(stack, state.name)
    gate = not held and _may_start(pass_, state, states, target)
    state.waits_for = held or state.waits_for
    yield from _decide(pass_, stack, state, target, gate=gate)
    waiting = 0 if state.must_end else len(state.plan.queued)
    state.settled += waiting
    yield len(tasks)
    for task in pairs.left_behind(pass_, effective, tasks):
        stopping.begin(pass_, task, grace=target.grace)
    yield from _perform(pass_, state, tasks, target, gate=gate)
    _mark_misplaced(pass_, stack, state, tasks, target)
    staying.judge(pass_, stack, state, target)
    state.steady += waiting
    if held:
        state.settled = state.steady = _prepared(state)
    standby.change_over(pass_, stack, target, state)
    failing.look(pass_, target, state, states)
    deadlines.look(pass_, target, state, states)
    nowhere.look(pass_, state)
    yield len(tasks)
    return state


def _as_wanted(
    pass_: Pass, stack: Stack, effective: Effective, tasks: list[Task], target: ReleaseTarget
) -> Steps[ServiceState]:
    """Return what the service should be, beside what is there of it."""
    name = effective.service.name
    wrong = misplaced.look(pass_, effective, tasks)
    replicas = []
    for number, task in enumerate(tasks, 1):
        replicas.append(replica(pass_, task, effective, displaced=task.id in wrong.moves))
        if not number % STEP:
            yield STEP
    yield len(tasks) % STEP
    kept = Kept(wanted_service(pass_, stack, effective, tasks))
    carried = name in target.beside
    if carried or target.only_starts or name in target.keeps:
        stopped = name in target.keeps or target.only_starts
        there = standby.serving(stack, name, replicas)
        kept = as_it_is(pass_, effective, kept.wanted, there, stopped=stopped)
    wanted, replicas = standby.look(pass_, stack, target, effective, kept.wanted, replicas)
    if not carried and target.release.state is ReleaseState.DEPLOYING:
        replicas = holding.without_abandoned(pass_, stack, effective, replicas)
    held = holding.hold(pass_, stack, target, effective, wanted, replicas)
    state = ServiceState(
        name,
        effective,
        held.wanted,
        replicas,
        carried=carried,
        own_specs={**kept.specs, **held.specs},
        misplaced=wrong,
    )
    state.must_end = any(
        edge.condition is Condition.COMPLETED
        for other in target.spec.services.values()
        if (edge := other.depends_on.get(name)) is not None
    )
    serving = (t for t in gates.current(state) if t.done or (t.ready and not state.must_end))
    state.settled = len({t.slot for t in serving if t.done or t.live})
    holding.judge(pass_, state, target.release, held)
    return state


def _prepared(state: ServiceState) -> int:
    """Return how many slots have a task that lacks nothing but a start."""
    return len({t.slot for t in gates.current(state) if t.state is TaskState.PREPARED})


def _may_start(
    pass_: Pass, state: ServiceState, states: Mapping[str, ServiceState], target: ReleaseTarget
) -> bool:
    """Say whether nothing the service depends on holds it back; note whom it waits for."""
    wanted, effective = state.wanted, state.effective
    if target.rollback or gates.admitted(wanted, state.replicas) or _alone(state, target):
        return True
    found = gates.unchecked(effective.service, states, wanted)
    state.unchecked = tuple((name, edge.required) for name, edge in found)
    state.gone_without = deadlines.gone_without(pass_, target, state.name)
    state.waits_for = gates.waits_for(effective.service, states, wanted, state.gone_without)
    return not state.waits_for


def _decide(
    pass_: Pass, stack: Stack, state: ServiceState, target: ReleaseTarget, *, gate: bool
) -> Steps[None]:
    """Ask which tasks are missing or too many, and which to replace now."""
    wanted, service = state.wanted, state.effective.service
    state.plan = yield from reconcile_in_steps(wanted, state.replicas, pass_.now)
    left = state.carried or target.only_starts or state.name in target.keeps
    yield max(len(state.replicas), len(wanted.slots)) // 2
    if (left or state.name in stack.created) and not state.misplaced.moves:
        # What was only made gives way to what the file says now; nothing of it ever ran.
        stale = (t for t in state.replicas if t.live and not t.has_run and wanted.outdated(t))
        made = state.name in stack.created and not left
        stops = tuple(StopTask(t.id, "its file changed") for t in stale) if made else ()
        state.moves = Moves(stop=stops, state="done")
        return
    state.moves = yield from advance_in_steps(
        wanted.without(state.plan.queued),
        state.replicas,
        service.rollback if target.rollback else _watched(service.update, wanted),
        release=state.effective.release,
        gate=gate,
        updating=not state.carried and _updating(pass_, stack, state, target),
        now=pass_.now,
    )


def _watched(update: UpdateConfig, wanted: WantedService) -> UpdateConfig:
    """Return how it is updated: a canary is on trial for as long as it is to be good."""
    if not wanted.beside or update.canary is None:
        return update
    monitor = max(update.monitor, update.canary.seconds)
    return update.model_copy(update={"monitor": monitor})


def _perform(
    pass_: Pass, state: ServiceState, tasks: list[Task], target: ReleaseTarget, *, gate: bool
) -> Steps[None]:
    """Do what was decided, and let go of what ended."""
    by_id = {task.id: task for task in tasks}
    for stop in (*state.plan.stop, *state.moves.stop):
        pass_.draft.because.setdefault(stop.task, stop.reason)
    for task_id in dict.fromkeys(s.task for s in (*state.plan.stop, *state.moves.stop)):
        stopping.begin(pass_, by_id[task_id], grace=target.grace)
        yield 1
    creates = (*state.plan.create, *state.moves.create)
    slots = tasks_by_slot(tasks) if creates and tasks else {}
    for create in creates:
        own = state.own_specs.get(create.slot, state.effective)
        fresh = target.renews and not state.carried and _anew(tasks, create)
        made = create_task(
            pass_,
            own,
            create,
            gate=gate,
            waits_for=state.waits_for,
            fresh=fresh,
            turn="beside" if create.slot in state.wanted.beside else "",
        )
        if create.slot in slots:
            pass_.draft.because[made.id] = why_made(pass_, slots[create.slot], made)
        yield 2
    if not (state.carried or target.only_starts or state.name in target.keeps):
        adopt_unplaced(pass_, state.effective, tasks, state.wanted)
    let_run(
        pass_,
        state.effective,
        tasks,
        state.wanted,
        blocked=state.waits_for,
        displaced=state.misplaced.moves,
        at_home=lambda task: at_home(pass_, task, state.effective),
    )
    for slot, found in tasks_by_slot(t for t in tasks if t.state in FINAL).items():
        stopping.trim(pass_, found, wanted=slot in state.wanted.slots)


def _anew(tasks: list[Task], create: CreateTask) -> bool:
    """Say whether a task is made because its slot had another spec: not what ended or was lost."""
    before = [task for task in tasks if task.slot == create.slot]
    newest = max(before, key=lambda t: (t.created_at, t.id), default=None)
    return newest is not None and newest.spec_hash != create.spec_hash


def _mark_misplaced(
    pass_: Pass, stack: Stack, state: ServiceState, tasks: list[Task], target: ReleaseTarget
) -> None:
    """Say which tasks stay where they should not be, by what was asked for last."""
    stays = state.misplaced.stays
    failed = misplaced.failed_release(pass_, stack)
    if failed is not None and failed.number != target.release.number:
        stays = {**misplaced.as_failed(pass_, failed, state.name, tasks), **stays}
    misplaced.mark(pass_, tasks, stays)


def _alone(state: ServiceState, target: ReleaseTarget) -> bool:
    """Say whether `up --no-deps` started the service: it waits for nobody."""
    release = target.release
    return release.no_deps and not state.carried and release.state is ReleaseState.DEPLOYING


def _updating(pass_: Pass, stack: Stack, state: ServiceState, target: ReleaseTarget) -> bool:
    """Say whether tasks that ran before are replaced: then there is something to lose."""
    if target.rollback:
        return True
    spec = spec_at(pass_.cluster, stack.name, stack.running)
    older = stack.running < target.release.number
    ran = older and spec is not None and state.name in spec.services
    return ran and (target.release.updating(state.name) or bool(state.misplaced.moves))
