"""From a request to a plan: fork, make the release there, play it, tell what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.control.deploy.commands import Commands
from orchestrator.control.forecast.known_images import KnownImages, is_known, known_images
from orchestrator.control.forecast.outcome import PlanOutcome
from orchestrator.control.forecast.playing import MOST_WORK, Play, PlayClock
from orchestrator.control.forecast.world import Usual, World, edges
from orchestrator.control.mirror import times
from orchestrator.control.mirror.released import spec_of
from specs.api import ProblemRow
from specs.plans import Plan
from specs.problems import Problem
from specs.states import Health, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.contracts import Agents, Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Specs
    from orchestrator.control.mirror.observed import Observed
    from orchestrator.store.base import Store
    from specs.api import Deploy
    from specs.kit.clock import Clock
    from specs.task import Task


@dataclass(frozen=True, slots=True)
class ForecastBasis:
    """What there is, stored and observed; none of it is changed."""

    cluster: Cluster
    observed: Observed
    specs: Specs
    brake: bool


async def forecast(
    seen: ForecastBasis,
    store: Store,
    agents: Agents,
    sealer: Sealer,
    clock: Clock,
    stack: str,
    request: Deploy,
    listening: Mapping[str, tuple[str, ...]],
    *,
    within: float | None = None,
) -> Plan:
    """Return what the request would do. Raises what `up` would: Invalid with all problems.

    ``within``: seconds of work after which the rest is left out (``Plan.cut``).
    """
    time = PlayClock(clock.monotonic(), clock.wall())
    fork = seen.cluster.forked(time)
    rng = random.Random(0)  # noqa: S311 - names of things that nobody keeps; each plan the same
    commands = Commands(store, fork, sealer, rng, time)
    draft, release, problems = commands.drafted(stack, request, listening)
    if release.state is not ReleaseState.PENDING:
        return _nothing(seen.cluster, stack, problems)
    same = commands.same(request, release, problems)
    observed = seen.observed.forked(fork, time, stack)
    specs = seen.specs.forked(fork)
    before = list(fork.by_stack.get(stack, {}).values())
    play = Play(
        cluster=fork,
        observed=observed,
        specs=specs,
        clock=time,
        rng=rng,
        world=World(_usual(seen, clock, before)),
        agents=agents,
        stack=stack,
        brake=seen.brake,
        work=MOST_WORK if within is None else min(within, MOST_WORK),
    )
    play.apply(draft)
    spec = spec_of(fork, release)
    assert spec is not None, "it was made just now"
    try:
        images = await known_images(fork, agents, release, spec)
    except TimeoutError:
        images = KnownImages()
    warnings = [*problems, *_unsure(images)]
    if same is not None and replace(same, images=images.digests).confirmed:
        return _nothing(seen.cluster, stack, warnings)
    effectives = {name: specs.under(release, spec, name) for name in spec.services}
    play.world.awaited, play.world.ending = edges(effectives)
    played = await play.run(release, images.digests)
    return PlanOutcome(
        real=seen.cluster,
        fork=fork,
        specs=specs,
        request=request,
        release=release,
        spec=spec,
        played=played,
        images=images,
        warnings=warnings,
    ).plan()


def _nothing(cluster: Cluster, stack: str, problems: Iterable[Problem]) -> Plan:
    present = cluster.stacks.get(stack)
    number = present.release if present is not None else 0
    return Plan(
        stack=stack,
        release=number,
        next=number,
        unchanged=True,
        decision="unchanged",
        warnings=tuple(map(ProblemRow.of, problems)),
    )


def _unsure(images: KnownImages) -> Iterable[Problem]:
    """Say which images may turn out to be others."""
    for one in images.images:
        if one.state == "asked":
            text = f"image {one.image} is looked up in its registry by `up`; it may be another then"
            yield Problem(text, "image-asked", f"services.{one.services[0]}", severity="note")
        elif not is_known(one.digest) and one.state == "pulled":
            text = f"image {one.image} is not here: what it is shows when `up` pulls it"
            yield Problem(text, "image-unknown", f"services.{one.services[0]}", severity="note")


def _usual(seen: ForecastBasis, clock: Clock, tasks: Iterable[Task]) -> dict[str, Usual]:
    """Return, by service, how its replicas turned out so far."""
    found: dict[str, Usual] = {}
    for task in sorted(tasks, key=lambda t: (t.created_at, t.id)):
        run = task.status.run
        if run is None or run.started_at is None:
            continue
        known = found.get(task.service, Usual())
        done = task.state is TaskState.COMPLETE
        lasted = run.finished_at - run.started_at if done and run.finished_at is not None else None
        ready = seen.observed.mark(task.id).ready_since
        healthy = known.healthy
        if ready is not None and task.status.health is not Health.NONE:
            at = clock.wall() - (clock.monotonic() - ready)
            begun = times.by_ours(seen.cluster.conditions, task, run.started_at)
            healthy = min(max(0.1, at - begun), 600.0)
        found[task.service] = Usual(
            checked=known.checked or task.status.health is not Health.NONE,
            completes=done,
            healthy=healthy,
            runs=max(0.1, lasted) if lasted is not None else known.runs,
        )
    return found
