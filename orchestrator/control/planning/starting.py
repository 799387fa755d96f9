"""Tasks come into being and are let run; whoever plans a service performs its plan with these.

A new task gets ready while its dependencies are awaited, or while the task it replaces
still serves; that it may run then is said here, and until then what it waits for.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from orchestrator.control.mirror.serving import stands_by
from orchestrator.control.planning import pairs
from orchestrator.control.telling.words import words_of
from specs.stack import task_name
from specs.states import FINAL, Desired, TaskState
from specs.task import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.reconcile import CreateTask, WantedService


def create_task(
    pass_: Pass,
    effective: Effective,
    create: CreateTask,
    *,
    gate: bool,
    waits_for: str = "",
    fresh: bool = False,
    turn: Literal["", "beside"] = "",
) -> Task:
    """Create a task; it is told to get ready, and to run at once where nothing holds it back.

    One that replaces another is let run once it is known whether both fit. ``turn``: Task.turn.
    """
    ends_first = create.replaces is not None
    paired = bool(effective.task.partner)  # it starts after its partner, which is not known yet
    task = Task(
        id=pass_.new_id("t"),
        stack=effective.stack,
        service=effective.service.name,
        slot=create.slot,
        name=task_name(effective.stack, effective.service, create.slot),
        release=effective.release,
        spec_hash=create.spec_hash,
        desired=Desired.RUNNING if gate and not ends_first and not paired else Desired.PREPARED,
        attempt=create.attempt,
        pending_reason=f"waits for {waits_for}" if waits_for else "",
        fresh_volumes=fresh,
        turn=turn,
        created_at=pass_.made_at(effective.stack),
        status=TaskStatus(state=TaskState.NEW),
    )
    pass_.draft.put_task(task)
    return task


def why_made(pass_: Pass, slot: Iterable[Task], made: Task) -> str:
    """Return what a task is made for in a slot that had others: a word for programs, and words."""
    before = max(slot, key=lambda t: (t.created_at, t.id))
    node = pass_.cluster.nodes.get(before.node or "")
    where = node.name if node is not None else "a node that left"
    if before.state in FINAL:
        return _after_end(pass_, before, made, where)
    place = pass_.place(before.node)
    if place.gone or place.status == "down":
        why = f"node-lost: {before.name} was on {where}, which is {place.status}"
    elif not before.live or before.spec_hash != made.spec_hash:
        why = f"update: release {made.release} replaces {before.name} of release {before.release}"
    elif place.draining:
        why = f"drain: {before.name} leaves {where}, which is drained"
    else:
        why = f"moved: {before.name} does not belong on {where} any more"
    return why


def _after_end(pass_: Pass, before: Task, made: Task, where: str) -> str:
    if before.state is TaskState.COMPLETE or before.desired is Desired.SHUTDOWN:
        return f"asked: {before.name} had ended and is asked to run"
    if before.spec_hash != made.spec_hash:
        return f"update: release {made.release} follows what ended of release {before.release}"
    return f"failed: {before.name} {words_of(pass_.cluster, before).text} on {where}"


def adopt_unplaced(
    pass_: Pass, effective: Effective, tasks: Iterable[Task], wanted: WantedService
) -> None:
    """Have tasks without a node be of the release that is asked for now: it says where they go.

    Where a task may go is no part of its spec, so one that waits for a node is kept by a release
    that asks for another place; by the former one's rules it would wait for ever.
    """
    for task in tasks:
        if task.node is not None or task.release == effective.release:
            continue
        current = pass_.draft.task(task.id)
        if current is None or not current.live:
            continue
        if wanted.slots.get(task.slot) == current.spec_hash:
            pass_.draft.put_task(current.with_release(effective.release))


def let_run(
    pass_: Pass,
    effective: Effective,
    tasks: list[Task],
    wanted: WantedService,
    *,
    blocked: str = "",
    displaced: Collection[str] = (),
    at_home: Callable[[Task], bool] = lambda _: False,
) -> None:
    """Let prepared tasks run, unless a dependency or the task they replace must come first.

    ``at_home``: whether a task can run on one node only, because its data is there.
    """
    order = effective.service.update.order
    waiting = [t for t in tasks if t.desired is Desired.PREPARED]  # nothing gets back to that
    slots = tasks_by_slot(tasks) if waiting else {}
    for task in waiting:
        current = pass_.draft.task(task.id)
        if current is None or not current.live or current.desired is not Desired.PREPARED:
            continue
        if wanted.slots.get(task.slot) != task.spec_hash:
            continue
        if current.node is None and not current.turn and _replaces(pass_, task, slots[task.slot]):
            continue  # whether both fit is known once it has a node, see placement
        holder = None
        if current.turn == "after" or (order == "stop-first" and current.turn != "beside"):
            stays = at_home(task)
            holder = _held_by(pass_, task, slots[task.slot], displaced, stays=stays)
        reason = f"waits for {blocked}" if blocked else ""
        if not reason and holder is not None:
            reason = f"waits until {holder.name} of release {holder.release} has stopped"
        if not reason and (partner := pairs.awaited(pass_, effective, current)):
            reason = f"waits for {partner}"
        _say_or_run(pass_, current, reason)


def _say_or_run(pass_: Pass, current: Task, reason: str) -> None:
    """Tell a task to run, or say what it waits for once it has a node."""
    if not reason:
        started = current.with_desired(Desired.RUNNING)
        pass_.draft.put_task(started if current.node is None else started.with_reason(""))
    elif current.node is not None and current.pending_reason != reason:
        pass_.draft.put_task(current.with_reason(reason))


def _replaces(pass_: Pass, task: Task, slot: list[Task]) -> bool:
    """Say whether a task of another spec runs in the slot."""
    known = (pass_.draft.task(other.id) for other in slot)
    there = (t for t in known if t is not None and not stands_by(pass_.cluster, t))
    return any(t.live and t.spec_hash != task.spec_hash for t in there)


def tasks_by_slot(tasks: Iterable[Task]) -> dict[int, list[Task]]:
    """Return one service's tasks by slot."""
    slots: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        slots[task.slot].append(task)
    return slots


def _held_by(
    pass_: Pass, task: Task, slot: list[Task], displaced: Collection[str], *, stays: bool
) -> Task | None:
    """Return another task of the slot that still runs where it can be heard.

    A task that moves off a draining node starts before the old one stops: both are current. One
    that ``stays`` with its data starts on the very node that is down now, where the old one may
    still write it: it waits until that is heard to have ended.
    """
    for known in slot:
        other = pass_.draft.task(known.id)
        if (
            other is not None
            and other.id != task.id
            and other.state not in FINAL
            and not (other.live and stands_by(pass_.cluster, other))
            and (not other.live or other.spec_hash != task.spec_hash or other.id in displaced)
            and (stays or pass_.node_status(other.node) != "down")
        ):
            return other
    return None
