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
    from collections.abc import Mapping

    from orchestrator.control.planning.service_state import ServiceState
    from scheduler.replicas import Replica
    from specs.stack import Dependency, ServiceSpec


def waits_for(
    service: ServiceSpec, states: Mapping[str, ServiceState], *, restarted: bool = False
) -> str:
    """Return what the service waits for (``db to be healthy, migrate to complete``), or "".

    ``restarted``: what it was last asked for is a restart.
    """
    waiting = [
        edge_words(name, edge)
        for name, edge in sorted(service.depends_on.items())
        if name in states and (edge.restart or not restarted) and not satisfied(edge, states[name])
    ]
    return ", ".join(waiting)


def satisfied(edge: Dependency, state: ServiceState) -> bool:
    """Say whether one dependency is as the edge asks."""
    if not edge.required and state.hopeless is not None:
        return True  # that is told, not waited for
    met = {task.slot for task in current(state) if _meets(edge.condition, task)}
    return met.issuperset(state.wanted.slots)


def failed_for_good(state: ServiceState) -> list[Replica]:
    """Return ended tasks that get no replacement although they did not complete."""
    return [task for task in current(state) if task.slot in state.plan.gave_up and task.broken]


def current(state: ServiceState) -> list[Replica]:
    """Return the tasks of the spec that is wanted, but for those gone or asked for anew."""
    return [
        task
        for task in state.replicas
        if state.wanted.slots.get(task.slot) == task.spec_hash
        and not task.going
        and not state.wanted.behind(task)
    ]


def unhealthy(state: ServiceState) -> list[Replica]:
    """Return current tasks that are unhealthy and that nothing restarts: they are only marked."""
    return [t for t in current(state) if t.live and t.sick_since is not None]


def _meets(condition: Condition, task: Replica) -> bool:
    match condition:
        case Condition.COMPLETED:
            return task.done
        case Condition.HEALTHY:
            # A one-off that completed was healthy in its time; Compose sees it so too.
            return task.ready or task.done
        case Condition.STARTED:
            return task.has_run
