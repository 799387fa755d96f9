"""Play a release through in a fork of the mirror: pass after pass, in a time of its own.

The passes are those of ``planning.stacks``; between two of them the ``World`` reports what is
done by then, and where nothing is, the clock goes on to when something will be. It ends when the
release did and nothing of it moves any more, or when it takes too much of the controller's time.
"""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.forecast.reasons import why
from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.observed import BY_HAND
from orchestrator.control.mirror.records import RELEASES
from orchestrator.control.mirror.serving import is_leaving, serving
from orchestrator.control.planning import releases, stacks
from orchestrator.control.planning.addresses import Addresses
from orchestrator.control.planning.passes import Pass, earliest
from orchestrator.control.planning.room import fleet
from orchestrator.control.turns import undisturbed
from orchestrator.errors import RequestError
from specs.states import OVER, Desired
from specs.task import Task

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

    from orchestrator.contracts import Agents
    from orchestrator.control.forecast.world import World
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Specs
    from orchestrator.control.mirror.observed import Observed
    from specs.api import Homeless, Release

MOST_PASSES = 4_000
MOST_WORK = 5.0  # seconds of the controller's own time
ANSWER = 5.0  # seconds a node has to say which paths it has
LOOK_AGAIN = 0.01
AFTERWARDS = 90.0  # seconds after the release's end in which what was told to go is gone


@dataclass
class PlayClock:
    """Both clocks as they were at the beginning, ``passed`` seconds later."""

    begun: float  # monotonic
    begun_wall: float
    passed: float = 0.0

    def wall(self) -> float:
        return self.begun_wall + self.passed

    def monotonic(self) -> float:
        return self.begun + self.passed


class Nobody:
    """Who hears of endpoints in a forecast: then nobody has to confirm anything."""

    def interested(self, networks: Iterable[str]) -> dict[str, set[str]]:
        return {network: set() for network in networks}


@dataclass(frozen=True, slots=True)
class Moment:
    """What a pass decided of one task; ``at`` in seconds from the beginning."""

    at: float
    kind: str  # made | placed | let-run | leaves
    task: Task


@dataclass
class Played:
    """What came of it. ``low``: service -> the fewest that served, and for how long none did."""

    release: Release
    before: dict[str, Task]
    after: dict[str, Task]
    moments: list[Moment] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # task -> why it is where it is
    served: dict[str, int] = field(default_factory=dict)  # before
    low: dict[str, int] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)  # seconds in which none served
    waits: dict[str, str] = field(default_factory=dict)  # service -> what its first start awaits
    homeless: tuple[Homeless, ...] = ()  # what no node takes
    stalled: bool = False  # and nothing else of it is under way
    takes: float = 0.0
    cut: str = ""
    by_hand: str = ""  # whose decision it waits for at some moment, and what for


@dataclass
class Play:
    """One forecast's fork, and what moves in it."""

    cluster: Cluster
    observed: Observed
    specs: Specs
    clock: PlayClock
    rng: random.Random
    world: World
    agents: Agents
    stack: str
    brake: bool = False
    work: float = MOST_WORK  # seconds of the controller's own time it may take

    def new_pass(self, draft: Draft | None = None) -> Pass:
        """Return a pass over the fork as it is now."""
        draft = draft if draft is not None else Draft(self.cluster)
        return Pass(
            draft=draft,
            specs=self.specs,
            observed=self.observed,
            addresses=Addresses(draft),
            rng=self.rng,
            now=self.clock.monotonic(),
            wall=self.clock.wall(),
            brake=self.brake,
        )

    def apply(self, draft: Draft) -> bool:
        """Take what was decided for written; say whether there was anything."""
        if not draft.writes:
            return False
        self.cluster.applied(self.cluster.revision + 1, list(draft.writes.items()))
        for node in self.cluster.nodes:  # what was told is known there at once
            self.observed.acknowledged[node] = self.cluster.revision
        return True

    async def run(self, release: Release, images: Mapping[str, str]) -> Played:
        """Play the pending release, which is in the fork, with these digests."""
        before = dict(self.cluster.by_stack.get(self.stack, {}))
        pass_ = self.new_pass()
        releases.begin(pass_, release, images)
        self.apply(pass_.draft)
        played = Played(release, before, before)
        self._count(played, 0.0)
        played.served = dict(played.low)
        worked, ended = time.process_time(), None
        for _ in range(MOST_PASSES):
            if time.process_time() - worked > self.work:
                break
            due, moved = await self._turn(played)
            record = self.cluster.releases[release.stack, release.number]
            played.homeless = record.homeless or played.homeless
            if record.stalled:
                played.stalled = True
                break
            if record.state in OVER and ended is None:
                ended = played.takes = self.clock.passed
            if ended is not None and (record.state != "deployed" or self._still(ended)):
                break
            if moved or self._decided(played, record):
                continue
            if due is None:
                break
            ahead = max(0.0, due - self.clock.monotonic())
            self._count(played, ahead)
            self.clock.passed += ahead
        else:
            played.cut = "it takes too many steps to be played to its end"
        if ended is None and not played.cut and not played.stalled:
            played.cut = "it takes too long to be played to its end"
        played.release = self.cluster.releases[release.stack, release.number]
        played.after = dict(self.cluster.by_stack.get(self.stack, {}))
        return played

    def _decided(self, played: Played, release: Release) -> bool:
        """Promote what waits for somebody to do so, and say that; the rest is played after that."""
        said = self.observed.watched.get((release.stack, release.number), {})
        if played.by_hand or not (text := said.get(BY_HAND)):
            return False
        played.by_hand = text
        draft = Draft(self.cluster)
        names = {task.service for task in self.cluster.by_stack.get(self.stack, {}).values()}
        draft.put(RELEASES, release.with_promoted(names))
        return self.apply(draft)

    def _still(self, ended: float) -> bool:
        """Say whether nothing of the stack is on its way out any more."""
        there = self.cluster.by_stack.get(self.stack, {}).values()
        going = any(t.desired is Desired.REMOVED or t.leaving for t in there)
        return not going or self.clock.passed - ended > AFTERWARDS

    async def _turn(self, played: Played) -> tuple[float | None, bool]:
        """Decide once, then let the nodes report; return when there is more, and if any moved."""
        pass_ = self.new_pass()
        steps = stacks.look(pass_, {self.stack}, Nobody(), over=False)
        dues, _ = await undisturbed(steps)  # nothing of the fork moves
        await self._ask_for_paths()
        self._note(pass_, played, self.clock.passed)
        moved = self.apply(pass_.draft)
        while True:  # what takes no time is told in one report: each step leads to another state
            told = self.new_pass()
            due = self.world.turn(told, self.stack)
            if not self.apply(told.draft):
                break
            moved = True
        self._count(played, 0.0)
        await asyncio.sleep(0)
        return earliest(due, dues.get(self.stack)), moved

    async def _ask_for_paths(self) -> None:
        """Ask nodes what a real pass would have them asked: which paths they have."""
        wanted = self.observed.paths.take()
        for node, paths in sorted(wanted.items()):
            said = {}
            try:
                async with asyncio.timeout(ANSWER):
                    said = await self.agents.paths(node, sorted(paths))
            except (RequestError, TimeoutError):
                pass  # it says nothing for sure, as in a real pass
            answers = {path: said.get(path, "unknown") for path in paths}
            self.observed.paths.put(node, answers, self.clock.monotonic())
        if wanted:
            self.clock.passed += LOOK_AGAIN

    def _count(self, played: Played, seconds: float) -> None:
        """Note how many serve now, and for how long it stays so."""
        tasks: dict[str, list[Task]] = {}
        for task in self.cluster.by_stack.get(self.stack, {}).values():
            tasks.setdefault(task.service, []).append(task)
        for name in {*tasks, *played.low}:
            count = serving(self.cluster, tasks.get(name, ()))
            played.low[name] = min(count, played.low.get(name, count))
            if not count:
                played.idle[name] = played.idle.get(name, 0.0) + seconds

    def _note(self, pass_: Pass, played: Played, at: float) -> None:
        view = functools.cache(lambda: fleet(pass_))  # what of it was asked for costs the most
        for record in pass_.draft.writes.values():
            if not isinstance(record, Task):
                continue
            known = self.cluster.tasks.get(record.id)
            if known is None:
                played.moments.append(Moment(at, "made", record))
            if record.node is not None and (known is None or known.node is None):
                played.moments.append(Moment(at, "placed", record))
                played.reasons[record.id] = why(pass_, record, played.before.values(), view)
            ran = known is not None and known.desired is not Desired.PREPARED
            if record.desired is Desired.RUNNING and not ran:
                played.moments.append(Moment(at, "let-run", record))
            if is_leaving(record) and (known is None or not is_leaving(known)):
                played.moments.append(Moment(at, "leaves", record))
            reason = record.pending_reason
            if reason.startswith("waits for ") and record.service not in played.waits:
                played.waits[record.service] = reason.removeprefix("waits for ")
