"""The leases of exclusive tasks on this node: kept, counted, told to runners; word given to others.

The controller answers by ``server.py``; members that lost theirs ask by ``images/peers.py``. What
holds when is ``specs/lease.py``. Leases outlive the agent in a store of their own (on the machine
a folder on tmpfs, by which a guard kills what nobody stops: ``guarded.py``).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from specs.lease import AGAIN, TERM, NodeLeases
from specs.wire import LeaseQuestion, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from agent.tasks.effects import Peers
    from agent.tasks.holdings import Holdings
    from specs.wire import LeaseAnswer

log = logging.getLogger(__name__)

ASKS = "the controller has not answered yet"
LOOK = 0.2  # seconds between two looks at how far leases have run, while there are any


class LeaseStore(Protocol):
    """What of the leases survives the agent, within one boot of the machine."""

    def load(self) -> tuple[dict[str, float], tuple[str, ...]]:
        """Return when each task's lease ends, and the members that were told with the last one."""
        ...

    def put(self, until: Mapping[str, float], members: tuple[str, ...]) -> None:
        """Keep exactly these. Raises OSError."""
        ...


class MemoryLeases:
    """Leases that survive as long as this object."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.members: tuple[str, ...] = ()

    def load(self) -> tuple[dict[str, float], tuple[str, ...]]:
        return dict(self.until), self.members

    def put(self, until: Mapping[str, float], members: tuple[str, ...]) -> None:
        self.until, self.members = dict(until), members


class LeaseKeeper:
    """``now``: seconds that count while the machine sleeps or is frozen, too."""

    def __init__(
        self, holdings: Holdings, peers: Peers, store: LeaseStore, now: Callable[[], float]
    ) -> None:
        self._holdings = holdings
        self._peers = peers
        self._store = store
        self._now = now
        until, members = store.load()
        self._leases = NodeLeases(begun=now(), until=until, members=members)
        self._words: dict[str, str] = {}
        self._stages: dict[str, str] = {}  # as runners were told
        self._some = asyncio.Event()  # there are exclusive tasks
        self._asked_at = float("-inf")
        if until:
            self._some.set()

    # What runners ask.

    def stage(self, task: str) -> tuple[str, str]:
        """Return how far an exclusive task's lease is, and why it has none."""
        self._some.set()
        found = self._leases.stage(task, self._now())
        self._stages[task] = found
        return found, self._words.get(task, ASKS)

    # What the controller and other members ask.

    def answered(self, answer: LeaseAnswer) -> LeaseQuestion | Refused:
        """Take the controller's answer to the last question; return the next one."""
        now, seen = self._now(), self._holdings.held.stamp
        if seen is None or answer.stamp.cluster != seen.cluster:
            return Refused(reason="cluster", message="this node is not of that cluster", seen=seen)
        if answer.stamp.epoch < seen.epoch:
            return Refused(reason="epoch", message="a newer controller has spoken", seen=seen)
        self._leases.hear(now)
        # One we were not instructed by gives nothing yet: what fences it off is not durable.
        if answer.stamp.epoch == seen.epoch:
            given = [t for t, why in answer.tasks.items() if not why and self._mine(t)]
            waits = self._leases.answered(answer.question, given, answer.members, now)
            self._words = {t: why for t, why in answer.tasks.items() if why} | waits
            self._keep()
            self._tell()
        question = self._leases.ask(self._now())
        return LeaseQuestion(question=question, holds=self._leases.holds(now))

    def vouch(self) -> bool:
        """Say whether this node has no controller; that binds it for a term."""
        return self._leases.vouch(self._now())

    # Following.

    async def run(self) -> NoReturn:
        """Tell runners how far their leases are, and ask the members once nobody answers."""
        async with asyncio.TaskGroup() as group:
            asking: asyncio.Task[None] | None = None
            while True:
                await self._some.wait()
                self._prune()
                self._tell()
                now = self._now()
                if (
                    (asking is None or asking.done())
                    and self._leases.alone(now)
                    and now - self._asked_at >= AGAIN
                ):
                    asking = group.create_task(self._ask_members(), name="asks the members")
                await asyncio.sleep(LOOK)
        raise AssertionError("it is cancelled only")

    async def _ask_members(self) -> None:
        asked = self._asked_at = self._now()
        members = self._leases.members
        yes: Collection[str] = ()
        if members:
            yes = await self._peers.without_controller(members)
        if self._leases.vouched_for(asked, yes, self._now()):
            self._keep()
            return
        silent = sorted(set(members) - set(yes))
        names = {node: peer.name for node, peer in self._holdings.held.objects.peers.items()}
        told = ", ".join(names.get(node, node) for node in silent)
        why = f"the controller does not answer, and {told} does not, or has one"
        self._words = dict.fromkeys(self._leases.until, why)

    def _keep(self) -> None:
        try:
            self._store.put(self._leases.until, self._leases.members)
        except OSError as error:
            # What the guard does not know of it ends too early, never too late.
            log.warning("leases cannot be written: %s", error)

    def _mine(self, task: str) -> bool:
        runner = self._holdings.runners.get(task)
        return runner is not None and runner.record.assignment.spec.exclusive

    def _prune(self) -> None:
        gone = [t for t in self._leases.until if t not in self._holdings.runners]
        ended = [t for t in gone if self._leases.until[t] + TERM < self._now()]
        for task in ended:
            del self._leases.until[task]
            self._stages.pop(task, None)
        if ended:
            self._keep()
        exclusive = any(self._mine(task) for task in self._holdings.runners)
        if not exclusive and not self._leases.until:
            self._some.clear()

    def _tell(self) -> None:
        now = self._now()
        for task, told in list(self._stages.items()):
            runner = self._holdings.runners.get(task)
            if runner is None:
                del self._stages[task]
            elif (
                self._leases.stage(task, now) != told
                or runner.record.lease != told
                or (told != "held" and runner.record.lease_wait != self._words.get(task, ASKS))
            ):
                runner.look()
