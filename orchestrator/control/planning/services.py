"""Which tasks of a stack should exist now: one pass over its services.

Joins records and observations into ``scheduler`` terms, asks ``reconcile`` and
``rollout``, and writes the answer into the draft: tasks created, started (the
``depends_on`` gate), stopped. Placement follows for all stacks together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.planning import gates, stopping
from orchestrator.control.planning.networks import ensure_vips
from orchestrator.control.planning.placement import homes
from scheduler import constraints
from scheduler.reconcile import Plan, Wanted, reconcile
from scheduler.replicas import Replica
from scheduler.rollout import Moves, advance
from scheduler.view import NodeView
from specs.stack import Condition, StackSpec, task_name
from specs.states import FINAL, Desired, TaskState
from specs.task import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.reconcile import Create
    from specs.api import Release, Stack
    from specs.node import Node


@dataclass(slots=True)
class ServiceState:
    """One service after planning: what releases.py judges and progress shows."""

    name: str
    effective: Effective
    wanted: Wanted
    replicas: list[Replica]
    plan: Plan = field(default_factory=Plan)
    moves: Moves = field(default_factory=Moves)
    waits_for: str = ""  # the dependency it waits for, for people
    networks: str = ""  # why its addresses cannot be given
    must_end: bool = False  # others wait for it to complete: running is not enough

    @property
    def settled(self) -> int:
        """Return how many wanted slots have a current task that serves or completed."""
        good = {
            t.slot
            for t in self.replicas
            if t.slot in self.wanted.slots
            and t.spec_hash == self.wanted.slots[t.slot]
            and ((t.ready and t.live and not self.must_end) or (t.done and not t.going))
        }
        return len(good)


@dataclass(slots=True)
class Target:
    """What a stack is steered to: a release, and whether its rollout may move."""

    release: Release
    spec: StackSpec
    rollback: bool = False


def replica_count(stack: Stack, effective: Effective) -> int:
    """Return how many replicas a replicated service should have."""
    return stack.overrides.get(effective.service.name, effective.service.replicas)


def plan_services(
    run: Pass, stack: Stack, target: Target, pinned: dict[str, str]
) -> dict[str, ServiceState]:
    """Plan every service of the target in dependency order."""
    tasks: dict[str, list[Task]] = defaultdict(list)
    for task in run.draft.tasks(stack.name).values():
        tasks[task.service].append(task)
    states: dict[str, ServiceState] = {}
    graph = dependencies_of(target.spec)
    for name in graph.order:
        effective = run.specs.under(target.release, target.spec, name)
        states[name] = _plan_service(run, stack, effective, tasks[name], states, target, pinned)
    for name, found in tasks.items():
        if name not in target.spec.services:
            for task in found:
                stopping.begin(run, task)
    return states


def _plan_service(
    run: Pass,
    stack: Stack,
    effective: Effective,
    tasks: list[Task],
    states: Mapping[str, ServiceState],
    target: Target,
    pinned: dict[str, str],
) -> ServiceState:
    wanted = _wanted(run, stack, effective, tasks)
    name = effective.service.name
    replicas = [replica(run, task, effective) for task in tasks]
    state = ServiceState(name, effective, wanted, replicas)
    state.must_end = any(
        edge.condition is Condition.COMPLETED
        for other in target.spec.services.values()
        if (edge := other.depends_on.get(name)) is not None
    )
    state.networks = ensure_vips(run, effective) if wanted.slots else ""
    gate = admitted(effective, replicas, target)
    if not gate:
        state.waits_for = gates.waits_for(effective.service, states)
        gate = not state.waits_for
    state.plan = reconcile(wanted, replicas, run.now)
    update = effective.service.rollback if target.rollback else effective.service.update
    state.moves = advance(
        wanted,
        replicas,
        update,
        release=effective.release,
        gate=gate,
        updating=_updating(run, stack, name, target),
        now=run.now,
    )
    run.look_again(state.plan.wake)
    run.look_again(state.moves.wake)
    stopped = {stop.task for stop in (*state.plan.stop, *state.moves.stop)}
    by_id = {task.id: task for task in tasks}
    for task_id in stopped:
        stopping.begin(run, by_id[task_id])
    for create in (*state.plan.create, *state.moves.create):
        task = create_task(run, effective, create, gate=gate, waits_for=state.waits_for)
        if create.node is not None:
            pinned[task.id] = create.node
    _start(run, effective, tasks, wanted, blocked=state.waits_for)
    _trim(run, tasks, wanted)
    for task in tasks:
        if wanted.nodes.get(task.slot) and task.node is None:
            pinned[task.id] = wanted.nodes[task.slot]
    return state


def _updating(run: Pass, stack: Stack, service: str, target: Target) -> bool:
    """Say whether the service ran before this release: then there is something to lose."""
    if target.rollback:
        return True
    running = run.cluster.releases.get((stack.name, stack.running))
    spec = run.cluster.spec_of(running) if running is not None else None
    older = stack.running < target.release.number
    return older and spec is not None and service in spec.services


def admitted(effective: Effective, replicas: list[Replica], target: Target) -> bool:
    """Say whether the service passed its gate in this release already."""
    return target.rollback or any(
        t.spec_hash == effective.hash and (t.started or t.ended) for t in replicas
    )


def replica(run: Pass, task: Task, effective: Effective | None) -> Replica:
    """Return a task in the scheduler's terms."""
    mark = run.observed.mark(task.id)
    status = run.node_status(task.node)
    record = run.cluster.nodes.get(task.node) if task.node is not None else None
    evicted = record is not None and (record.availability == "drain" or record.removing)
    tied = effective is not None and (
        effective.service.mode == "global" or bool(homes(run, effective, task.slot))
    )
    gone = task.node is not None and record is None
    lived = run.now - mark.ready_since if mark.ready_since is not None else mark.lived
    return Replica(
        id=task.id,
        slot=task.slot,
        spec_hash=task.spec_hash,
        node=task.node,
        release=task.release,
        state=TaskState.ORPHANED if gone and task.state not in FINAL else task.state,
        desired=task.desired,
        ready=task.status.ready and status != "down",
        leaving=task.leaving,
        lost=status == "down" and not gone and not tied and not run.brake,
        evicted=evicted and not tied,
        unheard=status != "ready",
        created_at=task.created_at,
        ready_since=mark.ready_since,
        ended_at=mark.ended_at,
        was_ready=mark.was_ready,
        has_run=any(r.started_at is not None for r in task.status.runs)
        or task.state in (TaskState.RUNNING, TaskState.COMPLETE),
        lived=lived,
        restarts=task.status.restarts,
        attempt=task.attempt,
    )


def _wanted(run: Pass, stack: Stack, effective: Effective, tasks: list[Task]) -> Wanted:
    service = effective.service
    nodes: dict[int, str] = {}
    if service.mode == "global":
        nodes = global_slots(run, effective, tasks)
        slots = dict.fromkeys(nodes, effective.hash)
    else:
        slots = dict.fromkeys(range(1, replica_count(stack, effective) + 1), effective.hash)
    return Wanted(slots, service.task.restart, nodes, effective.exclusive)


def global_slots(run: Pass, effective: Effective, tasks: list[Task]) -> dict[int, str]:
    """Return slot -> node for a global service: nodes keep the slot their task has."""
    eligible = {n.id for n in run.cluster.nodes.values() if _eligible(run, effective, n)}
    slots: dict[int, str] = {}
    placed: set[str] = set()
    for task in sorted(tasks, key=lambda t: (t.created_at, t.id)):
        if task.node in eligible and task.node not in placed and task.slot not in slots:
            slots[task.slot] = task.node
            placed.add(task.node)
    free = (number for number in range(1, len(eligible) * 2 + 2 + max(slots, default=0)))
    for node in sorted(eligible - placed):
        slots[next(number for number in free if number not in slots)] = node
    return slots


def _eligible(run: Pass, effective: Effective, node: Node) -> bool:
    """Say whether a global service has a task on the node (even while it is silent)."""
    if node.availability == "drain" or node.removing:
        return False
    has_task = any(
        t.service == effective.service.name and t.stack == effective.stack
        for t in run.cluster.by_node.get(node.id, {}).values()
    )
    if not has_task and (node.availability == "pause" or run.node_status(node.id) != "ready"):
        return False
    view = _node_facts(node)
    return all(constraints.parse(c).admits(view) for c in effective.service.placement.constraints)


def _node_facts(node: Node) -> NodeView:
    return NodeView(
        id=node.id,
        name=node.name,
        hostname=node.facts.hostname,
        role="worker" if node.address else "manager",
        labels=node.labels,
        os=node.facts.os,
        arch=node.facts.arch,
    )


def create_task(
    run: Pass, effective: Effective, create: Create, *, gate: bool, waits_for: str = ""
) -> Task:
    """Create a task; it is told to get ready, and to run at once where nothing holds it back."""
    ends_first = create.replaces is not None and effective.service.update.order == "stop-first"
    task = Task(
        id=run.new_id("t"),
        stack=effective.stack,
        service=effective.service.name,
        slot=create.slot,
        name=task_name(effective.stack, effective.service, create.slot),
        release=effective.release,
        spec_hash=create.spec_hash,
        desired=Desired.RUNNING if gate and not ends_first else Desired.PREPARED,
        attempt=create.attempt,
        pending_reason=f"waits for {waits_for}" if waits_for else "",
        created_at=run.wall,
        status=TaskStatus(state=TaskState.NEW),
    )
    run.draft.put_task(task)
    return task


def _start(
    run: Pass, effective: Effective, tasks: list[Task], wanted: Wanted, *, blocked: str = ""
) -> None:
    """Let prepared tasks run, unless a dependency or the task they replace must come first."""
    order = effective.service.update.order
    slots = tasks_by_slot(tasks)
    for task in tasks:
        current = run.draft.task(task.id)
        if current is None or not current.live or current.desired is not Desired.PREPARED:
            continue
        if wanted.slots.get(task.slot) != task.spec_hash:
            continue
        holder = _held_by(run, task, slots[task.slot]) if order == "stop-first" else None
        reason = f"waits for {blocked}" if blocked else ""
        if not reason and holder is not None:
            reason = f"waits until {holder.name} of release {holder.release} has stopped"
        _let_run(run, current, reason)


def _let_run(run: Pass, current: Task, reason: str) -> None:
    """Tell a task to run, or say what it waits for once it has a node."""
    if not reason:
        update: dict[str, object] = {"desired": Desired.RUNNING}
        if current.node is not None:
            update["pending_reason"] = ""
        run.draft.put_task(current.model_copy(update=update))
    elif current.node is not None and current.pending_reason != reason:
        run.draft.put_task(current.model_copy(update={"pending_reason": reason}))


def tasks_by_slot(tasks: Iterable[Task]) -> dict[int, list[Task]]:
    """Return one service's tasks by slot."""
    slots: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        slots[task.slot].append(task)
    return slots


def _held_by(run: Pass, task: Task, slot: list[Task]) -> Task | None:
    """Return another task of the slot that still runs where it can be heard.

    A task that moves off a draining node starts before the old one stops: both are current.
    """
    for known in slot:
        other = run.draft.task(known.id)
        if (
            other is not None
            and other.id != task.id
            and other.state not in FINAL
            and (not other.live or other.spec_hash != task.spec_hash)
            and run.node_status(other.node) != "down"
        ):
            return other
    return None


def _trim(run: Pass, tasks: list[Task], wanted: Wanted) -> None:
    for slot, found in tasks_by_slot(tasks).items():
        stopping.trim(run, found, wanted=slot in wanted.slots)


def plan_frozen(run: Pass, stack: Stack) -> None:
    """Keep a stack as it is while no release may move it: replace what is lost, no more.

    So it is after a release failed half way, and while the next one prepares its images.
    """
    tasks: dict[str, list[Task]] = defaultdict(list)
    for task in run.draft.tasks(stack.name).values():
        tasks[task.service].append(task)
    for name, found in tasks.items():
        kept = _slots_as_they_are(run, found)
        count = stack.overrides.get(name)
        if count is not None and kept:
            sample = kept[min(kept)]
            kept = {s: kept.get(s, sample) for s in range(1, count + 1)}
        if not kept:
            continue
        wanted = Wanted(
            {slot: effective.hash for slot, effective in kept.items()},
            next(iter(kept.values())).task.restart,
        )
        replicas = [replica(run, task, kept.get(task.slot)) for task in found]
        plan = reconcile(wanted, replicas, run.now)
        run.look_again(plan.wake)
        by_id = {task.id: task for task in found}
        for stop in plan.stop:
            stopping.begin(run, by_id[stop.task])
        for create in plan.create:
            if _failed_attempt(run, found, create, stack):
                continue
            create_task(run, kept[create.slot], create, gate=True)
        admitted_slots = {t.slot for t in found if t.desired is Desired.RUNNING}
        started = [t for t in found if t.slot in admitted_slots]
        _start(run, next(iter(kept.values())), started, wanted)


def _slots_as_they_are(run: Pass, tasks: list[Task]) -> dict[int, Effective]:
    """Return, for every slot in use, the service as its newest task has it."""
    kept: dict[int, Effective] = {}
    for task in sorted(tasks, key=lambda t: (t.live, t.created_at, t.id)):
        if task.desired in (Desired.SHUTDOWN, Desired.REMOVED):
            continue
        effective = run.specs.of(task.stack, task.release, task.service)
        if effective is not None:
            kept[task.slot] = effective
    return kept


def _failed_attempt(run: Pass, tasks: list[Task], create: Create, stack: Stack) -> bool:
    """Say whether the slot holds only what a failed release left: that is kept to be seen."""
    ended = [t for t in tasks if t.slot == create.slot and t.state in FINAL]
    if not ended:
        return False
    last = max(ended, key=lambda t: (t.created_at, t.id))
    broken = last.state in (TaskState.FAILED, TaskState.REJECTED)
    return broken and last.release > stack.running and not run.observed.mark(last.id).was_ready
