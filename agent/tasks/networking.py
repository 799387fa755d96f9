"""Keep the node's network at the newest set, and say when it is in force.

Whatever changes (the set, a task that becomes ready or is not any more) only sets a flag; the
whole wanted state is handed to the network at most once in 50 ms. ``Holdings.applied`` moves
when it is in force: that is what the controller takes endpoints away by.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from agent.errors import Later
from agent.network.wanted import Wanted
from specs.kit.backoff import Backoff
from specs.wire import NodeSelf

if TYPE_CHECKING:
    from agent.tasks.effects import Networking, Peers
    from agent.tasks.holdings import Holdings
    from agent.tasks.record import Record
    from agent.tasks.reports import Reports

log = logging.getLogger(__name__)

SPACING = 0.05  # seconds between two applications of network state
DEADLINE = 30.0  # seconds a task waits for the network of the instructions that brought it
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
        self._ready: dict[str, bool] = {}
        self._dirty = asyncio.Event()
        self._done = asyncio.Event()

    # What others tell and ask.

    def stale(self) -> None:
        """Take note that the wanted state may have changed."""
        self._dirty.set()

    def changed(self, record: Record) -> None:
        """Move traffic if the task became ready, or is not any more."""
        if self._ready.get(record.id, False) != record.ready:
            self._ready[record.id] = record.ready
            self._dirty.set()

    def forget(self, task: str) -> None:
        """Forget a task that is gone."""
        self._ready.pop(task, None)

    async def known(self) -> None:
        """Wait until the networks of the newest instructions are set up. Raises Later."""
        wanted = self._holdings.generation
        try:
            async with asyncio.timeout(DEADLINE):
                while self._holdings.applied < wanted:
                    self._done.clear()
                    await self._done.wait()
        except TimeoutError:
            why = self._holdings.network_error or "it takes longer than usual"
            raise Later(f"the node's network is not set up yet: {why}") from None

    # Acting.

    async def adopt(self) -> None:
        """After a restart: take over what the tasks there are have, remove the rest."""
        for record in self._holdings.records():
            self._ready[record.id] = record.ready
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
            generation = self._holdings.generation
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
            self._holdings.applied = generation
            self._done.set()
            self._reports.applied()
            await asyncio.sleep(SPACING)

    async def apply(self) -> None:
        """Bring the network to what is held now."""
        held = self._holdings.held
        objects = held.objects
        me = held.me or NodeSelf(node="", name="")
        await self._peers.meet(me, objects.peers)
        wanted = Wanted(
            me=me,
            networks=objects.networks,
            services=objects.services,
            peers=objects.peers,
            assignments=objects.tasks,
            ready=dict(self._ready),
        )
        await self._network.apply(wanted)

    async def leave(self) -> None:
        """Take away everything, once nothing is held."""
        await self.apply()
        await self._network.adopt(set())
