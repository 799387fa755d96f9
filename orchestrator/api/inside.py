"""What goes on inside a stack's running tasks: usage, processes, signals. Nodes are asked at once.

A node that does not answer within ``ASK`` leaves its rows without an answer and with the reason:
who asks is shown the others at once.
"""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, TypeVar

from orchestrator.api import named
from orchestrator.api.everywhere import ask_each
from orchestrator.api.stacks import find
from orchestrator.control.mirror.released import task_spec
from orchestrator.control.mirror.serving import stands_by
from specs.inside import InsideRow, InsideRows, Signalled, SignalTasks
from specs.kernel import signal_number
from specs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from orchestrator.contracts import Mirror
    from specs.inside import Paused, PauseStack, SignalStack
    from specs.task import Task

T = TypeVar("T")

ASK = 5.0  # seconds
OLDER = "its agent is of an older version that cannot tell: corral upgrade"


async def usage(parts: ApiParts, request: web.Request, _: None) -> InsideRows:
    stack, tasks = _asked(parts, request)
    nodes = _Nodes(parts, tasks)
    found = await nodes.ask(lambda node: parts.agents.usage(node, stack))
    rows = []
    for task in tasks:
        answer = found.get(task.node or "")
        used = answer.tasks.get(task.id) if answer else None
        if answer is None or used is None:
            rows.append(nodes.row(task).model_copy(update={"reason": nodes.reason(task)}))
            continue
        if not 0 < used.memory_limit <= answer.memory:  # no limit of its own: the node's memory is
            used = used.model_copy(update={"memory_limit": answer.memory})
        rows.append(nodes.row(task).model_copy(update={"usage": used}))
    return InsideRows(tasks=tuple(rows))


async def processes(parts: ApiParts, request: web.Request, _: None) -> InsideRows:
    stack, tasks = _asked(parts, request)
    nodes = _Nodes(parts, tasks)
    found = await nodes.ask(lambda node: parts.agents.processes(node, stack))
    rows = []
    for task in tasks:
        answer = found.get(task.node or "")
        listed = answer.tasks.get(task.id, ()) if answer else ()
        changes = {"processes": listed} if listed else {"reason": nodes.reason(task)}
        rows.append(nodes.row(task).model_copy(update=changes))
    return InsideRows(tasks=tuple(rows))


async def signal(parts: ApiParts, request: web.Request, body: SignalStack) -> Signalled:
    """Send a signal. One that ends a container for good is a stop, else it would be restarted."""
    stack = find(parts, request)
    tasks = _running(parts.cluster, stack.name, body.services)
    ending = {
        task.service
        for task in tasks
        if task.id in parts.cluster.tasks and _ends(parts.cluster, task, body.number)
    }
    if ending:  # it stops services: one of several containers is refused
        named.whole(parts.cluster, stack.name, body.services, "kill")
        grace = 0.0 if body.number == signals.SIGKILL else None
        await parts.control.stop(stack.name, grace, tuple(sorted(ending)))
    beside = parts.cluster.oneoffs
    others = [task for task in tasks if task.service not in ending or task.id in beside]
    nodes = _Nodes(parts, others)

    async def send(node: str) -> tuple[str, ...]:
        ids = tuple(task.id for task in others if task.node == node)
        return await parts.agents.signal(node, SignalTasks(number=body.number, tasks=ids))

    found = await nodes.ask(send)
    missed = [task for task in others if task.id not in found.get(task.node or "", ())]
    return Signalled(
        tasks=tuple(task.name for task in tasks if task not in missed),
        missed={task.name: nodes.reason(task) for task in missed},
        stopping=tuple(sorted(ending)),
    )


async def pause(parts: ApiParts, request: web.Request, body: PauseStack) -> Paused:
    stack = find(parts, request).name
    services, ids = named.single(parts.cluster, stack, body.services)
    return await parts.control.pause(stack, services, paused=body.paused, tasks=ids)


def _asked(parts: ApiParts, request: web.Request) -> tuple[str, list[Task]]:
    stack = find(parts, request).name
    return stack, _running(parts.cluster, stack, request.query.getall("service", ()))


def _running(cluster: Mirror, stack: str, services: Sequence[str]) -> list[Task]:
    """Return the stack's tasks that have a process, in the order of ``ps``. Raises NotFound."""
    asked, ids = named.single(cluster, stack, services)
    mine = list(cluster.tasks_of(stack))
    mine += [one.task for one in cluster.oneoffs.values() if one.id in ids]
    running = (
        task
        for task in mine
        if task.node is not None
        and task.state not in FINAL
        and (run := task.status.run) is not None
        and run.finished_at is None
        and (
            not services
            or task.id in ids
            or (task.service in asked and not stands_by(cluster, task))
        )
    )
    return sorted(running, key=lambda task: (task.service, task.slot, task.created_at, task.id))


def _ends(cluster: Mirror, task: Task, number: int) -> bool:
    """Say whether the signal is one that ends the container as ``stop`` would (Docker's rule)."""
    if number == signals.SIGKILL:
        return True
    spec = task_spec(cluster, task)
    word = (spec.stop_signal if spec else None) or "SIGTERM"
    return number == signal_number(word)


class _Nodes:
    """What nodes answered about tasks, and why the others did not."""

    def __init__(self, parts: ApiParts, tasks: Sequence[Task]) -> None:
        self._parts = parts
        self._tasks = tasks
        self._reasons: dict[str, str] = {}

    async def ask(self, question: Callable[[str], Awaitable[T]]) -> dict[str, T]:
        """Ask every node that has one of the tasks; return the answers by node id."""
        nodes = {task.node for task in self._tasks if task.node is not None}
        answers, self._reasons = await ask_each(nodes, question, seconds=ASK, older=OLDER)
        return answers

    def reason(self, task: Task) -> str:
        """Return why there is no answer about the task."""
        return self._reasons.get(task.node or "", "") or "it has just ended"

    def row(self, task: Task) -> InsideRow:
        node = self._parts.cluster.nodes.get(task.node or "")
        return InsideRow(
            id=task.id,
            name=task.name,
            service=task.service,
            slot=task.slot,
            node=node.name if node else (task.node or ""),
        )
