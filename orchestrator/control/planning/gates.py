"""The ``depends_on`` gate: may a service's tasks start in this release, and if not, why.

It holds for every start that `up`, `start` and `restart` cause, also of what ran before;
replacements of tasks already admitted are never gated. `restart` waits along edges with
``restart: true`` only, as in Compose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import edge_words
from specs.stack import Condition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from orchestrator.control.planning.service_state import ServiceState
    from scheduler.reconcile import WantedService
    from scheduler.replicas import Replica
    from specs.api import Stack
    from specs.stack import Dependency, ServiceSpec


CREATED = "corral start, being only created"


def created(stack: Stack, service: str) -> str:
    """Return what a service waits for that nobody asked to run yet; "" where somebody did."""
    return CREATED if service in stack.created else ""


def admitted(wanted: WantedService, replicas: Iterable[Replica]) -> bool:
    """Say whether the service passed its gate: a task of it was let run since it was asked for.

    Such a task still runs, or ended by itself; what was stopped, or ended before somebody
    asked for it, passed another gate.
    """
    return any(
        wanted.slots.get(t.slot) == t.spec_hash
        and t.started
        and not t.leaving
        and not wanted.behind(t)
        for t in replicas
    )


def waits_for(
    service: ServiceSpec,
    states: Mapping[str, ServiceState],
    wanted: WantedService,
    without: Collection[str] = (),
) -> str:
    """Return what the service waits for (``db to be healthy, migrate to complete``), or "".

    ``without``: whom it does not wait for any more.
    """
    waiting = [
        edge_words(name, edge) if not (held := states[name].held) else f"{name} ({held})"
        for name, edge in _held(service, states, wanted)
        if name not in without
        if not satisfied(edge, states[name], one=name == service.task.partner)
    ]
    return ", ".join(dict.fromkeys(waiting))


def unchecked(
    service: ServiceSpec, states: Mapping[str, ServiceState], wanted: WantedService
) -> Iterator[tuple[str, Dependency]]:
    """Yield what the service waits for to be healthy although nothing can ever say so.

    That a task has no health check, its own or its image's, is known once it ran.
    """
    for name, edge in _held(service, states, wanted):
        if _in_vain(edge, states[name]):
            yield name, edge


def _held(
    service: ServiceSpec, states: Mapping[str, ServiceState], wanted: WantedService
) -> Iterator[tuple[str, Dependency]]:
    """Yield the edges that count for a start of the service now."""
    for name, edge in edges(service, states):
        if _holds(edge, states[name].wanted, wanted):
            yield name, edge


def edges(
    service: ServiceSpec, states: Mapping[str, ServiceState]
) -> Iterator[tuple[str, Dependency]]:
    """Yield what the service depends on; a one-off that is skipped stands for its own order.

    So an application behind a migration that was done long ago starts after the database.
    """
    for name, edge in sorted(service.depends_on.items()):
        if name not in states:
            continue
        yield name, edge
        if _skipped(states[name]):
            for other, inherited in edges(states[name].effective.service, states):
                required = edge.required and inherited.required
                yield other, inherited.model_copy(update={"required": required})


def _skipped(state: ServiceState) -> bool:
    """Say whether everything of the service had completed when it was last asked for."""
    tasks = current(state)
    return bool(tasks) and all(t.done and t.asked < state.wanted.asked for t in tasks)


def _holds(edge: Dependency, dependency: WantedService, wanted: WantedService) -> bool:
    """Say whether the edge counts: after `restart` only one to what was restarted with it."""
    if not 0 < wanted.asked == wanted.asked_again:
        return True
    return edge.restart and dependency.asked_again >= wanted.asked_again


def satisfied(edge: Dependency, state: ServiceState, *, one: bool = False) -> bool:
    """Say whether one dependency is as the edge asks.

    ``one``: a task of it is enough, as each waits for its own partner besides (see pairs).
    """
    if state.held:
        return False  # what it was before is not what this release asks for
    if _in_vain(edge, state):
        return not edge.required
    if not edge.required and state.hopeless is not None:
        return True  # that is told, not waited for
    met = {task.slot for task in current(state) if meets(edge.condition, task)}
    if one and state.wanted.slots:
        return bool(met)
    return met.issuperset(state.wanted.slots)


def _in_vain(edge: Dependency, state: ServiceState) -> bool:
    """Say whether health is waited for that nothing checks."""
    return edge.condition is Condition.HEALTHY and any(
        t.has_run and not t.checked for t in current(state)
    )


def failed_for_good(state: ServiceState) -> list[Replica]:
    """Return ended tasks that get no replacement although they did not complete."""
    return [task for task in current(state) if task.slot in state.plan.gave_up and task.broken]


def current(state: ServiceState) -> tuple[Replica, ...]:
    """Return the tasks of the spec that is wanted, but for those gone or asked for anew."""
    if state.current is None:  # asked for again and again, and neither input changes
        wanted, slots = state.wanted, state.wanted.slots
        state.current = tuple(
            task
            for task in state.replicas
            if slots.get(task.slot) == task.spec_hash
            and not task.going
            and not (task.ended and wanted.behind(task))
        )
    return state.current


def unhealthy(state: ServiceState) -> list[Replica]:
    """Return current tasks that are unhealthy and that nothing restarts: they are only marked."""
    return [t for t in current(state) if t.live and t.sick_since is not None]


def meets(condition: Condition, task: Replica) -> bool:
    """Say whether the task is as a condition asks."""
    if task.restarting:
        return False  # what it was before is no news
    match condition:
        case Condition.COMPLETED:
            return task.done
        case Condition.HEALTHY:
            # A one-off that completed was healthy in its time; Compose sees it so too. Without a
            # check this is that it runs: who may not take it for health asks ``unchecked``.
            return task.ready or task.done
        case Condition.STARTED:
            return task.has_run
