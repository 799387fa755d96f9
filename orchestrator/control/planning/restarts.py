"""Who may restart in place now: `restart` goes along ``restart: true`` edges, as in Compose.

A command only asks (``Task.restart_asked``); here the number is handed on to the node
(``Task.restart``) once what the task follows has been restarted and is as its edge says.
Only services of the same request are waited for. Level-triggered and written down, so that
a controller that starts in between goes on. Looked at for every stack that is up, whether a
release may move it or not.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import edge_words
from orchestrator.control.mirror.released import newest_of
from orchestrator.control.planning import gates
from orchestrator.control.planning.terms import replica
from specs.states import FINAL

if TYPE_CHECKING:
    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack
    from specs.stack import Condition
    from specs.task import Task


def hand_on(pass_: Pass, stack: Stack) -> None:
    """Let tasks restart that were asked to and have nobody to wait for; say of others whom."""
    tasks = pass_.draft.tasks(stack.name).values()
    asked = [t for t in tasks if (t.restart_asked > t.restart or t.grace is not None) and t.live]
    if not asked:
        return
    services: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        services[task.service].append(task)
    for task in asked:
        if task.restart_asked <= task.restart:
            if task.grace is not None and task.status.restart_done >= task.restart:
                pass_.draft.put_task(task.with_grace(None))  # it was for that restart alone
            continue
        effective = pass_.specs.of(stack.name, task.release, task.service)
        edges = effective.service.depends_on if effective is not None else {}
        waits = ", ".join(
            edge_words(name, edge)
            for name, edge in sorted(edges.items())
            if edge.restart and _awaited(pass_, stack, task, name, services[name], edge.condition)
        )
        waits = waits or _room(pass_, task)
        if not waits:
            pass_.draft.put_task(task.with_restart())
        elif waits != task.restart_waits:
            pass_.draft.put_task(task.with_restart_waits(waits))


def _room(pass_: Pass, task: Task) -> str:
    """Say that a node may have no room for another run: the one there is, is kept until it has."""
    condition, run = pass_.cluster.conditions.get(task.node or ""), task.status.run
    if condition is None or not condition.full or run is None or not run.alive:
        return ""
    return f"room on {pass_.cluster.nodes[task.node or ''].name} ({condition.full})"


def _awaited(
    pass_: Pass, stack: Stack, task: Task, name: str, tasks: list[Task], condition: Condition
) -> bool:
    """Say whether a dependency that was asked to restart with the task is not there yet."""
    asked = stack.asked_again.get(name, 0)
    if asked < stack.asked_again.get(task.service, 0) or name in stack.stopped_services:
        return False
    return any(
        not _there(pass_, other, condition, asked)
        for other in newest_of(tasks).values()
        if pass_.node_status(other.node) != "down"
    )


def _there(pass_: Pass, task: Task, condition: Condition, asked: int) -> bool:
    if task.state in FINAL and task.asked < asked:
        return False  # another follows it
    if task.state not in FINAL and task.status.restart_done < task.restart_asked:
        return False
    return gates.meets(condition, replica(pass_, task, None))
