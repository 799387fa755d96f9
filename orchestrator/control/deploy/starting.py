"""`corral start`: what does not run is started as it was, without a look at any file.

A start is a release whose spec is the one there is: so it has its progress, its gates, its
verdict and its deadline like any `up`. What it may not do is change a task's spec
(``Release.only_starts``), and it is about the services it was asked for and what these
depend on, no others. Where everything runs already no release is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.records import RELEASES, STACKS, Idempotency
from orchestrator.control.mirror.released import completed, newest_of, spec_of, supersede
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import keys
from specs.api import Started
from specs.states import FINAL, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Release, Stack, Start
    from specs.oneoff import OneOff
    from specs.stack import StackSpec
    from specs.task import Task


def start(cluster: Cluster, draft: Draft, stack: Stack, request: Start, *, wall: float) -> Started:
    """Put what starts the services into the draft. Raises NotFound, Conflict."""
    if stack.desired == "removed":
        raise Conflict(f"stack {stack.name} is being removed", hint="corral up, once it is gone")
    source = _source(cluster, stack)
    spec = spec_of(cluster, source)
    if source is None or spec is None:
        raise Conflict(f"stack {stack.name} has no release", hint="corral up")
    check_known(stack, spec, request.services, draft.oneoffs(stack.name))
    wanted = set(spec.services)
    if request.services:
        wanted = dependencies_of(spec).closure(request.services)
    tasks = list(draft.tasks(stack.name).values())
    newest = cluster.releases.get((stack.name, stack.release))
    idle = {name for name in wanted if _idle(stack, name, tasks)}
    if not idle and stack.desired == "up":
        done = completed(t for t in tasks if t.service in wanted)
        going = newest is not None and not newest.over
        return Started(stack=stack.name, release=stack.release if going else None, completed=done)
    if newest is not None and not newest.over and stack.desired == "up":
        # It starts its own services in due course: no reason to end it.
        draft.put(STACKS, stack.with_asked(idle))
        return Started(stack=stack.name, release=newest.number)
    release = _release(cluster, stack, source, request, wanted, wall)
    begun = whole_down(stack, spec).with_release(release.number)
    if release.state is ReleaseState.DEPLOYING:  # else they are asked for when images are there
        begun = begun.with_asked(wanted)
    known = cluster.stack_releases.get(stack.name, {})
    supersede(draft, known.values(), release, at=wall)
    draft.put(RELEASES, release)
    draft.put(STACKS, begun)
    made = Idempotency(stack=stack.name, number=release.number, at=wall)
    draft.put_key(keys.idempotency(request.key), made)
    return Started(stack=stack.name, release=release.number)


def whole_down(stack: Stack, spec: StackSpec) -> Stack:
    """Return a stopped stack as one that is up, with every service still stopped."""
    return stack.begun_down(spec.services) if stack.desired == "stopped" else stack


def check_known(
    stack: Stack, spec: StackSpec, services: Iterable[str], oneoffs: Iterable[OneOff] = ()
) -> None:
    """Refuse names the stack does not have, and those of its ``oneoffs``. Raises NotFound."""
    unknown = next((name for name in services if name not in spec.services), None)
    if unknown is not None:
        for one in oneoffs:
            if one.stack == stack.name and one.task.name == unknown:
                raise NotFound(
                    f"{unknown} is what `run` made of {one.service.name}: it runs once",
                    hint=f"corral run {one.service.name} makes another",
                )
        known = ", ".join(sorted(spec.services)) or "none"
        raise NotFound(f"there is no service {unknown} in {stack.name} (services: {known})")


def _source(cluster: Cluster, stack: Stack) -> Release | None:
    """Return the release whose tasks there are: the newest, unless it came to nothing."""
    newest = cluster.releases.get((stack.name, stack.release))
    running = cluster.releases.get((stack.name, stack.running))
    if newest is None or running is None:
        return newest
    back = newest.state is ReleaseState.ROLLED_BACK
    return running if back or (newest.over and not newest.images) else newest


def _idle(stack: Stack, service: str, tasks: Iterable[Task]) -> bool:
    """Say whether something of the service was stopped, or ended and did not complete."""
    slots = newest_of(t for t in tasks if t.service == service)
    down = stack.desired == "stopped" or service in {*stack.stopped_services, *stack.created}
    if down and not slots:
        return True
    return any(
        task.state is not TaskState.COMPLETE and (down or task.state in FINAL)
        for task in slots.values()
    )


def _release(
    cluster: Cluster,
    stack: Stack,
    source: Release,
    request: Start,
    wanted: Iterable[str],
    wall: float,
) -> Release:
    known = cluster.stack_releases.get(stack.name, {})
    ready = source.state is not ReleaseState.PENDING and bool(source.images)
    return source.model_copy(
        update={
            "number": max([*known, stack.release]) + 1,
            "key": request.key,
            "state": ReleaseState.DEPLOYING if ready else ReleaseState.PENDING,
            "reason": "",
            "created_at": wall,
            "finished_at": None,
            "services": request.services,
            "starts": tuple(sorted(wanted)),
            "only_starts": True,
            "again": (),
            "grace": None,
            "remove_orphans": False,
            "no_deps": False,
            "notes": (),
            "updates": (),
            "overrides": None,
            "keeps": (),
            "renew_volumes": False,
            "places": {},
            "by": request.by,
        }
    )
