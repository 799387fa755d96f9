"""Turn the instruction set into runners, and what they see into reports.

``agent/server.py`` hands instructions in and streams reports out. The worker keeps
one runner per task, brings the network to the newest set (at most once in 50 ms,
whatever changed), and adopts everything that runs when the agent starts. It decides
nothing about a single task: that is ``agent/tasks/lifecycle.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from agent.errors import Later, Refusal
from agent.network.wanted import Wanted
from agent.tasks import lifecycle
from agent.tasks.journal import Held, Journal, judge, merge, safe_id
from agent.tasks.runner import Runner, RunnerParts
from specs.states import Desired
from specs.wire import HEARTBEAT, Acknowledged, Instructions, NodeSelf, Refused, Report

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from agent.tasks.effects import Networking
    from agent.tasks.record import Record
    from specs.node import NodeFacts
    from specs.task import TaskStatus
    from specs.wire import Content, Peer

log = logging.getLogger(__name__)

SPACING = 0.05  # seconds between two applications of network state, and between report lines
NETWORK_DEADLINE = 30.0
FACTS_EVERY = 5.0
RETRY_FIRST, RETRY_MAX = 0.2, 10.0


class Subscriber:
    """One reader of the report stream: what it has not been told yet."""

    def __init__(self) -> None:
        self.tasks: set[str] = set()
        self.sent: dict[str, TaskStatus] = {}
        self.gone: set[str] = set()
        self.facts = False
        self.applied = -1
        self.event = asyncio.Event()


class Worker:
    """Everything this node should hold, and how far it is."""

    def __init__(
        self,
        *,
        journal: Journal,
        network: Networking,
        boot: str,
        facts: NodeFacts,
        probe: Callable[[], Awaitable[NodeFacts]],
        warnings: Callable[[], tuple[str, ...]] = tuple,
        join: Callable[[], None] = lambda: None,
        meet: Callable[[NodeSelf, Mapping[str, Peer]], Awaitable[None]] | None = None,
    ) -> None:
        self.facts = facts
        self.held = Held()
        self.applied = 0
        self._journal = journal
        self._network = network
        self._boot = boot
        self._probe = probe
        self._more_warnings = warnings
        self._join = join  # makes the node's directories ready, at the first instruction
        self._meet = meet
        self.adopted = asyncio.Event()
        self._parts: RunnerParts | None = None
        self._group: asyncio.TaskGroup | None = None
        self._runners: dict[str, Runner] = {}
        self._gone: deque[str] = deque(maxlen=1000)  # erased, and out of the set
        self._subscribers: set[Subscriber] = set()
        self._accepting = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._network_done = asyncio.Event()
        self._network_error = ""
        self._ready: dict[str, bool] = {}

    # What runners ask.

    def contents(self) -> Mapping[str, Content]:
        """Return the secrets and configs sent to this node."""
        return self.held.objects.contents

    async def networks_known(self) -> None:
        """Wait until the networks of the newest instructions are set up. Raises Later."""
        wanted = self.held.stamp.generation if self.held.stamp else 0
        try:
            async with asyncio.timeout(NETWORK_DEADLINE):
                while self.applied < wanted:
                    self._network_done.clear()
                    await self._network_done.wait()
        except TimeoutError:
            why = self._network_error or "it takes longer than usual"
            raise Later(f"the node's network is not set up yet: {why}") from None

    def changed(self, record: Record) -> None:
        """Take note of a changed record: report it, and move traffic if need be."""
        for subscriber in self._subscribers:
            subscriber.tasks.add(record.id)
            if record.erased:
                subscriber.gone.add(record.id)
            subscriber.event.set()
        if self._ready.get(record.id, False) != record.ready:
            self._ready[record.id] = record.ready
            self._dirty.set()

    # Running.

    async def run(self, parts: RunnerParts) -> NoReturn:
        """Adopt what is there and work until cancelled; containers stay."""
        self._parts = parts
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._adopt()
            self.adopted.set()
            group.create_task(self._keep_network(), name="network")
            group.create_task(self._keep_facts(), name="facts")
            await asyncio.Event().wait()
        raise AssertionError("the worker ends by being cancelled only")

    async def _adopt(self) -> None:
        assert self._parts is not None
        self.held = self._journal.load()
        records = self._journal.records()
        wall = self._parts.clock.wall()
        for record in records.values():
            adopted = lifecycle.adopted(lifecycle.rebooted(record, self._boot, wall))
            if not record.erased:
                self._begin(adopted)
        for record_id, runner in self._runners.items():
            self._ready[record_id] = runner.record.ready
        known = set(self._runners)
        try:
            await self._network.adopt(known)
        except Exception as error:  # apply() repairs what it can; the agent must come up
            log.exception("networks cannot be adopted")
            self._network_error = str(error)
        await self._parts.preparation.adopt(known)
        await self._sweep(known)
        self._follow_set()
        self._dirty.set()
        if known:
            log.info("adopted tasks", extra={"count": len(known)})

    async def _sweep(self, known: set[str]) -> None:
        """Erase what carries a task's id that no record explains."""
        assert self._parts is not None
        strays = self._journal.strays(known) | self._parts.containers.known() - known
        for task in strays:
            log.warning("erasing what is left of an unknown task", extra={"task": task})
            try:
                await self._parts.preparation.erase_by_name(task)
                self._journal.forget(task)
            except Exception:  # a leftover must not keep the agent from starting
                log.exception("a leftover cannot be erased", extra={"task": task})

    def _begin(self, record: Record) -> None:
        assert self._parts is not None
        assert self._group is not None
        runner = Runner(record, self._parts)
        self._runners[record.id] = runner
        self._group.create_task(self._keep(runner), name=f"runner {record.id}")

    async def _keep(self, runner: Runner) -> None:
        """Run a runner to its end; a bug in one task must not end the agent."""
        delay = RETRY_FIRST
        while True:
            try:
                await runner.run()
            except Exception:  # reported, and tried again
                log.exception("a runner failed", extra={"task": runner.record.id})
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MAX)
                continue
            break
        self._dirty.set()
        self._drop_if_gone(runner)

    def _drop_if_gone(self, runner: Runner) -> None:
        task = runner.record.id
        if runner.record.erased and task not in self.held.objects.tasks:
            self._runners.pop(task, None)
            self._ready.pop(task, None)
            if task not in self._gone:
                self._gone.append(task)

    # Instructions.

    async def accept(self, instructions: Instructions) -> Acknowledged | Refused:
        """Take instructions: durable before this returns. Raises Refusal, OSError."""
        _check_ids(instructions)
        async with self._accepting:
            refused = judge(self.held.stamp, instructions)
            if refused is not None:
                return refused
            held = merge(self.held, instructions)
            if held is not self.held:
                if self.held.stamp is None:
                    self._join()
                await asyncio.to_thread(self._journal.accept, instructions, held)
                self.held = held
                self._follow_set()
                self._dirty.set()
            return Acknowledged(generation=instructions.stamp.generation)

    def _follow_set(self) -> None:
        """Give every task of the set a runner, and tell the others that they are not wanted."""
        wanted = self.held.objects.tasks
        for task, assignment in wanted.items():
            runner = self._runners.get(task)
            if runner is None:
                self._begin(lifecycle.fresh(assignment, self._boot))
                for subscriber in self._subscribers:
                    subscriber.tasks.add(task)
                    subscriber.event.set()
            else:
                runner.assign(assignment)
        for task, runner in list(self._runners.items()):
            if task not in wanted:
                if runner.record.erased:
                    self._drop_if_gone(runner)
                else:
                    removed = runner.record.assignment.model_copy(
                        update={"desired": Desired.REMOVED}
                    )
                    runner.assign(removed)

    # Network.

    async def _keep_network(self) -> NoReturn:
        delay = RETRY_FIRST
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            generation = self.held.stamp.generation if self.held.stamp else 0
            try:
                await self._apply()
            except Exception as error:  # whatever happened: say it, try again
                log.exception("network state cannot be applied")
                self._network_error = str(error)
                self._dirty.set()
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MAX)
                continue
            delay = RETRY_FIRST
            self._network_error = ""
            self.applied = generation
            self._network_done.set()
            for subscriber in self._subscribers:
                subscriber.event.set()
            await asyncio.sleep(SPACING)

    async def _apply(self) -> None:
        held = self.held
        objects = held.objects
        me = held.me or NodeSelf(node="", name="")
        if self._meet is not None:
            await self._meet(me, objects.peers)
        await self._network.apply(
            Wanted(
                me=me,
                networks=objects.networks,
                services=objects.services,
                peers=objects.peers,
                assignments=objects.tasks,
                ready=dict(self._ready),
            )
        )

    async def _keep_facts(self) -> NoReturn:
        while True:
            await asyncio.sleep(FACTS_EVERY)
            try:
                facts = await self._probe()
            except Exception:  # the old facts stay; the next look may succeed
                log.exception("the node cannot be probed")
                continue
            if facts != self.facts:
                self.facts = facts
                for subscriber in self._subscribers:
                    subscriber.facts = True
                    subscriber.event.set()

    # Reports.

    def record(self, task: str) -> Record | None:
        """Return what is known of a task."""
        runner = self._runners.get(task)
        return runner.record if runner else None

    def records(self) -> list[Record]:
        """Return every task's record."""
        return [runner.record for runner in self._runners.values()]

    def full_report(self) -> Report:
        """Return everything that is known."""
        return Report(
            applied=self.applied,
            full=True,
            tasks={
                task: runner.record.status()
                for task, runner in self._runners.items()
                if not runner.record.erased
            },
            gone=tuple(self._erased()),
            facts=self.facts,
            warnings=self._warnings(),
        )

    def _erased(self) -> list[str]:
        here = [task for task, runner in self._runners.items() if runner.record.erased]
        return [*here, *self._gone]

    def _warnings(self) -> tuple[str, ...]:
        more = tuple(self._more_warnings())
        if not self._network_error:
            return more
        return (f"network state cannot be applied: {self._network_error}", *more)

    async def reports(self) -> AsyncGenerator[Report, None]:
        """Yield a full report, then changes; at least one each HEARTBEAT seconds."""
        me = Subscriber()
        self._subscribers.add(me)
        try:
            full = self.full_report()
            me.sent, me.applied = dict(full.tasks), full.applied
            yield full
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await me.event.wait()
                # Changes come in groups: one line for all of them.
                await asyncio.sleep(0.005)
                report = self._changes(me)
                if report is not None:
                    yield report
        finally:
            self._subscribers.discard(me)

    def _changes(self, me: Subscriber) -> Report | None:
        """Return what this subscriber does not know yet; an empty line is the heartbeat."""
        woken = me.event.is_set()
        me.event.clear()
        tasks: dict[str, TaskStatus] = {}
        for task in me.tasks:
            runner = self._runners.get(task)
            if runner is None or runner.record.erased:
                continue
            status = runner.record.status()
            if me.sent.get(task) != status:
                tasks[task] = me.sent[task] = status
        gone, facts = tuple(sorted(me.gone)), self.facts if me.facts else None
        for task in gone:
            me.sent.pop(task, None)
        nothing = not (tasks or gone or facts or me.applied != self.applied)
        me.tasks, me.gone, me.facts, me.applied = set(), set(), False, self.applied
        if woken and nothing:
            return None
        return Report(
            applied=self.applied, tasks=tasks, gone=gone, facts=facts, warnings=self._warnings()
        )

    # Leaving.

    async def leave(self, timeout: float = 120.0) -> list[str]:
        """Erase every task and all network state; return ids of tasks that would not go."""
        async with self._accepting:
            self.held = Held(self.held.stamp, self.held.me)
            self._follow_set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while any(not r.record.erased for r in self._runners.values()):
                        await asyncio.sleep(0.02)
            left = [task for task, r in self._runners.items() if not r.record.erased]
            if not left:
                await self._apply()
                await self._network.adopt(set())
                await asyncio.to_thread(self._journal.leave)
                self.held, self.applied = Held(), 0
            return left


def _check_ids(instructions: Instructions) -> None:
    for task, assignment in instructions.put.tasks.items():
        if task != assignment.id or not safe_id(task):
            raise Refusal(f"task id {task!r} is not a legal one, or not the assignment's own")
    for key in instructions.put.contents:
        if not safe_id(key):
            raise Refusal(f"content id {key!r} is not a legal one")
