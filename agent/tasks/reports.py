"""Tell the controller what this node sees: everything first, then what changed.

Each reader of the stream (``agent/server.py``) is a :class:`Subscriber` with what it has not
been told yet; changes that come together are one line. An empty line is the heartbeat.
The facts of the machine are looked at here too, because they are reported when they change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NoReturn

from specs.states import WANTED, Desired, TaskState
from specs.wire import HEARTBEAT, Report

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from agent.tasks.holdings import Holdings
    from agent.tasks.record import Record
    from specs.node import NodeFacts
    from specs.task import TaskStatus

log = logging.getLogger(__name__)

FACTS_EVERY = 5.0
TOGETHER = 0.005  # seconds in which changes become one line
# The same for the steps of a start, which nobody waits for: each line is a pass of the controller.
STEPS = 0.03
_ON_ITS_WAY = frozenset(
    {TaskState.ASSIGNED, TaskState.PREPARING, TaskState.PREPARED, TaskState.STARTING}
)


class Subscriber:
    """One reader of the report stream: what it has not been told yet."""

    def __init__(self) -> None:
        self.tasks: set[str] = set()
        self.sent: dict[str, TaskStatus] = {}
        self.gone: set[str] = set()
        self.facts = False
        self.applied = -1
        self.event = asyncio.Event()  # there is something to tell
        self.pressing = asyncio.Event()  # and it is more than a step of a start

    def woken(self, *, pressing: bool = True) -> None:
        """Have it told what it does not know yet."""
        self.event.set()
        if pressing:
            self.pressing.set()


class Reports:
    """The report stream of one node."""

    def __init__(
        self,
        holdings: Holdings,
        *,
        facts: NodeFacts,
        look: Callable[[], Awaitable[NodeFacts]],
        warnings: Callable[[], tuple[str, ...]],
        trouble: Callable[[], str],
        mtu: Callable[[], int],
        volumes: Callable[[], tuple[str, ...]],
        room: Callable[[], str],
        wall: Callable[[], float],
    ) -> None:
        self._machine = facts
        self._holdings = holdings
        self._look = look
        self._more_warnings = warnings
        self._more_trouble = trouble
        self._mtu = mtu
        self._volumes = volumes
        self._room = room
        self._wall = wall
        self._subscribers: set[Subscriber] = set()

    # What others tell.

    @property
    def facts(self) -> NodeFacts:
        """Return what the machine is, and what the agent cannot read on it."""
        unread, settled = self._holdings.unread, self._holdings.settled
        if not unread and not settled:
            return self._machine
        told = (f"could not be read; it is kept, and was said anew: {one}" for one in settled)
        return self._machine.with_unread(unread, tuple(told))

    @facts.setter
    def facts(self, facts: NodeFacts) -> None:
        self._machine = facts

    def unread(self) -> None:
        """Take note that what cannot be read is more or less than it was."""
        for subscriber in self._subscribers:
            subscriber.facts = True
            subscriber.woken()

    def changed(self, record: Record) -> None:
        """Take note of a changed record."""
        pressing = not is_a_step(record)
        for subscriber in self._subscribers:
            subscriber.tasks.add(record.id)
            if record.erased:
                subscriber.gone.add(record.id)
            subscriber.woken(pressing=pressing)

    def applied(self) -> None:
        """Take note of network state that is in force now."""
        for subscriber in self._subscribers:
            subscriber.woken()

    async def keep_facts(self) -> NoReturn:
        """Look at the machine again and again."""
        while True:
            await asyncio.sleep(FACTS_EVERY)
            try:
                facts = await self._look()
            except Exception:  # the old facts stay; the next look may succeed
                log.exception("the node cannot be probed")
                continue
            if facts != self._machine:
                self._machine = facts
                for subscriber in self._subscribers:
                    subscriber.facts = True
                    subscriber.woken()

    # What readers get.

    def full(self) -> Report:
        """Return everything that is known."""
        return Report(
            applied=self._holdings.applied,
            full=True,
            tasks={
                record.id: record.status()
                for record in self._holdings.records()
                if not record.erased
            },
            gone=tuple(self._holdings.erased()),
            facts=self.facts,
            warnings=self._warnings(),
            trouble=self._trouble(),
            room=self._room(),
            mtu=self._mtu(),
            volumes=self._volumes(),
            clock=self._wall(),
        )

    def _trouble(self) -> str:
        return self._holdings.network_error or self._more_trouble()

    def _warnings(self) -> tuple[str, ...]:
        more = tuple(self._more_warnings())
        error = self._holdings.network_error
        return (f"network state cannot be applied: {error}", *more) if error else more

    async def stream(self, heartbeat: float = HEARTBEAT) -> AsyncGenerator[Report, None]:
        """Yield a full report, then changes; at least one each ``heartbeat`` seconds."""
        me = Subscriber()
        self._subscribers.add(me)
        try:
            full = self.full()
            me.sent, me.applied = dict(full.tasks), full.applied
            yield full
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat):
                        await me.event.wait()
                        async with asyncio.timeout(STEPS):
                            await me.pressing.wait()
                await asyncio.sleep(TOGETHER)
                report = self._changes(me)
                if report is not None:
                    yield report
        finally:
            self._subscribers.discard(me)

    def _changes(self, me: Subscriber) -> Report | None:
        """Return what this subscriber does not know yet; an empty line is the heartbeat."""
        woken = me.event.is_set()
        me.event.clear()
        me.pressing.clear()
        applied = self._holdings.applied
        tasks: dict[str, TaskStatus] = {}
        for task in sorted(me.tasks):  # the same order whatever the hashes
            record = self._holdings.record(task)
            if record is None or record.erased:
                continue
            status = record.status()
            if me.sent.get(task) != status:
                tasks[task] = me.sent[task] = status
        gone, facts = tuple(sorted(me.gone)), self.facts if me.facts else None
        for task in gone:
            me.sent.pop(task, None)
        nothing = not (tasks or gone or facts or me.applied != applied)
        me.tasks, me.gone, me.facts, me.applied = set(), set(), False, applied
        if woken and nothing:
            return None
        return Report(
            applied=applied,
            tasks=tasks,
            gone=gone,
            facts=facts,
            warnings=self._warnings(),
            trouble=self._trouble(),
            room=self._room(),
            mtu=self._mtu(),
            clock=self._wall(),
        )


def is_a_step(record: Record) -> bool:
    """Say whether a record tells only how far a start is, which others do not go on from."""
    if record.state is TaskState.PREPARED and record.assignment.desired is Desired.PREPARED:
        return False  # that is what it was asked for
    return record.state in _ON_ITS_WAY and not record.erased and record.assignment.desired in WANTED
