"""One-offs (``corral run``): placed once, never again, and taken away.

Beside services and releases: a one-off is no replica of anything. It waits for what its service
depends on, gets a node as any task does, runs once, and what its end leaves is kept until somebody
removes it, or goes at once where it was asked so (``--rm``), whatever became of who asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import edge_words
from orchestrator.control.mirror.effective import of_oneoff
from orchestrator.control.mirror.released import newest_of
from orchestrator.control.mirror.serving import meets
from orchestrator.control.planning import binds, networks, pairs
from orchestrator.control.planning.passes import earliest, mistake
from orchestrator.control.planning.placement import beside_partner, equipped, needs
from orchestrator.control.planning.room import fleet
from scheduler.place import place
from specs.oneoff import REMEMBERED
from specs.stack import Condition
from specs.states import BROKEN, UNPLACED, Desired, TaskState, may_move

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack
    from specs.oneoff import OneOff
    from specs.stack import Dependency
    from specs.task import Task, TaskStatus


def plan(pass_: Pass, stack: Stack) -> float | None:
    """Move the stack's one-offs on; return when to look again."""
    due: float | None = None
    for one in pass_.draft.oneoffs(stack.name):
        if one.gone_at:
            until = pass_.now + one.gone_at + REMEMBERED - pass_.wall
            if until <= pass_.now:
                pass_.draft.delete_oneoff(one)
            else:
                due = earliest(due, until)
        elif _lost(pass_, one):
            pass_.notes.append(
                ("task.orphaned", one.stack, f"{one.task.name} was lost: its node left the cluster")
            )
            pass_.draft.oneoff_gone(_orphaned(one), pass_.wall)
        elif one.task.desired is Desired.REMOVED:
            _let_go(pass_, one)
        elif one.over:
            if one.remove:
                pass_.draft.put_oneoff(one.removed())
        elif partner := pairs.lost_partner(pass_, one):
            pairs.end_guest(pass_, one, partner)
        elif one.task.state in UNPLACED and stack.desired != "removed":
            _start(pass_, one)
    return due


def remove_all(pass_: Pass, stack: str, *, grace: float | None = None) -> bool:
    """Take all one-offs of a stack away; say whether nothing that answers is left."""
    done = True
    for one in pass_.draft.oneoffs(stack):
        if one.gone_at:
            pass_.draft.delete_oneoff(one)
            continue
        asked = one.removed(grace=grace)
        if asked is not one:
            pass_.draft.put_oneoff(asked)
        _let_go(pass_, asked, forget=True)
        left = pass_.draft.oneoff(one.id)
        done = done and (left is None or pass_.node_status(left.task.node) == "down")
    return done


def take_status(pass_: Pass, node: str, task_id: str, status: TaskStatus) -> bool:
    """Take what a node reports of a one-off; False where the task is none."""
    one = pass_.draft.oneoff(task_id)
    if one is None:
        return False
    task = one.task
    moved = status != task.status and may_move(task.state, status.state, by="agent")
    if task.node == node and moved:
        pass_.draft.put_oneoff(one.with_task(task.with_status(status)))
    return True


def take_gone(pass_: Pass, node: str, task_id: str) -> None:
    """Take that nothing of a one-off is left on its node."""
    one = pass_.draft.oneoff(task_id)
    if one is not None and one.task.node == node and one.task.desired is Desired.REMOVED:
        pass_.draft.oneoff_gone(one, pass_.wall)


def _let_go(pass_: Pass, one: OneOff, *, forget: bool = False) -> None:
    """Forget a one-off that no node has to be asked about."""
    if one.task.node in pass_.cluster.nodes:
        return
    if forget:
        pass_.draft.delete_oneoff(one)
    else:
        pass_.draft.oneoff_gone(_orphaned(one), pass_.wall)


def _lost(pass_: Pass, one: OneOff) -> bool:
    return one.task.node is not None and one.task.node not in pass_.cluster.nodes


def _orphaned(one: OneOff) -> OneOff:
    state = TaskState.ORPHANED if one.task.node is not None else TaskState.SHUTDOWN
    return one if one.over else one.with_task(one.task.moved(state))


# starting


def _start(pass_: Pass, one: OneOff) -> None:
    edges = one.service.depends_on
    present = list(pass_.draft.tasks(one.stack).values())
    if broken := broken_edge(edges, present):
        _refuse(pass_, one, broken)
        return
    if waiting := waits_for(edges, present):
        _wait(pass_, one, f"waits for {waiting}")
        return
    try:
        _place(pass_, one)
    except Exception as error:  # noqa: BLE001 - told of the one-off; the others go on
        _wait(pass_, one, mistake(error, one.stack))


def _place(pass_: Pass, one: OneOff) -> None:
    effective = of_oneoff(one)
    if problem := networks.ensure_networks(pass_, one.stack, one.spec, change=False):
        _wait(pass_, one, problem)
        return
    if waits := binds.look(pass_, effective, fresh=one.task.state is TaskState.NEW).waits:
        _wait(pass_, one, waits)
        return
    partner = pairs.any_lender(pass_, effective)
    if effective.task.partner and partner is None:
        name = effective.task.partner
        what = effective.task.lent
        _refuse(pass_, one, f"{name}, whose {what} it shares, does not run: corral up -d {name}")
        return
    if partner is not None:
        one = one.with_task(one.task.model_copy(update={"partner": partner.id}))
    view = fleet(pass_)
    there = partner.node if partner is not None else None
    result = place(view, [needs(pass_, one.task, effective, there)], seed=0)
    node = result.assigned.get(one.id)
    if node is None:
        with_ = beside_partner(pass_, one.task)
        _wait(pass_, one, with_ + result.refused.get(one.id, "no node is ready"))
        return
    placed = equipped(pass_, one.task, effective, node, view)
    if isinstance(placed, str):
        _wait(pass_, one, placed)
    else:
        pass_.draft.put_oneoff(one.with_task(placed.with_reason("")))


def _wait(pass_: Pass, one: OneOff, reason: str) -> None:
    task = one.task
    if task.state is not TaskState.PENDING or task.pending_reason != reason:
        pass_.draft.put_oneoff(one.with_task(task.moved(TaskState.PENDING).with_reason(reason)))


def _refuse(pass_: Pass, one: OneOff, reason: str) -> None:
    """End a one-off that can never begin."""
    ended = one.task.moved(TaskState.SHUTDOWN)
    status = ended.status.model_copy(update={"reason": reason})
    pass_.draft.put_oneoff(one.with_task(ended.model_copy(update={"status": status})))


def waits_for(edges: dict[str, Dependency], tasks: Iterable[Task]) -> str:
    """Return what is waited for (``db to be healthy``), or ""; absent services are not."""
    services = _by_service(tasks)
    waiting = [
        edge_words(name, edge)
        for name, edge in sorted(edges.items())
        if name in services and not all(meets(edge.condition, t) for t in services[name])
    ]
    return ", ".join(waiting)


def broken_edge(edges: dict[str, Dependency], tasks: Iterable[Task]) -> str:
    """Return why one of the edges will never be as it asks, or ""."""
    services = _by_service(tasks)
    for name, edge in sorted(edges.items()):
        for task in services.get(name, ()) if edge.required else ():
            if edge.condition is Condition.COMPLETED and task.state in BROKEN:
                why = task.status.reason or task.state.value
                return f"{name} did not complete: {why}; see corral logs {name}"
    return ""


def _by_service(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.service, []).append(task)
    return {name: list(newest_of(mine).values()) for name, mine in found.items()}
