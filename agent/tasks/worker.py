"""Turn the instruction set into runners: one for each task that is, or was, wanted.

``agent/server.py`` hands instructions in; they are durable before they are acknowledged. At its
start the worker adopts everything that runs and erases what no record explains. It decides
nothing about a single task: that is ``lifecycle.py``. Network state is ``networking.py``'s
business, what the controller is told ``reports.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NoReturn

from agent.errors import Refusal
from agent.tasks import lifecycle
from agent.tasks.journal import Held, judge, merge, safe_id
from agent.tasks.reboot import rebooted
from agent.tasks.runner import Runner
from specs.kit.backoff import Backoff
from specs.states import Desired
from specs.wire import Acknowledged, Instructions, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.tasks.holdings import Holdings
    from agent.tasks.networking import NetworkKeeper
    from agent.tasks.record import Record
    from agent.tasks.reports import Reports
    from agent.tasks.runner import RunnerParts

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MAX = 0.2, 10.0


class Worker:
    """Gives every task its runner, and follows the instructions."""

    def __init__(
        self,
        holdings: Holdings,
        parts: RunnerParts,
        *,
        reports: Reports,
        networking: NetworkKeeper,
        boot: str,
        join: Callable[[], None] = lambda: None,
    ) -> None:
        self.adopted = asyncio.Event()
        self._holdings = holdings
        self._parts = parts
        self._journal = parts.journal
        self._reports = reports
        self._networking = networking
        self._boot = boot
        self._join = join  # makes the node's directories ready, at the first instruction
        self._group: asyncio.TaskGroup | None = None
        self._accepting = asyncio.Lock()

    # Running.

    async def run(self) -> NoReturn:
        """Adopt what is there and work until cancelled; containers stay."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._adopt()
            self.adopted.set()
            group.create_task(self._networking.run(), name="network")
            group.create_task(self._reports.keep_facts(), name="facts")
            await asyncio.Event().wait()
        raise AssertionError("the worker ends by being cancelled only")

    async def _adopt(self) -> None:
        self._holdings.held = self._journal.load()
        now, wall = self._parts.clock.monotonic(), self._parts.clock.wall()
        for record in self._journal.records().values():
            adopted = lifecycle.adopted(rebooted(record, self._boot, now, wall))
            if not record.erased:
                self._begin(adopted)
        known = set(self._holdings.runners)
        await self._networking.adopt()
        await self._parts.preparation.adopt(known)
        await self._sweep(known)
        self._follow_set()
        self._networking.stale()
        if known:
            log.info("adopted tasks", extra={"count": len(known)})

    async def _sweep(self, known: set[str]) -> None:
        """Erase what carries a task's id that no record explains."""
        strays = self._journal.strays(known) | self._parts.containers.known() - known
        for task in strays:
            log.warning("erasing what is left of an unknown task", extra={"task": task})
            try:
                await self._parts.preparation.erase_by_name(task)
                self._journal.forget(task)
            except Exception:  # a leftover must not keep the agent from starting
                log.exception("a leftover cannot be erased", extra={"task": task})

    def _begin(self, record: Record) -> None:
        assert self._group is not None
        runner = Runner(record, self._parts)
        self._holdings.runners[record.id] = runner
        self._group.create_task(self._keep(runner), name=f"runner {record.id}")

    async def _keep(self, runner: Runner) -> None:
        """Run a runner to its end; a bug in one task must not end the agent."""
        backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        while True:
            try:
                await runner.run()
            except Exception:  # reported, and tried again
                log.exception("a runner failed", extra={"task": runner.record.id})
                await asyncio.sleep(backoff.pause())
                continue
            break
        self._networking.stale()
        self._drop_if_gone(runner.record.id)

    def _drop_if_gone(self, task: str) -> None:
        self._holdings.drop_if_gone(task)
        if task not in self._holdings.runners:
            self._networking.forget(task)

    # Instructions.

    async def accept(self, instructions: Instructions) -> Acknowledged | Refused:
        """Take instructions: durable before this returns. Raises Refusal, OSError."""
        _check_ids(instructions)
        async with self._accepting:
            before = self._holdings.held
            refused = judge(before.stamp, instructions)
            if refused is not None:
                return refused
            held = merge(before, instructions)
            if held is not before:
                if before.stamp is None:
                    self._join()
                await asyncio.to_thread(self._journal.accept, instructions, held)
                self._holdings.held = held
                self._follow_set()
                self._networking.stale()
            return Acknowledged(generation=instructions.stamp.generation)

    def _follow_set(self) -> None:
        """Give every task of the set a runner, and tell the others that they are not wanted."""
        wanted, runners = self._holdings.held.objects.tasks, self._holdings.runners
        for task, assignment in wanted.items():
            runner = runners.get(task)
            if runner is None:
                record = lifecycle.fresh(assignment, self._boot)
                self._begin(record)
                self._reports.changed(record)
            else:
                runner.assign(assignment)
        for task, runner in list(runners.items()):
            if task not in wanted:
                if runner.record.erased:
                    self._drop_if_gone(task)
                else:
                    runner.assign(runner.record.assignment.with_desired(Desired.REMOVED))

    # Leaving.

    async def leave(self, timeout: float = 120.0) -> list[str]:
        """Erase every task and all network state; return ids of tasks that would not go."""
        holdings = self._holdings
        async with self._accepting:
            holdings.held = Held(holdings.held.stamp, holdings.held.me)
            self._follow_set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while any(not record.erased for record in holdings.records()):
                        await asyncio.sleep(0.02)
            left = [record.id for record in holdings.records() if not record.erased]
            if not left:
                await self._networking.leave()
                await asyncio.to_thread(self._journal.leave)
                holdings.held, holdings.applied = Held(), 0
            return left


def _check_ids(instructions: Instructions) -> None:
    for task, assignment in instructions.put.tasks.items():
        if task != assignment.id or not safe_id(task):
            raise Refusal(f"task id {task!r} is not a legal one, or not the assignment's own")
    for key in instructions.put.contents:
        if not safe_id(key):
            raise Refusal(f"content id {key!r} is not a legal one")
