"""What goes on inside this node's running tasks (``specs/inside.py``), for the server to answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent.tasks.record import Phase
from specs.inside import NodeProcesses, NodeUsage

if TYPE_CHECKING:
    from agent.runtime.containers import OciContainers
    from agent.tasks.compose import TaskParts
    from agent.vocabulary import Process
    from specs.inside import SignalTasks


class Inside:
    """Questions about running tasks; the kernel is read in a thread."""

    def __init__(self, tasks: TaskParts, containers: OciContainers) -> None:
        self._tasks = tasks
        self._containers = containers

    async def usage(self, stack: str | None) -> NodeUsage:
        """Return what the stack's running tasks use; None = every stack's."""
        running, memory = self._running(stack), self._tasks.reports.facts.memory

        def look() -> NodeUsage:
            found = {task: self._containers.usage(task, process) for task, process in running}
            known = {task: one for task, one in found.items() if one is not None}
            return NodeUsage(tasks=known, memory=memory)

        return await asyncio.to_thread(look)

    async def processes(self, stack: str | None) -> NodeProcesses:
        """Return the processes of the stack's running tasks; None = every stack's."""
        running = self._running(stack)

        def look() -> NodeProcesses:
            return NodeProcesses(
                tasks={task: self._containers.processes(task) for task, _ in running}
            )

        return await asyncio.to_thread(look)

    def signal(self, asked: SignalTasks) -> list[str]:
        """Send a signal to first processes; return the ids of the tasks that got it."""
        running = dict(self._running(None))
        return [
            task
            for task in asked.tasks
            if task in running and self._containers.send(running[task], asked.number)
        ]

    def _running(self, stack: str | None) -> list[tuple[str, Process]]:
        return [
            (record.id, record.process)
            for record in self._tasks.holdings.records()
            if record.process is not None
            and record.phase is Phase.RUNNING
            and stack in (None, record.assignment.stack)
        ]
