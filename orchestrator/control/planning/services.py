"""Which tasks of a stack should exist now: one pass over its services.

Joins records and observations into ``scheduler`` terms, asks ``reconcile`` and
``rollout``, and writes the answer into the draft: tasks created, started (the
``depends_on`` gate), stopped. Placement follows for all stacks together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.node_view import availability
from orchestrator.control.mirror.released import spec_at
from orchestrator.control.mirror.serving import global_slots, is_ready, serving, wanted_count
from orchestrator.control.planning import failing, gates, stopping
from orchestrator.control.planning.keeping import Kept, as_it_is, stop_unwanted
from orchestrator.control.planning.networks import ensure_vips
from orchestrator.control.planning.passes import earliest
from orchestrator.control.planning.placement import homes
from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
from scheduler.reconcile import WantedService, reconcile
from scheduler.replicas import Replica
from scheduler.rollout import Moves, advance
from scheduler.trial import Trial, has_exited, steady_at
from specs.stack import Condition, TaskSpec, task_name
from specs.states import FINAL, Desired, Health, ReleaseState, TaskState
from specs.task import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.reconcile import CreateTask
    from specs.api import Stack


def plan_services(pass_: Pass, stack: Stack, target: ReleaseTarget) -> dict[str, ServiceState]:
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
        states[name] = _plan_service(pass_, stack, effective, tasks[name], states, target)
    for name, found in tasks.items():
        if name not in target.spec.services:
            for task in found:
                stopping.begin(pass_, task)
    return states


def _plan_service(
    pass_: Pass,
    stack: Stack,
    effective: Effective,
    tasks: list[Task],
    states: Mapping[str, ServiceState],
    target: ReleaseTarget,
) -> ServiceState:
    name = effective.service.name
    replicas = [replica(pass_, task, effective) for task in tasks]
    kept = Kept(_wanted(pass_, stack, effective, tasks))
    if name in target.spec.carried:
        kept = as_it_is(pass_, effective, kept.wanted, replicas)
    wanted = kept.wanted
    state = ServiceState(name, effective, wanted, replicas)
    state.carried = name in target.spec.carried
    state.must_end = any(
        edge.condition is Condition.COMPLETED
        for other in target.spec.services.values()
        if (edge := other.depends_on.get(name)) is not None
    )
    behind = {t.id for t in replicas if wanted.behind(t)}
    current = [t for t in tasks if wanted.slots.get(t.slot) == t.spec_hash and t.id not in behind]
    if state.must_end:
        current = [t for t in current if t.state is TaskState.COMPLETE]
    state.settled = serving(pass_.cluster, current)
    state.networks = ensure_vips(pass_, effective) if wanted.slots else ""
    gate = target.rollback or admitted(wanted, replicas, effective.hash) or _alone(state, target)
    if not gate:
        restarted = 0 < wanted.asked == wanted.asked_again
        state.waits_for = gates.waits_for(effective.service, states, restarted=restarted)
        gate = not state.waits_for
    state.plan = reconcile(wanted, replicas, pass_.now)
    # What `stop` ended and nobody asked for is wanted by nobody, until somebody asks.
    slots = {s: h for s, h in wanted.slots.items() if s not in state.plan.stopped}
    state.wanted = wanted = replace(wanted, slots=slots)
    update = effective.service.rollback if target.rollback else effective.service.update
    state.moves = (
        Moves(state="done")
        if state.carried
        else advance(
            wanted,
            replicas,
            update,
            release=effective.release,
            gate=gate,
            updating=_updating(pass_, stack, name, target),
            now=pass_.now,
        )
    )
    stopped = {stop.task for stop in (*state.plan.stop, *state.moves.stop)}
    by_id = {task.id: task for task in tasks}
    for task_id in stopped:
        stopping.begin(pass_, by_id[task_id])
    for create in (*state.plan.create, *state.moves.create):
        own = kept.specs.get(create.slot, effective)
        create_task(pass_, own, create, gate=gate, waits_for=state.waits_for)
    _start(pass_, effective, tasks, wanted, blocked=state.waits_for)
    _trim(pass_, tasks, wanted, state.plan.stopped)
    _judge_stay(pass_, stack, state, target)
    failing.look(pass_, target, state, states)
    return state


def _judge_stay(pass_: Pass, stack: Stack, state: ServiceState, target: ReleaseTarget) -> None:
    """Count the slots whose task came to stay, and note when the next one may have."""
    before = pass_.specs.of(stack.name, stack.running, state.name)
    state.trial = Trial(
        monitor=state.effective.service.update.monitor,
        updated=before is not None and before.hash != state.effective.hash,
        deployed=min(stack.running, target.release.number - 1),
    )
    tasks = gates.current(state)
    exited = has_exited(tasks)
    slots: dict[int, float] = {}
    for task in tasks:
        if state.must_end and not task.done:
            continue
        at = steady_at(task, state.trial, exited=exited, now=pass_.now)
        if at is not None:
            slots[task.slot] = min(at, slots.get(task.slot, at))
    state.steady = sum(at <= pass_.now for at in slots.values())
    if target.release.state is ReleaseState.DEPLOYING:
        state.steady_at = earliest(*(at for at in slots.values() if at > pass_.now))


def _alone(state: ServiceState, target: ReleaseTarget) -> bool:
    """Say whether `up --no-deps` started the service: it waits for nobody."""
    release = target.release
    return release.no_deps and not state.carried and release.state is ReleaseState.DEPLOYING


def _updating(pass_: Pass, stack: Stack, service: str, target: ReleaseTarget) -> bool:
    """Say whether the service ran before this release: then there is something to lose."""
    if target.rollback:
        return True
    spec = spec_at(pass_.cluster, stack.name, stack.running)
    older = stack.running < target.release.number
    return older and spec is not None and service in spec.services


def admitted(wanted: WantedService, replicas: Iterable[Replica], spec_hash: str) -> bool:
    """Say whether the service passed its gate: a task of it was let run since it was asked for.

    Such a task still runs, or ended by itself; what was stopped, or ended before somebody
    asked for it, passed another gate.
    """
    return any(
        t.spec_hash == spec_hash and t.started and not t.leaving and not wanted.behind(t)
        for t in replicas
    )


def replica(pass_: Pass, task: Task, effective: Effective | None) -> Replica:
    """Return a task in the scheduler's terms."""
    mark = pass_.observed.mark(task.id)
    status = pass_.node_status(task.node)
    record = pass_.cluster.nodes.get(task.node) if task.node is not None else None
    evicted = record is not None and availability(record) == "drain"
    tied = effective is not None and (
        effective.service.mode == "global" or bool(homes(pass_, effective, task.slot))
    )
    gone = task.node is not None and record is None
    spec = effective.service.task if effective is not None else TaskSpec(image="")
    run = task.status.run
    cut_off = task.state is TaskState.FAILED and run is not None and run.cut_off
    lived = pass_.now - mark.ready_since if mark.ready_since is not None else mark.lived
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
        lost=status == "down" and not (gone or tied or pass_.brake) and spec.on_reboot != "keep",
        evicted=evicted and not tied,
        unheard=status != "ready",
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
        attempt=task.attempt,
        asked=task.asked,
        cut_off=spec.on_reboot if cut_off else "",
        sick_since=None if spec.restarts_unhealthy else mark.sick_since,
    )


def _wanted(pass_: Pass, stack: Stack, effective: Effective, tasks: list[Task]) -> WantedService:
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


def create_task(
    pass_: Pass, effective: Effective, create: CreateTask, *, gate: bool, waits_for: str = ""
) -> Task:
    """Create a task; it is told to get ready, and to run at once where nothing holds it back."""
    ends_first = create.replaces is not None and effective.service.update.order == "stop-first"
    task = Task(
        id=pass_.new_id("t"),
        stack=effective.stack,
        service=effective.service.name,
        slot=create.slot,
        name=task_name(effective.stack, effective.service, create.slot),
        release=effective.release,
        spec_hash=create.spec_hash,
        desired=Desired.RUNNING if gate and not ends_first else Desired.PREPARED,
        attempt=create.attempt,
        pending_reason=f"waits for {waits_for}" if waits_for else "",
        created_at=pass_.wall,
        status=TaskStatus(state=TaskState.NEW),
    )
    pass_.draft.put_task(task)
    return task


def _start(
    pass_: Pass,
    effective: Effective,
    tasks: list[Task],
    wanted: WantedService,
    *,
    blocked: str = "",
) -> None:
    """Let prepared tasks run, unless a dependency or the task they replace must come first."""
    order = effective.service.update.order
    slots = tasks_by_slot(tasks)
    for task in tasks:
        current = pass_.draft.task(task.id)
        if current is None or not current.live or current.desired is not Desired.PREPARED:
            continue
        if wanted.slots.get(task.slot) != task.spec_hash:
            continue
        holder = _held_by(pass_, task, slots[task.slot]) if order == "stop-first" else None
        reason = f"waits for {blocked}" if blocked else ""
        if not reason and holder is not None:
            reason = f"waits until {holder.name} of release {holder.release} has stopped"
        _let_run(pass_, current, reason)


def _let_run(pass_: Pass, current: Task, reason: str) -> None:
    """Tell a task to run, or say what it waits for once it has a node."""
    if not reason:
        started = current.with_desired(Desired.RUNNING)
        pass_.draft.put_task(started if current.node is None else started.with_reason(""))
    elif current.node is not None and current.pending_reason != reason:
        pass_.draft.put_task(current.with_reason(reason))


def tasks_by_slot(tasks: Iterable[Task]) -> dict[int, list[Task]]:
    """Return one service's tasks by slot."""
    slots: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        slots[task.slot].append(task)
    return slots


def _held_by(pass_: Pass, task: Task, slot: list[Task]) -> Task | None:
    """Return another task of the slot that still runs where it can be heard.

    A task that moves off a draining node starts before the old one stops: both are current.
    """
    for known in slot:
        other = pass_.draft.task(known.id)
        if (
            other is not None
            and other.id != task.id
            and other.state not in FINAL
            and (not other.live or other.spec_hash != task.spec_hash)
            and pass_.node_status(other.node) != "down"
        ):
            return other
    return None


def _trim(pass_: Pass, tasks: list[Task], wanted: WantedService, stopped: Collection[int]) -> None:
    for slot, found in tasks_by_slot(tasks).items():
        kept = slot in wanted.slots or slot in stopped
        stopping.trim(pass_, found, wanted=kept, stopped=slot in stopped)


def plan_frozen(pass_: Pass, stack: Stack) -> float | None:
    """Keep a stack as it is while no release may move it: replace what is lost, no more.

    So it is after a release failed half way, and while the next one prepares its images.
    Return when to look again.
    """
    due: float | None = None
    tasks: dict[str, list[Task]] = defaultdict(list)
    for task in pass_.draft.tasks(stack.name).values():
        tasks[task.service].append(task)
    stop_unwanted(pass_, stack, spec_at(pass_.cluster, stack.name, stack.release))
    newest = pass_.cluster.releases.get((stack.name, stack.release))
    failed = newest is not None and newest.state is ReleaseState.FAILED
    for name in {*tasks, *(stack.overrides if failed else ())}:
        found = tasks[name]
        kept = _slots_as_they_are(pass_, found)
        if name in stack.stopped_services:
            continue
        count = stack.overrides.get(name)
        # A new copy is one of what was deployed last: what failed would only fail again.
        deployed = pass_.specs.of(stack.name, stack.running, name) if failed else None
        if count is not None and (kept or deployed):
            sample = deployed or kept[min(kept)]
            kept = {s: kept.get(s, sample) for s in range(1, count + 1)}
        if not kept:
            continue
        wanted = WantedService(
            {slot: effective.hash for slot, effective in kept.items()},
            next(iter(kept.values())).task.restart,
            asked=stack.asked.get(name, 0),
            asked_again=stack.asked_again.get(name, 0),
        )
        replicas = [replica(pass_, task, kept.get(task.slot)) for task in found]
        plan = reconcile(wanted, replicas, pass_.now)
        due = earliest(due, plan.wake)
        by_id = {task.id: task for task in found}
        for stop in plan.stop:
            stopping.begin(pass_, by_id[stop.task])
        for create in plan.create:
            asked = any(wanted.behind(t) for t in replicas if t.slot == create.slot)
            if not asked and _failed_attempt(pass_, found, create, stack):
                continue
            create_task(pass_, kept[create.slot], create, gate=True)
        admitted_slots = {t.slot for t in found if t.desired is Desired.RUNNING}
        started = [t for t in found if t.slot in admitted_slots]
        _start(pass_, next(iter(kept.values())), started, wanted)
    return due


def _slots_as_they_are(pass_: Pass, tasks: list[Task]) -> dict[int, Effective]:
    """Return, for every slot in use, the service as its newest task has it."""
    kept: dict[int, Effective] = {}
    for task in sorted(tasks, key=lambda t: (t.live, t.created_at, t.id)):
        if task.desired in (Desired.SHUTDOWN, Desired.REMOVED):
            continue
        effective = pass_.specs.of(task.stack, task.release, task.service)
        if effective is not None:
            kept[task.slot] = effective
    return kept


def _failed_attempt(pass_: Pass, tasks: list[Task], create: CreateTask, stack: Stack) -> bool:
    """Say whether the slot holds only what a failed release left: that is kept to be seen."""
    ended = [t for t in tasks if t.slot == create.slot and t.state in FINAL]
    if not ended:
        return False
    last = max(ended, key=lambda t: (t.created_at, t.id))
    broken = last.state in (TaskState.FAILED, TaskState.REJECTED)
    return broken and last.release > stack.running and not pass_.observed.mark(last.id).was_ready
