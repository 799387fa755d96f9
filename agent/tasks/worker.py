"""Turn the instruction set into runners: one for each task that is, or was, wanted.

``agent/server.py`` hands instructions in; they are durable before they are acknowledged. At its
start the worker adopts everything that runs (``adoption.py``) and erases what nothing explains.
It decides nothing about a single task: that is ``lifecycle.py``. Network state is
``networking.py``'s business, what the controller is told ``reports.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NoReturn

from agent.errors import Refusal
from agent.tasks import lifecycle
from agent.tasks.adoption import Adopt, Found, Leave, Sweep, judge
from agent.tasks.held import Held, judge_leave, merge
from agent.tasks.held import judge as may_instruct
from agent.tasks.holdings import Stray
from agent.tasks.journal import safe_id
from agent.tasks.reboot import rebooted
from agent.tasks.record import Phase
from agent.tasks.runner import Runner
from specs.kit.backoff import Backoff
from specs.kit.failpoints import reached
from specs.states import WANTED, Desired
from specs.wire import Acknowledged, Instructions, LeaveCluster, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from agent.tasks.adoption import Verdict
    from agent.tasks.holdings import Holdings
    from agent.tasks.leases import LeaseKeeper
    from agent.tasks.networking import NetworkKeeper
    from agent.tasks.record import Record
    from agent.tasks.reports import Reports
    from agent.tasks.runner import RunnerParts
    from specs.wire import Assignment

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MAX = 0.2, 10.0
CATCH_UP = 5.0  # seconds between two looks whether a full disk has room
SETTLED = 5  # things that could not be read are told after they matter no more, until we end


class Worker:
    """Gives every task its runner, and follows the instructions."""

    def __init__(
        self,
        holdings: Holdings,
        parts: RunnerParts,
        *,
        reports: Reports,
        networking: NetworkKeeper,
        leases: LeaseKeeper,
        boot: str,
        join: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.adopted = asyncio.Event()
        self._holdings = holdings
        self._parts = parts
        self._journal = parts.journal
        self._reports = reports
        self._networking = networking
        self._leases = leases
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
            group.create_task(self._catch_up(), name="what is owed")
            group.create_task(self._leases.run(), name="leases")
            await asyncio.Event().wait()
        raise AssertionError("the worker ends by being cancelled only")

    async def _catch_up(self) -> NoReturn:
        """Write what a full disk had no room for."""
        while True:
            await asyncio.sleep(CATCH_UP)
            if self._journal.behind or self._journal.fault:
                async with self._accepting:
                    with contextlib.suppress(OSError):  # said already; the next look tries again
                        await asyncio.to_thread(self._journal.catch_up, self._holdings.held)
            for runner in list(self._holdings.runners.values()):
                if runner.record.assignment.desired is not Desired.REMOVED:
                    runner.rewrite(owed=True)

    async def _adopt(self) -> None:
        holdings = self._holdings
        # In a thread: what opens it is large to import, and the set may be.
        held = holdings.held = await asyncio.to_thread(self._journal.load)
        leftovers = []
        for task, found in (await self._found(held)).items():
            reached("adopt.mid_scan")
            verdict = self._judge(found)
            match verdict:
                case Adopt(record):
                    if record.erased:
                        leftovers.append(task)
                    else:
                        self._take_over(record, again=bool(found.damaged))
                case Leave(why):
                    holdings.strays[task] = Stray(found, why)
                case Sweep():
                    leftovers.append(task)
                case None:
                    pass
        holdings.notes = dict(self._journal.notes)
        known = {*holdings.runners, *holdings.strays}
        await self._networking.adopt()
        await self._parts.preparation.adopt(known)
        await self._sweep(leftovers)
        reached("adopt.after_scan")
        self._follow_set()
        self._networking.stale()
        if holdings.unread:
            log.warning("not all could be read: %s", "; ".join(holdings.unread))
        if known:
            log.info("adopted tasks", extra={"count": len(known)})

    async def _found(self, held: Held) -> dict[str, Found]:
        """Return what there is of every task that anything here tells of."""
        records, damaged = self._journal.records(), self._journal.damaged
        containers = self._parts.containers
        names = {*records, *damaged, *held.objects.tasks, *self._journal.strays(set())}
        there = containers.known()
        found = {}
        for task in sorted(names | there):
            record = records.get(task)
            # Only where the record may be behind: a look costs a program's start.
            asked = task in there and (record is None or record.phase is Phase.NONE)
            found[task] = Found(
                record=record,
                damaged=damaged.get(task, ""),
                run=await containers.find(task) if asked or task in damaged else None,
                assignment=held.objects.tasks.get(task),
                unread=held.unread.get(task, ()),
            )
        return found

    def _judge(self, found: Found) -> Verdict | None:
        clock = self._parts.clock
        return judge(
            found,
            doubt=self._holdings.held.doubt,
            boot=self._boot,
            now=clock.monotonic(),
            wall=clock.wall(),
        )

    def _take_over(self, record: Record, *, again: bool) -> None:
        """Give a task its runner; ``again`` = its record is written anew, the old one is kept."""
        now, wall = self._parts.clock.monotonic(), self._parts.clock.wall()
        runner = self._begin(lifecycle.adopted(rebooted(record, self._boot, now, wall)))
        if again:
            runner.rewrite()

    async def _sweep(self, strays: Iterable[str]) -> None:
        """Erase what carries a task's id that nothing explains."""
        for task in strays:
            log.warning("erasing what is left of an unknown task", extra={"task": task})
            try:
                await self._parts.preparation.erase_by_name(task)
                await asyncio.to_thread(self._journal.forget, task)
            except Exception:  # a leftover must not keep the agent from starting
                log.exception("a leftover cannot be erased", extra={"task": task})

    def _begin(self, record: Record) -> Runner:
        assert self._group is not None
        runner = Runner(record, self._parts)
        self._holdings.runners[record.id] = runner
        self._group.create_task(self._keep(runner), name=f"runner {record.id}")
        return runner

    def _begin_new(self, assignment: Assignment) -> None:
        record = lifecycle.fresh(assignment, self._boot)
        self._begin(record)
        self._reports.changed(record)
        # Now, with the set it came in: its first step would have the network applied once more.
        self._networking.changed(record)

    def _wanted_again(self, runner: Runner) -> bool:
        """Begin a task anew that was erased and is wanted all the same.

        No controller goes back on its word but one that was told to believe an older state.
        """
        wanted = self._holdings.held.objects.tasks.get(runner.record.id)
        if wanted is None or wanted.desired not in WANTED or not runner.record.erased:
            return False
        self._begin_new(wanted)
        return True

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
        if not self._wanted_again(runner):
            self._drop_if_gone(runner.record.id)

    def _drop_if_gone(self, task: str) -> None:
        self._holdings.drop_if_gone(task)
        if task not in self._holdings.runners:
            self._networking.forget(task)

    # Instructions.

    async def accept(self, instructions: Instructions) -> Acknowledged | Refused:
        """Take instructions: durable before this returns. Raises Refusal, OSError."""
        _check_ids(instructions)
        reached("cmd.received")
        async with self._accepting:
            before = self._holdings.held
            refused = may_instruct(before.stamp, instructions)
            if refused is not None:
                return refused
            if before.doubt and instructions.base is not None:
                return Refused(reason="base", message=before.doubt, seen=before.stamp)
            held = merge(before, instructions)
            if held is not before:
                if before.stamp is None and self._join is not None:
                    await self._join()
                try:
                    await asyncio.to_thread(self._journal.accept, instructions, held)
                except OSError:
                    self._holdings.held = self._journal.fenced(before)
                    raise
                reached("cmd.persisted")
                self._holdings.held = held
                if instructions.base is None:
                    self._settle_doubts()
                self._follow_set()
                self._networking.stale()
                self._sweep_slots(before)
            reached("cmd.before_reply")
            return Acknowledged(generation=instructions.stamp.generation)

    def _sweep_slots(self, before: Held) -> None:
        """Remove what slots had that are gone; a task that still ends removes its own."""
        if before.objects.slots != self._holdings.held.objects.slots and self._group is not None:
            self._group.create_task(self._parts.preparation.sweep(), name="sweep of slots")

    def _settle_doubts(self) -> None:
        """Do what the whole set says of the tasks that were left as they are, and of all else."""
        holdings = self._holdings
        if not holdings.unread:
            return
        holdings.settled = tuple(dict.fromkeys((*holdings.settled, *holdings.unread)))[-SETTLED:]
        strays, holdings.strays = holdings.strays, {}
        leftovers = []
        for task, stray in strays.items():
            verdict = self._judge(stray.found.told(holdings.held.objects.tasks.get(task)))
            if isinstance(verdict, Adopt):
                self._take_over(verdict.record, again=True)
            elif task not in holdings.held.objects.tasks:
                leftovers.append(task)
        for task, runner in holdings.runners.items():
            if task in self._journal.unclear:
                runner.rewrite()  # as it was found it is kept beside
        self._journal.unclear.clear()
        holdings.notes = {}
        self._reports.unread()
        if leftovers:
            assert self._group is not None
            self._group.create_task(self._sweep(leftovers), name="sweep")

    def _follow_set(self) -> None:
        """Give every task of the set a runner, and tell the others that they are not wanted."""
        held, runners = self._holdings.held, self._holdings.runners
        wanted = held.objects.tasks
        for task, assignment in wanted.items():
            runner = runners.get(task)
            if task in self._holdings.strays or (held.doubt or task in held.unread):
                continue
            if runner is None:
                self._begin_new(assignment)
            elif not self._wanted_again(runner):
                runner.assign(assignment)
        for task, runner in list(runners.items()):
            if task not in wanted and not held.doubt:
                if runner.record.erased:
                    self._drop_if_gone(task)
                else:
                    runner.assign(runner.record.assignment.with_desired(Desired.REMOVED))

    # Leaving.

    async def leave(
        self, asked: LeaveCluster | None = None, *, timeout: float = 120.0
    ) -> list[str] | Refused:
        """Erase every task and all network state; return ids of tasks that would not go.

        ``asked``: who wants it, by whom it is refused where that is of before; None = it is not
        known (a controller one release older), and obeyed.
        """
        holdings = self._holdings
        async with self._accepting:
            if asked is not None and (refused := judge_leave(holdings.held, asked)) is not None:
                return refused
            holdings.held = Held(holdings.held.stamp, holdings.held.me)
            self._settle_doubts()
            self._follow_set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while any(not record.erased for record in holdings.records()):
                        await asyncio.sleep(0.02)
            left = [record.id for record in holdings.records() if not record.erased]
            if not left:
                await self._parts.preparation.sweep()
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
