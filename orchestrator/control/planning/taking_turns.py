"""Start-first where no node takes both tasks of a slot: the new one then starts after the old one.

Asked by ``placement`` for what found no node. Nothing is stopped for a task that would not find
one even then; ``scheduler.rollout`` has the rest of its way, that of a stop-first update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.place import place_in_steps
from specs.states import Desired, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.steps import Steps
    from scheduler.view import Fleet, Pending
    from specs.task import Task

    Slot = tuple[str, str, int]  # stack, service, number


def after_the_old(
    pass_: Pass,
    refused: Mapping[str, str],
    pending: list[Pending],
    view: Fleet,
    found: Mapping[str, Effective],
    needs: Callable[[Pass, Task, Effective, str | None, list[Task]], Pending],
    *,
    slots: Mapping[Slot, list[Task]],
) -> Steps[set[str]]:
    """Have tasks that no node takes beside those they replace start after them, where that helps.

    So a start-first update goes on where nodes are full, one slot a time; return which these are.
    ``needs``: what a task needs of a node, by the node it is bound to and the tasks of its slot.
    ``slots``: the tasks on nodes that are not over, but for those that stand by.
    """
    others: dict[str, Task] = {}
    for one in pending:
        task = pass_.draft.task(one.task)
        if one.task not in refused or task is None or task.turn or one.instead_of is not None:
            continue
        in_slot = slots.get((task.stack, task.service, task.slot), ())
        before = next((t for t in in_slot if t.live and t.spec_hash != task.spec_hash), None)
        if before is not None and task.desired is Desired.PREPARED and not task.partner:
            others[task.id] = before
    if not others:
        return set()
    again = [
        needs(pass_, task.with_turn("after"), found[task.id], one.node, [others[task.id]])
        for one in pending
        if one.task in others and (task := pass_.draft.task(one.task)) is not None
    ]
    result = yield from place_in_steps(view, again, seed=0)
    for task_id in result.assigned:
        task, before = pass_.draft.task(task_id), others[task_id]
        if task is None:
            continue
        pass_.draft.put_task(task.moved(TaskState.PENDING).with_turn("after").with_reason(""))
        text = (
            f"{task.name} of release {task.release} starts only once that of release "
            f"{before.release} has stopped, though its file says start-first: no node takes both "
            f"({refused[task_id]})"
        )
        pass_.notes.append(("rollout.stop-first", task.stack, text))
    return set(result.assigned)
