"""What people ask for: deploy, scale, restart, stop, remove. Each one transaction.

control.py holds the writer's lock around every call and wakes the loop after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from orchestrator.control.deploy import oneoffs, restarting, starting
from orchestrator.control.deploy import rollback as rolling
from orchestrator.control.deploy.deployment import Deployment
from orchestrator.control.deploy.objects import Maker, drop
from orchestrator.control.deploy.release import make_release
from orchestrator.control.deploy.scaling import rescale
from orchestrator.control.deploy.steering import Steering
from orchestrator.control.deploy.unchanged import Same, deployed_already
from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.records import STACKS, Idempotency
from orchestrator.control.mirror.released import completed, finish, newest_spec
from orchestrator.control.mirror.serving import stands_by
from orchestrator.control.telling import history
from orchestrator.control.telling.words import release_row
from orchestrator.errors import Conflict, Invalid, NotFound, RequestError
from orchestrator.store import keys
from orchestrator.store.base import TooLarge
from specs.api import ProblemRow, RolledBack, Stack, Started, Steered
from specs.ids import new_id
from specs.inside import Forgotten, Paused
from specs.objects import CreateNetwork, CreateVolume
from specs.states import FINAL, Desired, ReleaseState

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Mapping

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.store.base import Store
    from specs.api import (
        Deploy,
        Release,
        ReleaseRow,
        Rescaled,
        Restart,
        Restarted,
        Rollback,
        Start,
        Steer,
    )
    from specs.history import DiffRow
    from specs.kit.clock import Clock
    from specs.made_by import MadeBy
    from specs.objects import DroppedObject, MadeObject, MakeObject, ObjectKind
    from specs.oneoff import ActedOn, ActOnOneOffs, OneOff, StartOneOff
    from specs.problems import Problem
    from specs.stack import StackSpec

TRIES = 5

T = TypeVar("T")


def _joins(newest: Release, asked: Rollback, to: Release) -> bool:
    """Say whether what is asked for is under way already: who types it twice means one."""
    same = newest.rollback_to == to.number and newest.services == asked.services
    return same and not newest.over and not asked.dry_run


class Commands:
    """Turns requests into records."""

    def __init__(
        self, store: Store, cluster: Cluster, sealer: Sealer, rng: random.Random, clock: Clock
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._sealer = sealer
        self._rng = rng
        self._clock = clock

    def unchanged(
        self, stack: str, request: Deploy, listening: Mapping[str, tuple[str, ...]]
    ) -> Same | None:
        """Return a release as the request would make it and the one that runs already.

        None: it asks for something else, or cannot be. Whether their images are the same is not
        known yet.
        """
        if not self._may_stay(stack, request):
            return None
        try:
            _, made, warnings = self.drafted(stack, request, listening)  # nothing of it is written
        except RequestError:
            return None  # said when it is made
        return self.same(request, made, warnings)

    def same(self, request: Deploy, made: Release, warnings: list[Problem]) -> Same | None:
        """Return what was made of a request and the release that runs already, as ``unchanged``."""
        may = self._may_stay(made.stack, request)
        last = deployed_already(self._cluster, made) if may else None
        if last is None:
            return None
        return Same(made, last, tuple(warnings), self._cluster.revision)

    def _may_stay(self, stack: str, request: Deploy) -> bool:
        """Say whether the request may be about what runs: it is new, and has nothing made anew."""
        known = request.key in self._cluster.requests
        anew = request.force_recreate or request.no_start or request.renew_volumes
        return stack in self._cluster.stacks and not known and not anew

    def drafted(
        self, stack: str, request: Deploy, listening: Mapping[str, tuple[str, ...]]
    ) -> tuple[Draft, Release, list[Problem]]:
        """Return a draft with the release a request would make, and its warnings."""
        draft = Draft(self._cluster)
        return draft, *make_release(self._deployment(draft, stack, request, listening))

    async def deploy(
        self,
        stack: str,
        request: Deploy,
        listening: Mapping[str, tuple[str, ...]],
        seen: Same | None = None,
    ) -> ReleaseRow:
        """Make a release, or return the one this key made before, or that runs already.

        ``listening``: node -> the ports its processes hold, where it was asked just now.
        ``seen``: what runs, where it seemed to ask for that, with what its images are now.
        """
        made = self._cluster.requests.get(request.key)
        if made is not None:
            known = self._cluster.releases.get((made.stack, made.number))
            if known is None or made.stack != stack:
                raise Conflict(f"this request already made release {made.number} of {made.stack}")
            if known.state is ReleaseState.DEPLOYED and made.at != known.created_at:
                return self._unchanged_row(known, known.starts, made.at)  # ``_stays`` noted it
            return release_row(known)

        def write(draft: Draft) -> ReleaseRow:
            self._as_planned(stack, request)
            same = seen
            if seen is not None and seen.revision != self._cluster.revision:
                again = self.unchanged(stack, request, listening)
                same = replace(again, images=seen.images) if again is not None else None
            if same is not None and same.confirmed:
                return self._stays(draft, request, same)
            deployment = self._deployment(draft, stack, request, listening)
            release, warnings = make_release(deployment)
            return release_row(release, tuple(map(ProblemRow.of, warnings)))

        return await self._committed(stack, write)

    def _as_planned(self, stack: str, request: Deploy) -> None:
        """Refuse what was planned beside another release than there is. Raises Conflict."""
        present = self._cluster.stacks.get(stack)
        newest = present.release if present is not None else 0
        if request.planned_after in (None, newest):
            return
        raise Conflict(
            f"the plan is for {stack} after release {request.planned_after}, "
            f"and there is release {newest} by now",
            hint="corral plan says what is to be done now",
        )

    def _stays(self, draft: Draft, request: Deploy, same: Same) -> ReleaseRow:
        """Note what was asked, and return the release that runs, with what there is to warn of."""
        last = same.last
        asked = Idempotency(stack=last.stack, number=last.number, at=self._clock.wall())
        draft.put_key(keys.idempotency(request.key), asked)
        present = self._cluster.stacks[last.stack]
        if present.config_files != request.config_files:
            draft.put(STACKS, present.with_config_files(request.config_files))
        told = tuple(map(ProblemRow.of, same.warnings))
        return self._unchanged_row(last, same.made.starts, asked.at, told)

    def _unchanged_row(
        self,
        release: Release,
        starts: Collection[str],
        at: float,
        warnings: tuple[ProblemRow, ...] = (),
    ) -> ReleaseRow:
        """Return the release that runs as the answer to who asked for no other, and when."""
        mine = self._cluster.by_stack.get(release.stack, {}).values()
        done = completed(task for task in mine if task.service in starts)
        update = {"unchanged": True, "completed": done, "created_at": at}
        return release_row(release, warnings).model_copy(update=update)

    def _deployment(
        self, draft: Draft, stack: str, request: Deploy, asked: Mapping[str, tuple[str, ...]]
    ) -> Deployment:
        return Deployment(
            cluster=self._cluster,
            draft=draft,
            sealer=self._sealer,
            rng=self._rng,
            wall=self._clock.wall(),
            stack=stack,
            request=request,
            asked=asked,
        )

    def examine_oneoff(
        self, stack: str, asked: StartOneOff
    ) -> tuple[tuple[str, ...], Release, StackSpec]:
        """Return what is to be brought up first, and the work of finding its image."""
        deployment = self._deployment(Draft(self._cluster), stack, asked.deploy, {})
        spec = oneoffs.compiled(deployment, asked)
        missing = oneoffs.behind(deployment, spec, asked.service) if asked.dependencies else ()
        return missing, *oneoffs.image_of(deployment, spec, asked.service)

    def oneoff_of(self, key: str) -> OneOff | None:
        """Return what a request of that key made before."""
        return next((one for one in self._cluster.oneoffs.values() if one.key == key), None)

    async def start_oneoff(
        self,
        stack: str,
        asked: StartOneOff,
        images: Mapping[str, str],
        listening: Mapping[str, tuple[str, ...]],
    ) -> tuple[OneOff, list[Problem]]:
        """Make a one-off, or return the one this request made before."""

        def write(draft: Draft) -> tuple[OneOff, list[Problem]]:
            known = self.oneoff_of(asked.deploy.key)
            if known is not None:
                return known, []
            deployment = self._deployment(draft, stack, asked.deploy, listening)
            spec = oneoffs.compiled(deployment, asked)
            return oneoffs.make(deployment, asked, spec, images), deployment.findings.warnings

        return await self._committed(stack, write)

    async def act_on_oneoffs(self, stack: str, asked: ActOnOneOffs) -> ActedOn:
        """Stop one-offs, or remove what has ended of them."""

        def write(draft: Draft) -> ActedOn:
            self._stack(stack)
            return oneoffs.act(draft, stack, asked)

        return await self._committed(stack, write)

    async def scale(self, stack: str, services: Mapping[str, int], by: MadeBy) -> Rescaled:
        """Set replica overrides, all or none; start what is stopped of them."""
        key = new_id("scale", now=self._clock.wall(), rng=self._rng)

        def write(draft: Draft) -> Rescaled:
            record = self._stack(stack)
            if record.desired == "removed":
                raise Conflict(f"stack {stack} is being removed")
            spec, wall = self._spec(record), self._clock.wall()
            return rescale(self._cluster, draft, record, spec, services, key=key, by=by, wall=wall)

        return await self._committed(stack, write)

    async def restart(self, stack: str, request: Restart) -> Restarted:
        """Ask for a restart of the services' tasks and of dependents that want to follow."""

        def write(draft: Draft) -> Restarted:
            record = self._stack(stack)
            return restarting.restart(draft, record, self._spec(record), request)

        return await self._committed(stack, write)

    async def start(self, stack: str, request: Start) -> Started:
        """Have the services run that do not, as they were; or say what this key did before."""
        made = self._cluster.requests.get(request.key)
        if made is not None:
            return Started(stack=made.stack, release=made.number)

        def write(draft: Draft) -> Started:
            record, wall = self._stack(stack), self._clock.wall()
            return starting.start(self._cluster, draft, record, request, wall=wall)

        return await self._committed(stack, write)

    def rolled_back(self, asked: Rollback) -> RolledBack | None:
        """Return what a request of that key made before."""
        made = self._cluster.requests.get(asked.key)
        known = self._cluster.releases.get((made.stack, made.number)) if made is not None else None
        if known is None:
            return None
        return RolledBack(**dict(release_row(known)), to=known.rollback_to)

    async def rollback(
        self, stack: str, asked: Rollback, to: Release, listening: Mapping[str, tuple[str, ...]]
    ) -> Callable[[], RolledBack]:
        """Bring back what release ``to`` asked for.

        Return what gives the answer: the differences in it take a while, and are not the loop's.
        """

        def write(draft: Draft) -> Callable[[], RolledBack]:
            newest = self._newest(stack)
            if newest is not None and _joins(newest, asked, to):
                joined = RolledBack(**dict(release_row(newest)), to=to.number, joined=True)
                return lambda: joined
            request = rolling.request_of(self._cluster, stack, asked, to)
            deployment = self._deployment(draft, stack, request, listening)
            back = rolling.roll_back(deployment, to)
            told = tuple(map(ProblemRow.of, deployment.findings.warnings))
            row = release_row(back.release, told)
            if back.same or asked.dry_run:
                draft.writes.clear()
                number = newest.number if newest is not None and back.same else 0
                row = row.model_copy(update={"number": number, "unchanged": back.same})
            made = RolledBack(**dict(row), to=to.number)
            return lambda: made.model_copy(update={"changes": self._changes(newest, back)})

        return await self._committed(stack, write)

    def _newest(self, stack: str) -> Release | None:
        record = self._cluster.stacks.get(stack)
        number = record.release if record is not None else 0
        return self._cluster.releases.get((stack, number))

    def _changes(self, newest: Release | None, back: rolling.Back) -> tuple[DiffRow, ...]:
        if newest is None:
            return ()
        made = rolling.with_pinned(back.release)
        return history.diff_rows(history.differences(self._cluster, newest, made, back.spec))

    async def steer(self, stack: str, asked: Steer) -> Steered:
        """Pause, go on with, take back or promote what is rolled out; or say what this key did."""
        made = self._cluster.requests.get(asked.key)
        if made is not None:
            return Steered(release=made.number)

        def write(draft: Draft) -> Steered:
            record = self._stack(stack)
            return Steering(self._cluster, draft, record, asked, self._clock.wall()).run()

        return await self._committed(stack, write)

    async def stop(self, stack: str, timeout: float | None, services: tuple[str, ...] = ()) -> None:
        """Have all tasks shut down, or those of some services; the stack is kept."""

        def write(draft: Draft) -> None:
            record = self._stack(stack)
            if record.desired == "removed":
                raise Conflict(f"stack {stack} is being removed")
            if services:
                starting.check_known(record, self._spec(record), services)
            if not services or record.desired == "stopped":
                draft.put(STACKS, record.stopped(timeout))
                return
            release = self._cluster.releases.get((stack, record.release))
            if release is not None and not release.over:
                reason = f"{', '.join(sorted(services))} was stopped"
                finish(draft, release, ReleaseState.SUPERSEDED, reason, at=self._clock.wall())
            draft.put(STACKS, record.with_stopped(services, timeout))

        await self._committed(stack, write)

    async def pause(
        self,
        stack: str,
        services: tuple[str, ...],
        *,
        paused: bool,
        tasks: Collection[str] = (),
    ) -> Paused:
        """Have what runs frozen, or go on; return which tasks that is about.

        ``tasks``: ids of single ones, and of one-offs.
        """

        def write(draft: Draft) -> Paused:
            record = self._stack(stack)
            ones = [
                o
                for o in draft.oneoffs(stack)
                if o.shown and (o.id in tasks or o.task.name in services)
            ]
            asked = tuple(name for name in services if name not in {o.task.name for o in ones})
            if asked:
                starting.check_known(record, self._spec(record), asked)
            everything = not services and not tasks
            mine = [
                task
                for task in draft.tasks(stack).values()
                if task.live and task.node is not None
                if everything
                or task.id in tasks
                # What was frozen before it stood by goes on, too.
                or (task.service in asked and not (paused and stands_by(self._cluster, task)))
            ]
            for task in mine:
                if task.paused is not paused:
                    draft.put_task(task.with_paused(paused))
            ones = [one for one in ones if not one.over and one.task.node is not None]
            for one in ones:
                draft.put_oneoff(one.with_task(one.task.with_paused(paused)))
            return Paused(tasks=(*(t.id for t in mine), *(one.id for one in ones)))

        return await self._committed(stack, write)

    async def forget(self, stack: str, services: tuple[str, ...]) -> Forgotten:
        """Remove what has ended of services that do not run; the next `up` makes them anew."""

        def write(draft: Draft) -> Forgotten:
            record = self._stack(stack)
            starting.check_known(record, self._spec(record), services)
            tasks = [
                task
                for task in draft.tasks(stack).values()
                if task.desired is not Desired.REMOVED
                and (not services or task.service in services)
            ]
            alive = {task.service for task in tasks if task.state not in FINAL}
            ended = [task for task in tasks if task.service not in alive]
            if ended and record.desired == "up":
                # A one-off without its record would be run again.
                draft.put(STACKS, record.with_stopped({task.service for task in ended}, None))
            for task in ended:
                draft.put_task(task.with_desired(Desired.REMOVED))
            return Forgotten(
                tasks=tuple(sorted(task.name for task in ended)), running=tuple(sorted(alive))
            )

        return await self._committed(stack, write)

    async def remove(self, stack: str, *, volumes: bool, timeout: float | None) -> None:
        """Have everything of the stack removed; with ``volumes`` also what an earlier one left.

        Raises NotFound where there is nothing of it.
        """

        def write(draft: Draft) -> None:
            kept = volumes and any(v.stack == stack for v in self._cluster.volumes.values())
            gone = stack not in self._cluster.stacks
            record = Stack(name=stack) if kept and gone else self._stack(stack)
            draft.put(STACKS, record.removed(timeout, volumes=volumes))

        await self._committed(stack, write)

    async def make(self, asked: MakeObject) -> MadeObject:
        """Make an object that belongs to no stack."""

        def write(draft: Draft) -> MadeObject:
            maker = Maker(draft, self._sealer, self._rng, self._clock.wall())
            match asked:
                case CreateNetwork():
                    return maker.network(asked)
                case CreateVolume():
                    return maker.volume(asked)
                case _:
                    return maker.content(asked)

        return await self._committed("", write)

    async def drop(self, kind: ObjectKind, name: str) -> DroppedObject:
        """Have an object go that nobody uses."""
        return await self._committed("", lambda draft: drop(draft, kind, name))

    def _stack(self, name: str) -> Stack:
        record = self._cluster.stacks.get(name)
        if record is None:
            raise NotFound(f"there is no stack {name}", hint="corral ls shows what there is")
        return record

    def _spec(self, record: Stack) -> StackSpec:
        spec = newest_spec(self._cluster, record)
        if spec is None:
            raise Conflict(f"stack {record.name} has no release")
        return spec

    async def _committed(self, stack: str, write: Callable[[Draft], T]) -> T:
        """Decide and write; where a change crossed ours, decide anew."""
        for _ in range(TRIES):
            draft = Draft(self._cluster)
            result = write(draft)
            try:
                done = await draft.commit(self._store)
            except TooLarge as exc:
                raise Invalid(
                    detail=f"stack {stack} is too large to be stored: {exc}",
                    hint="split it into several stacks",
                ) from exc
            if done:
                return result
        raise Conflict(f"stack {stack} changes too fast; try again")
