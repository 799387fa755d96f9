"""The control loops: commands in, tasks out, reports back. The middle of the straight line.

One loop looks at everything that may have changed, decides in one draft, writes it in
as few transactions as possible, and sleeps until something happens or is due. Commands
take turns with its passes, so there is one writer and no two decisions cross. Every
pass may be repeated; a new ``Control`` over the same store goes on where the last one
was. What is decided lives in the modules next to this one; this one only orders them, in one piece.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakValueDictionary

from orchestrator.contracts import EventQuery
from orchestrator.control import explaining
from orchestrator.control.asking import PathQuestions
from orchestrator.control.autoscaling import Autoscaling
from orchestrator.control.deploy import rollback as rolling
from orchestrator.control.deploy import unchanged
from orchestrator.control.deploy.background import BackgroundWork
from orchestrator.control.deploy.beginning import let_begin
from orchestrator.control.deploy.commands import Commands
from orchestrator.control.deploy.moving import VolumeMoves
from orchestrator.control.deploy.oneoff_image import image_of
from orchestrator.control.deploy.ports import listening_now
from orchestrator.control.deploy.ranges import extend
from orchestrator.control.figures import LoopFigures
from orchestrator.control.forecast.making import ForecastBasis, forecast
from orchestrator.control.leases import Leases
from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.exclusive import ExclusiveTasks
from orchestrator.control.mirror.health import AGENT_PATIENCE, NodeHealth
from orchestrator.control.mirror.observed import Observed
from orchestrator.control.notices import Notices
from orchestrator.control.planning import (
    ingest,
    move_requests,
    releases,
    removal,
    schedules,
    stacks,
)
from orchestrator.control.planning.addresses import Addresses
from orchestrator.control.planning.passes import Pass
from orchestrator.control.telling import objects, rollouts
from orchestrator.control.telling.journal import EventJournal, told
from orchestrator.control.telling.progress import Streams
from orchestrator.control.telling.schedules import schedule_row
from orchestrator.control.turns import TURN, in_turns
from orchestrator.control.wanted import Outgoing
from orchestrator.store.base import StoreUnavailable
from specs.api import ProblemRow
from specs.events import Event
from specs.kit.loading import load
from specs.made_by import MadeBy
from specs.objects import ContentRows, NetworkRows, VolumeRows
from specs.oneoff import OneOffProgress
from specs.schedule import ScheduleActed
from specs.states import ReleaseState
from specs.wire import HEARTBEAT

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from orchestrator.contracts import Agents, Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.store.base import Store
    from specs.api import (
        Deploy,
        Progress,
        Release,
        ReleaseRow,
        Rescaled,
        Restart,
        Restarted,
        Rollback,
        RolledBack,
        RolloutStatus,
        Start,
        Started,
        Steer,
        Steered,
    )
    from specs.inside import Forgotten, Paused
    from specs.kit.clock import Clock
    from specs.kit.metrics import Family
    from specs.objects import DroppedObject, MadeObject, MakeObject, MoveVolume, ObjectKind
    from specs.oneoff import ActedOn, ActOnOneOffs, StartOneOff
    from specs.plans import Plan
    from specs.schedule import ActOnSchedule
    from specs.why import Why
    from specs.wire import Hello, NodeSelf, Objects, Report

log = logging.getLogger(__name__)

RESYNC = 30.0  # seconds after which everything is looked at even if nothing happened
RETRY = 0.5  # after the store could not be written
REST = 0.005  # seconds from one look to the next: a look costs as much for one report as for ten
GRAPHS = "networkx"  # of dependencies; loaded once there is a stack (mirror/dependencies.py)


class ControlLoop:
    """See orchestrator.contracts.Control, which this is."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        clock: Clock,
        rng: random.Random,
        sealer: Sealer,
        agents: Agents,
        *,
        patience: float = AGENT_PATIENCE,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._rng = rng
        self._specs = Specs(cluster)
        self._observed = Observed(cluster, clock)
        self._health = NodeHealth(cluster, clock, patience=patience, heartbeat=heartbeat)
        exclusive = ExclusiveTasks(cluster, self._specs)
        self._out = Outgoing(cluster, self._specs, sealer, exclusive)
        self.leases = Leases(cluster, exclusive, clock)
        self._streams = Streams(cluster, clock, self._observed.watched)
        self.journal = EventJournal(store, cluster, clock, self._streams)
        self._wake = asyncio.Event()
        self._heard = False  # something came that the look under way may have missed
        self._notices = Notices(cluster, self._out, self._streams, self._wake, self._happened)
        self._agents = agents
        self._sealer = sealer
        self._commands = Commands(store, cluster, sealer, rng, clock)
        self._preparing = BackgroundWork(
            cluster,
            agents,
            clock,
            tell=self._streams.tell,
            finish=self._prepared,
            forget=self._volume_gone,
        )
        self._moves = VolumeMoves(cluster, self._specs, agents, clock, self._write)
        self._asking = PathQuestions(
            cluster, agents, clock, self._observed.paths, self._notices.everything
        )
        self._autoscaling = Autoscaling(cluster, agents, clock, self._write, self._scaled)
        self._inbox: deque[tuple[str, Report]] = deque()
        self._hellos: dict[str, Hello] = {}
        self._lock = asyncio.Lock()  # one writer: a pass or a command
        # By stack, held while a release is made: nodes are asked before anything is written.
        self._arrivals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._timers: dict[str, float | None] = {}
        self._over_due: float | None = 0.0
        self._brake = False
        self._counted = LoopFigures()
        self._health.update()

    def figures(self) -> list[Family]:
        """Return what is counted of the loop."""
        return self._counted.families(waiting=len(self._inbox), brake=self._brake)

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        if self._cluster.stacks:
            await load(GRAPHS)
        await self._remember()
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as group:
            group.create_task(self._autoscaling.run(), name="autoscaling")
            while True:
                self._wake.clear()
                due = await self._once(group)
                rested = clock() + REST
                delay = RESYNC if due is None else min(RESYNC, max(0.0, due - self._now()))
                if not await self._woken(delay) and delay >= RESYNC:
                    self._notices.everything()
                # What comes meanwhile, or is ready to run, adds its changes: one look for many.
                await asyncio.sleep(max(0.0, rested - clock()))
        raise AssertionError("the loop has no end")

    async def _remember(self) -> None:
        """Take note of the events there are; without that they are only not trimmed."""
        try:
            await self.journal.load()
        except StoreUnavailable as exc:
            log.warning("the events there are cannot be read: %s", exc)

    def _now(self) -> float:
        return self._clock.monotonic()

    async def _woken(self, delay: float) -> bool:
        """Wait until there is something to do; False when the time was up first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                return await self._wake.wait()
        return False

    def _hear(self) -> None:
        """Have the loop look, again where it is looking now."""
        self._heard = True
        self._wake.set()

    async def _once(self, group: asyncio.TaskGroup) -> float | None:
        """Look once; return when to look again at the latest."""
        async with self._lock:
            began = self._now()
            try:
                due = await self._pass()
                self._counted.passes.observe(self._now() - began)
            except StoreUnavailable as exc:
                log.warning("the store cannot be written: %s", exc)
                self._notices.everything()
                self._wake.clear()
                return self._now() + RETRY
        self.leases.look()
        going = removal.volumes_going(self._cluster)
        self._moves.sync(group, {volume.name for volume in going})
        alone = [volume for volume in going if volume.move is None and volume.kept is None]
        self._preparing.sync(group, alone)
        self._asking.sync(group)
        return due

    async def _pass(self) -> float | None:
        self._heard = False
        health_due = self._look_at_nodes()
        if not await self._take_reports():
            self._wake.set()
            return None
        now = self._now()
        looked = self._notices.take()
        if not self._heard:
            self._wake.clear()  # the news that the reports were is looked at now
        looked |= {name for name, due in self._timers.items() if due is not None and due <= now}
        pass_ = self._new_pass()
        over_due = self._over_due
        over = bool(looked) or (over_due is not None and over_due <= now)
        found = await in_turns(self._cluster, stacks.look(pass_, looked, self._out, over=over))
        if found is None or not await self._commit(pass_):
            self._dropped(pass_, looked)
            return None
        dues, over_due = found[0], found[1] if over else over_due
        self._timers.update(dues)
        self._over_due = over_due
        self._timers = {n: t for n, t in self._timers.items() if n in self._cluster.stacks}
        self._tell(pass_)
        times = [t for t in (*self._timers.values(), health_due, over_due) if t is not None]
        return min(times, default=None)

    def _dropped(self, pass_: Pass, looked: set[str]) -> None:
        """Have what was looked at decided anew: something else moved meanwhile."""
        self._counted.dropped += 1
        self._tell(pass_)  # what was observed stays observed, and is news only once
        self._notices.again(looked)

    def _tell(self, pass_: Pass) -> None:
        for stack in pass_.told:
            self._streams.moved(stack)

    def _look_at_nodes(self) -> float | None:
        moved, due = self._health.update()
        self._notices.nodes_moved(moved)
        brake = self._health.brake()
        if brake != self._brake:
            self._brake = brake
            self._out.forget_all()  # who is doubted is told something else
            self._notices.everywhere()
            if brake and len(self._cluster.nodes) > 1:
                text = (
                    "more than half of the nodes do not answer: nothing they ran is replaced until"
                    " most are back; is the network of the controller's machine up?"
                )
                log.warning(text)
                self._happened("cluster.brake", text, reason="brake")
            elif len(self._cluster.nodes) > 1:
                self._happened("cluster.brake-off", "most nodes answer again", reason="brake")
        return due

    async def _take_reports(self) -> bool:
        """Write what nodes said until now; False when that must be repeated."""
        left = len(self._inbox)
        while left or self._hellos:
            taken = await self._take_some(left)
            if taken is None:
                return False
            left -= taken
            if left:
                await asyncio.sleep(0)
        return True

    async def _take_some(self, most: int) -> int | None:
        """Write the oldest reports, as many as one turn takes; None: that must be repeated."""
        reports: list[tuple[str, Report]] = []
        tasks = 0
        while len(reports) < most and tasks < TURN:
            reports.append(self._inbox.popleft())
            tasks += len(reports[-1][1].tasks) + len(reports[-1][1].gone)
        hellos = dict(self._hellos)
        self._hellos.clear()
        pass_ = self._new_pass()
        ingest.greeted(pass_, hellos)
        for node, report in reports:
            ingest.take(pass_, node, report)
        done = False
        try:
            done = await self._commit(pass_)
        finally:
            if not done:
                # What they say would be lost otherwise; taking it again is harmless.
                self._inbox.extendleft(reversed(reports))
                self._hellos = {**hellos, **self._hellos}
            else:
                self._tell(pass_)
        return len(reports) if done else None

    def _new_pass(self) -> Pass:
        draft = Draft(self._cluster)
        return Pass(
            draft=draft,
            specs=self._specs,
            observed=self._observed,
            addresses=Addresses(draft),
            rng=self._rng,
            now=self._now(),
            wall=self._clock.wall(),
            brake=self._health.brake(),
        )

    async def _commit(self, pass_: Pass) -> bool:
        pass_.draft.notes += [
            Event(time=pass_.wall, kind=kind, stack=stack, message=text)
            for kind, stack, text in pass_.notes
        ]
        if not pass_.draft and not self.journal.waits:
            return True
        return await pass_.draft.commit(self._store)

    def note(self, event: Event) -> None:
        """Have it kept that something happened which changes no record."""
        self.journal.add(event)
        self._wake.set()

    def _happened(self, kind: str, text: str, **more: Any) -> None:
        self.note(Event(time=self._clock.wall(), kind=kind, message=text, **more))

    # results of the work beside the loop

    async def _prepared(self, release: Release, images: dict[str, str], reason: str) -> None:
        """Write what came of a release's preparation, if it is still wanted."""

        def change(pass_: Pass) -> None:
            current = self._cluster.releases.get((release.stack, release.number))
            if current is None or current.state is not ReleaseState.PENDING:
                return
            if reason:
                releases.fail(pass_, current, reason)
                return
            releases.begin(pass_, current, images)

        await self._write(change)

    def _scaled(self, kind: str, text: str, stack: str, service: str) -> None:
        log.info("scaled by its load", extra={"stack": stack, "what": text})
        self._happened(kind, text, stack=stack, service=service, reason="load")

    async def _volume_gone(self, name: str) -> None:
        await self._write(lambda pass_: removal.forget_volume(pass_, name))

    async def _write(self, change: Callable[[Pass], None]) -> None:
        """Decide and write until it is written."""
        while True:
            async with self._lock:
                pass_ = self._new_pass()
                change(pass_)
                try:
                    if await self._commit(pass_):
                        return
                except StoreUnavailable as exc:
                    log.warning("the store cannot be written: %s", exc)
            await asyncio.sleep(RETRY)

    # commands, see orchestrator.contracts

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Be the one who decides and writes."""
        await load(GRAPHS)
        async with self._lock:
            yield

    async def deploy(self, stack: str, request: Deploy) -> ReleaseRow:
        async with self._arrivals.setdefault(stack, asyncio.Lock()):
            await let_begin(self._cluster, self._clock, stack, request)
            listening = await listening_now(self._cluster, self._agents, request)
            await load(GRAPHS)
            same = self._commands.unchanged(stack, request, listening)
            if same is not None:
                same = await unchanged.with_images(self._cluster, self._agents, self._clock, same)
            async with self._turn():
                return await self._commands.deploy(stack, request, listening, same)

    async def plan(self, stack: str, request: Deploy, *, within: float | None = None) -> Plan:
        listening = await listening_now(self._cluster, self._agents, request)
        await load(GRAPHS)
        seen = ForecastBasis(self._cluster, self._observed, self._specs, brake=self._health.brake())
        return await forecast(
            seen,
            self._store,
            self._agents,
            self._sealer,
            self._clock,
            stack,
            request,
            listening,
            within=within,
        )

    async def arrived(self, stack: str) -> None:
        """Wait for what was deployed before: a `down` right after an `up` is about that, too."""
        async with self._arrivals.setdefault(stack, asyncio.Lock()):
            pass

    async def scale(
        self, stack: str, services: Mapping[str, int], by: MadeBy | None = None
    ) -> Rescaled:
        async with self._turn():
            return await self._commands.scale(stack, services, by or MadeBy())

    async def restart(self, stack: str, request: Restart) -> Restarted:
        async with self._turn():
            return await self._commands.restart(stack, request)

    async def start(self, stack: str, request: Start) -> Started:
        async with self._turn():
            return await self._commands.start(stack, request)

    async def rollback(self, stack: str, asked: Rollback) -> RolledBack:
        await load(GRAPHS)
        async with self._arrivals.setdefault(stack, asyncio.Lock()):
            done = self._commands.rolled_back(asked)
            if done is not None:
                return done
            to = rolling.choose(self._cluster, stack, asked)
            request = rolling.request_of(self._cluster, stack, asked, to)
            listening = await listening_now(self._cluster, self._agents, request)
            async with self._turn():
                answer = await self._commands.rollback(stack, asked, to, listening)
        return await asyncio.to_thread(answer)

    async def steer(self, stack: str, asked: Steer) -> Steered:
        async with self._turn():
            return await self._commands.steer(stack, asked)

    def rollout(self, stack: str) -> RolloutStatus:
        rows = self._observed.rollouts.get(stack, ())
        return rollouts.status(self._cluster, self._cluster.stacks[stack], rows)

    async def stop(self, stack: str, timeout: float | None, services: tuple[str, ...] = ()) -> None:
        async with self._turn():
            await self._commands.stop(stack, timeout, services)

    async def pause(
        self,
        stack: str,
        services: tuple[str, ...],
        *,
        paused: bool,
        tasks: Collection[str] = (),
    ) -> Paused:
        async with self._turn():
            return await self._commands.pause(stack, services, paused=paused, tasks=tasks)

    async def forget(self, stack: str, services: tuple[str, ...]) -> Forgotten:
        async with self._turn():
            return await self._commands.forget(stack, services)

    async def remove(self, stack: str, *, volumes: bool, timeout: float | None) -> None:
        async with self._turn():
            away = stack not in self._cluster.stacks
            await self._commands.remove(stack, volumes=volumes, timeout=timeout)
            if away:  # it takes what an earlier removal left: that one's news are old
                self._streams.begun_anew(stack)

    async def make(self, asked: MakeObject) -> MadeObject:
        async with self._turn():
            return await self._commands.make(asked)

    async def drop(self, kind: ObjectKind, name: str) -> DroppedObject:
        async with self._turn():
            return await self._commands.drop(kind, name)

    def networks(self) -> NetworkRows:
        return NetworkRows(networks=objects.network_rows(self._cluster))

    def volumes(self) -> VolumeRows:
        return VolumeRows(volumes=objects.volume_rows(self._cluster, self._moves.going))

    async def move(self, name: str, request: MoveVolume) -> None:
        await load(GRAPHS)
        await self._write(lambda pass_: move_requests.ask(pass_, name, request))

    def contents(self, *, secret: bool) -> ContentRows:
        return ContentRows(contents=objects.content_rows(self._cluster, secret=secret))

    def config_data(self, content: str) -> bytes:
        stored = self._cluster.contents[content]
        assert not stored.secret, "law: a secret's value is never shown"
        return self._sealer.open(base64.b64decode(stored.sealed))

    async def start_oneoff(self, stack: str, request: StartOneOff) -> AsyncIterator[OneOffProgress]:
        warnings: tuple[ProblemRow, ...] = ()
        if (made := self._commands.oneoff_of(request.deploy.key)) is None:
            async with self._turn():
                missing, release, spec = self._commands.examine_oneoff(stack, request)
            if missing:
                yield OneOffProgress(kind="end", stack=stack, ok=False, needs=missing)
                return
            images: dict[str, str] = {}
            parts = (self._cluster, self._agents, self._clock)
            async with contextlib.aclosing(image_of(release, spec, images, *parts)) as told:
                async for line in told:
                    yield line
            listening = await listening_now(self._cluster, self._agents, request.deploy)
            async with self._turn():
                made, told_of = await self._commands.start_oneoff(stack, request, images, listening)
            warnings = tuple(map(ProblemRow.of, told_of))
        yield OneOffProgress(
            kind="end",
            stack=stack,
            ok=True,
            service=request.service,
            task=made.id,
            name=made.task.name,
            warnings=warnings,
        )

    async def act_on_oneoffs(self, stack: str, request: ActOnOneOffs) -> ActedOn:
        async with self._turn():
            return await self._commands.act_on_oneoffs(stack, request)

    async def act_on_schedule(
        self, stack: str, service: str, request: ActOnSchedule
    ) -> ScheduleActed:
        await load(GRAPHS)
        number = 0

        def change(pass_: Pass) -> None:
            nonlocal number
            number = schedules.act(pass_, stack, service, request)

        await self._write(change)
        self._notices.again({stack})
        record = self._cluster.schedules[stack, service]
        return ScheduleActed(schedule=schedule_row(record, now=self._clock.wall()), number=number)

    async def extend(self, text: str) -> tuple[str, ...]:
        async with self._turn():
            ranges = await extend(self._store, self._cluster, text)
        self._notices.everywhere()
        return ranges

    def progress(self, stack: str, release: int | None) -> AsyncIterator[Progress]:
        return self._streams.progress(stack, release)

    def events(self, query: EventQuery) -> AsyncIterator[Event]:
        return told(self.journal, self._streams, query)

    async def why(self, name: str, stack: str) -> Why:
        await load(GRAPHS)
        known = await self.journal.stacks()
        what, found = explaining.subject(self._cluster, name, stack, known)
        owner = self._cluster.tasks[found].stack if what == "task" else stack
        owner = found if what == "stack" else "" if what == "node" else owner
        events, _ = await self.journal.read(EventQuery(owner, history=True))
        # Others may have had their turn: what it was about may be gone.
        what, found = explaining.subject(self._cluster, name, stack, known)
        now = self._clock.wall()
        return explaining.explain(
            self._new_pass(), what, found, stack=stack, events=events, now=now
        )

    # nodes, see orchestrator.contracts

    def wanted(self, node_id: str) -> tuple[NodeSelf, Objects]:
        return self._out.me(node_id), self._out.objects(node_id)

    def changed(self, node_id: str) -> asyncio.Event:
        return self._notices.event_of(node_id)

    async def connected(self, node_id: str, hello: Hello) -> None:
        self._health.connected(node_id)
        # Acknowledgements belong to a session; a new one says them anew.
        self._hellos[node_id] = hello
        self._hear()

    def reached(self, node_id: str) -> None:
        self._health.reached(node_id)
        self._hear()

    def disconnected(self, node_id: str, reason: str, *, host: bool = False) -> None:
        self._health.disconnected(node_id, reason, host=host)
        self._hear()

    async def ingest(self, node_id: str, report: Report) -> None:
        if report.full:
            self._health.reported(node_id)
        self._health.troubled(node_id, report.trouble, report.room)
        self._inbox.append((node_id, report))
        self._hear()

    def shows(self, node_id: str, moment: float) -> None:
        self._health.shows(node_id, moment)

    def acknowledged(self, node_id: str, revision: int) -> None:
        known = self._observed.acknowledged.get(node_id, 0)
        if revision > known:
            self._observed.acknowledged[node_id] = revision
            if self._notices.awaited():
                self._wake.set()
