"""Who may start again after its node was restarted: the order of ``depends_on``, kept.

The agent holds a task that depends on others and says so (``TaskStatus.held``, the boot it
waits in); here it is told to go (``Task.admitted``, that boot) as soon as what it depends on is
there. Level-triggered and written down, so that a controller that starts in between goes on.

It orders and never refuses: a dependency that failed, that is on a node which does not answer,
or that nobody wants, is not waited for, and the agent waits a minute at most. A one-off that
completed is not run again for it. Gates of a release are ``gates``'s.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from orchestrator.control.mirror.serving import is_leaving, is_ready
from specs.stack import Condition
from specs.states import BROKEN, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.planning.passes import Pass
    from specs.task import Task


def admit(pass_: Pass, stack: str) -> None:
    """Let those held tasks of a stack start whose dependencies are there."""
    held = [
        task
        for task in pass_.draft.tasks(stack).values()
        if task.status.held and task.status.held != task.admitted and task.live
    ]
    if not held:
        return
    services: dict[str, list[Task]] = defaultdict(list)
    for task in pass_.draft.tasks(stack).values():
        services[task.service].append(task)
    for task in held:
        effective = pass_.specs.of(stack, task.release, task.service)
        edges = effective.service.depends_on if effective is not None else {}
        awaited = (
            name for name, edge in edges.items() if _awaited(pass_, edge.condition, services[name])
        )
        if next(awaited, None) is None:
            pass_.draft.put_task(task.with_admitted(task.status.held))


def _awaited(pass_: Pass, condition: Condition, tasks: Iterable[Task]) -> bool:
    """Say whether a dependency is on its way and not yet as it is asked for."""
    newest: dict[int, Task] = {}
    for task in sorted(tasks, key=lambda t: (t.live, t.created_at, t.id)):
        if not is_leaving(task):
            newest[task.slot] = task
    return any(
        not _meets(pass_, condition, task)
        and task.state not in BROKEN
        and pass_.node_status(task.node) != "down"
        for task in newest.values()
    )


def _meets(pass_: Pass, condition: Condition, task: Task) -> bool:
    if task.state is TaskState.COMPLETE:
        return True
    match condition:
        case Condition.COMPLETED:
            return False
        case Condition.HEALTHY:
            return is_ready(pass_.cluster, task) and pass_.node_status(task.node) == "ready"
        case Condition.STARTED:
            run = task.status.run
            return run is not None and run.alive and pass_.node_status(task.node) == "ready"
