"""`corral state`: what to do with a store that is older than what runs.

The dispatcher found it so (``orchestrator/dispatch/behind.py``) and waits; until somebody has
decided, the API refuses every change and no agent is told anything. Both decisions are written
first and carried out after: killed in between, the controller asks again at its next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from orchestrator.control.adopting import adopt, forgotten, stopped_by_discard
from orchestrator.errors import Conflict
from specs.api import DecidedState, StateReport

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.store.base import Store
    from specs.kit.clock import Clock
    from specs.node import Node
    from specs.wire import HeldSet

log = logging.getLogger(__name__)

TRIES = 5
BEGINS = 25.0  # seconds an answer waits for what was decided to be carried out; then it is later


class OlderState(Protocol):
    """What the dispatcher found."""

    @property
    def words(self) -> str: ...

    @property
    def newer(self) -> tuple[str, ...]: ...


class Asker(Protocol):
    """The dispatcher, as far as this needs it."""

    @property
    def behind(self) -> OlderState | None: ...

    @property
    def blank(self) -> Collection[str]: ...

    async def held(self, nodes: Collection[Node] | None = None) -> dict[str, HeldSet]: ...

    def decide(self, *, discard: bool, taken: Mapping[int, int] = ...) -> None: ...

    async def begun(self) -> None: ...


class StateQuestion:
    """Shows what the question is, and takes the answer."""

    def __init__(
        self, store: Store, cluster: Cluster, sealer: Sealer, agents: Asker, clock: Clock
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._sealer = sealer
        self._agents = agents
        self._clock = clock
        self._one = asyncio.Lock()

    async def show(self) -> StateReport:
        """Return what both answers would do."""
        behind = self._agents.behind
        if behind is None:
            return StateReport()
        members = await self._agents.held()
        helds, found = await self._with_forgotten(members)
        taken = adopt(self._cluster, helds, self._sealer, wall=self._clock.wall(), found=found)
        return StateReport(
            behind=behind.words,
            absent=self._absent(helds),
            adopts=tuple(taken.said),
            stops=tuple(stopped_by_discard(self._cluster, members)),
            newer=behind.newer,
        )

    async def _with_forgotten(
        self, helds: dict[str, HeldSet]
    ) -> tuple[dict[str, HeldSet], dict[str, Node]]:
        """Ask those too whom only their peers know; return all answers, and who they are."""
        lost = forgotten(self._cluster, helds, wall=self._clock.wall())
        if not lost:
            return helds, {}
        more = await self._agents.held(tuple(lost.values()))
        return {**helds, **more}, {node: lost[node] for node in more}

    async def adopt(self, *, without_absent: bool) -> DecidedState:
        """Fill the store from what runs, and go on."""
        async with self._one:
            self._asked()
            for _ in range(TRIES):
                helds, found = await self._with_forgotten(await self._agents.held())
                absent = self._absent(helds)
                if absent and not without_absent:
                    raise Conflict(
                        f"{', '.join(absent)} cannot be asked, so what runs there would not be"
                        " taken over",
                        hint="bring them back first, or say so: corral state adopt --yes",
                    )
                wall = self._clock.wall()
                taken = adopt(self._cluster, helds, self._sealer, wall=wall, found=found)
                if await taken.draft.commit(self._store):
                    break
            else:
                raise Conflict("the store changes under our hands", hint="try again")
            log.warning("the state was taken over from the nodes: %s", "; ".join(taken.said))
            await self._decide(discard=False, taken=_newest(helds))
            return DecidedState(done=tuple(taken.said))

    async def discard(self) -> DecidedState:
        """Believe the store, and go on."""
        async with self._one:
            self._asked()
            stops = stopped_by_discard(self._cluster, await self._agents.held())
            log.warning("what runs and is not in the state is stopped: %s", ", ".join(stops))
            await self._decide(discard=True)
            return DecidedState(done=tuple(f"{name} is stopped" for name in stops))

    async def _decide(self, *, discard: bool, taken: Mapping[int, int] | None = None) -> None:
        """Go on, and wait until that shows: who asks right after must not hear the old question."""
        self._agents.decide(discard=discard, taken=taken or {})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGINS):
                await self._agents.begun()

    def _absent(self, helds: dict[str, HeldSet]) -> tuple[str, ...]:
        """Return the nodes that did not answer, also those only their peers know of."""
        known = helds.keys() | set(self._agents.blank)
        names = {node.name for node in self._cluster.nodes.values() if node.id not in known}
        for held in helds.values():
            peers = held.objects.peers.values()
            unknown = (peer for peer in peers if peer.node not in self._cluster.nodes)
            names |= {peer.name for peer in unknown if peer.node not in helds}
        return tuple(sorted(names))

    def _asked(self) -> None:
        if self._agents.behind is None:
            raise Conflict(
                "there is nothing to decide: the state is as new as what runs",
                hint="corral state",
            )


def _newest(helds: Mapping[str, HeldSet]) -> dict[int, int]:
    """Return the last revision nodes have heard of, by the epoch in which they heard it."""
    found: dict[int, int] = {}
    for held in helds.values():
        if held.stamp is not None:
            epoch = held.stamp.epoch
            found[epoch] = max(found.get(epoch, 0), held.revision)
    return found
