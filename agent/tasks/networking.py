"""Keep the node's network at the newest set, and say when it is in force.

Whatever changes (the set, a task that becomes ready or is not any more) only sets a flag; the
whole wanted state is handed to the network at most once in 50 ms. ``Holdings.applied`` moves
when it is in force: that is what the controller takes endpoints away by.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NoReturn

from agent.errors import Later
from agent.network.wanted import Wanted
from agent.tasks import lifecycle
from specs.kit.backoff import Backoff
from specs.wire import NodeSelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from agent.tasks.effects import Networking, Peers
    from agent.tasks.holdings import Holdings
    from agent.tasks.record import Record
    from agent.tasks.reports import Reports
    from specs.wire import NetworkState

log = logging.getLogger(__name__)

SPACING = 0.05  # seconds between two applications of network state
DEADLINE = 30.0  # seconds a task waits for the network of the instructions that brought it
SETTLE = 5.0  # seconds a start waits for endpoints: an order, which no trouble may turn into "no"
RETRY_FIRST, RETRY_MAX = 0.2, 10.0


class NetworkKeeper:
    """Applies network state, one application at a time."""

    def __init__(
        self, holdings: Holdings, network: Networking, peers: Peers, reports: Reports
    ) -> None:
        self._holdings = holdings
        self._network = network
        self._peers = peers
        self._reports = reports
        self._seen: dict[str, tuple[bool, bool]] = {}  # task -> (ready, holds its network)
        self._networks: dict[str, NetworkState] = {}  # as last applied
        self._dirty = asyncio.Event()
        self._done = asyncio.Event()
        self._changes = 0  # told so far
        self._in_force = 0  # how many of them the network knows

    # What others tell and ask.

    def stale(self) -> None:
        """Take note that the wanted state may have changed."""
        self._changes += 1
        self._dirty.set()

    def changed(self, record: Record) -> None:
        """Move traffic if the task became ready, or is not any more, or has ended."""
        now = _traffic(record)
        if self._seen.get(record.id) != now:
            self._seen[record.id] = now
            self.stale()

    def forget(self, task: str) -> None:
        """Forget a task that is gone."""
        self._seen.pop(task, None)

    async def known(self) -> None:
        """Wait until the networks of the newest instructions are set up. Raises Later."""
        wanted = self._holdings.generation
        try:
            await self._until(lambda: self._holdings.applied >= wanted, DEADLINE)
        except TimeoutError:
            why = self._holdings.network_error or "it takes longer than usual"
            raise Later(f"the node's network is not set up yet: {why}") from None

    async def settled(self) -> None:
        """Wait until all that is known by now of endpoints is in force, SETTLE seconds at most.

        What a command reaches for first is what it was made to wait for: a database that is
        healthy by our word must answer at its VIP when the migration that waited for it starts.
        """
        wanted = self._changes
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: self._in_force >= wanted, SETTLE)

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Look after every application. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not reached():
                self._done.clear()
                await self._done.wait()

    # Acting.

    async def adopt(self) -> None:
        """After a restart: take over what the tasks there are have, remove the rest."""
        for record in self._holdings.records():
            self._seen[record.id] = _traffic(record)
        try:
            await self._network.adopt({*self._holdings.runners, *self._holdings.strays})
        except Exception as error:  # apply() repairs what it can; the agent must come up
            log.exception("networks cannot be adopted")
            self._holdings.network_error = str(error)

    async def run(self) -> NoReturn:
        """Apply what is wanted whenever it changed, until cancelled."""
        backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self._holdings.held.doubt:
                continue  # what is in the kernel serves what runs; the set may lack half of it
            generation, changes = self._holdings.generation, self._changes
            try:
                await self.apply()
            except Exception as error:  # whatever happened: say it, try again
                log.exception("network state cannot be applied")
                self._holdings.network_error = str(error)
                self._dirty.set()
                await asyncio.sleep(backoff.pause())
                continue
            backoff.reset()
            self._holdings.network_error = ""
            self._holdings.applied, self._in_force = generation, changes
            self._done.set()
            self._reports.applied()
            await asyncio.sleep(SPACING)

    async def apply(self) -> None:
        """Bring the network to what is held now."""
        held = self._holdings.held
        objects = held.objects
        me = held.me or NodeSelf(node="", name="")
        await self._peers.meet(me, objects.peers)
        # By the records, not by the set: what left the set may still be serving its last requests.
        records = [r for r in self._holdings.records() if lifecycle.holds_network(r)]
        self._networks = self._needed(objects.networks, records)
        wanted = Wanted(
            me=me,
            networks=self._networks,
            services=objects.services,
            peers=objects.peers,
            assignments={record.id: record.assignment for record in records},
            ready={record.id: record.ready for record in records},
        )
        await self._network.apply(wanted)

    def _needed(
        self, told: Mapping[str, NetworkState], records: Iterable[Record]
    ) -> dict[str, NetworkState]:
        """Return the networks told, and as they last were those that a task here still uses."""
        used = {place.network for record in records for place in record.assignment.networks}
        return {**{n: s for n, s in self._networks.items() if n in used}, **told}

    async def leave(self) -> None:
        """Take away everything, once nothing is held."""
        await self.apply()
        await self._network.adopt(set())


def _traffic(record: Record) -> tuple[bool, bool]:
    return record.ready, lifecycle.holds_network(record)
