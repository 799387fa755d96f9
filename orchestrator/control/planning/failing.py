"""Which services cannot come to what their release asks, and which the release can do without.

``services`` looks at each one after it was planned, in dependency order: a dependent with
``required: false`` does not wait for what is hopeless. ``releases`` fails a release by what
failed, unless nothing that is needed depends on it. What is hopeless may still come (a node
joins, a check passes after all); what failed has ended, or ends again and again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.control.mirror import times
from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.planning import gates
from orchestrator.control.telling.causes import Cause, explain_task
from scheduler.trial import looping
from specs.kit.amounts import as_set
from specs.patience import ATTEMPTS, CRASHES, SICK
from specs.stack import Condition
from specs.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
    from scheduler.replicas import Replica
    from specs.api import Release
    from specs.stack import StackSpec

HOMELESS = 5.0  # seconds without a node after which nobody who can do without it waits on


def look(
    pass_: Pass, target: ReleaseTarget, state: ServiceState, states: Mapping[str, ServiceState]
) -> None:
    """Note in ``state`` whether the service failed, or is hopeless as things are."""
    state.failed = _failed(pass_, target, state)
    state.hopeless = state.failed or _hopeless(pass_, state, states)


def needed(spec: StackSpec, chosen: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the services a release cannot do without: ``chosen`` ones, and those nobody names.

    A service others depend on is needed where one of them is, and says it is required.
    """
    found: set[str] = set()
    for name in reversed(dependencies_of(spec).order):
        users = [s for s in spec.services.values() if name in s.depends_on]
        by_others = any(s.name in found and s.depends_on[name].required for s in users)
        if not users or name in chosen or by_others:
            found.add(name)
    return frozenset(found)


def _failed(pass_: Pass, target: ReleaseTarget, state: ServiceState) -> Cause | None:
    """Return why the service will not come as it is.

    Where an update may fail here and there (``failure_action: continue``) it is first brought to
    everything else.
    """
    if state.networks:
        return Cause(f"{state.name}: {state.networks}", service=state.name)
    if state.moves.others and _tolerant(state):
        return None
    return (
        _gave_up(pass_, target, state)
        or _goes_on_failing(pass_, target, state)
        or _unchecked(state)
    )


def _tolerant(state: ServiceState) -> bool:
    """Say whether the update goes on although some of it failed."""
    update = state.effective.service.update
    if state.effective.service.is_job:
        return False  # it has no update; that one of its tasks came to nothing is said at once
    return update.failure_action == "continue" or update.max_failure_ratio > 0


def _gave_up(pass_: Pass, target: ReleaseTarget, state: ServiceState) -> Cause | None:
    for task in gates.failed_for_good(state):
        return explain(pass_, task, state.plan.gave_up[task.slot])
    mine = [
        t
        for t in state.replicas
        if t.release == target.release.number
        and t.broken
        and not t.going
        and not state.wanted.behind(t)
    ]
    limit = min(ATTEMPTS, max(1, len(pass_.cluster.nodes)))
    for task in mine:
        if task.state is TaskState.REJECTED and task.attempt + 1 >= limit:
            return explain(pass_, task)
    for task in mine:
        if task.attempt + 1 >= ATTEMPTS:
            return explain(pass_, task, "it failed again and again")
    return None


def _goes_on_failing(pass_: Pass, target: ReleaseTarget, state: ServiceState) -> Cause | None:
    for task in state.replicas:
        if looping(task, state.trial, CRASHES) and _ended_since(pass_, task, target.release):
            lasted = "ready" if task.checked else f"up for {as_set(state.trial.monitor)}"
            return explain(pass_, task, f"restarted {task.restarts} times and never {lasted}")
    return None


def _unchecked(state: ServiceState) -> Cause | None:
    """Return whose health the service waits for although nothing checks it."""
    for name, required in state.unchecked:
        if required:
            return Cause(
                f"{state.name} waits for {name} to be healthy, but {name} has no health check, "
                f"neither in the file nor in its image: give {name} a healthcheck, or write "
                "condition: service_started",
                service=state.name,
            )
    return None


def _ended_since(pass_: Pass, task: Replica, release: Release) -> bool:
    """Say whether the task's last end is this release's: older trouble may be put right by now."""
    if task.release == release.number:
        return True
    found = pass_.draft.task(task.id)
    ended = found.status.last_end if found is not None else None
    if found is None or ended is None or ended.finished_at is None:
        return False
    at = times.by_ours(pass_.cluster.conditions, found, ended.finished_at)
    return at > release.created_at


def sick(
    pass_: Pass,
    target: ReleaseTarget,
    states: Mapping[str, ServiceState],
    state: ServiceState,
) -> Cause | None:
    """Return what an unhealthy container spoils that is only marked, not restarted.

    Whoever waits for its health waits in vain; where nobody does it has ``SICK`` seconds more.
    """
    waiting = any(
        name == state.name and (edge.condition, edge.required) == (Condition.HEALTHY, True)
        for other in states.values()
        if other.waits_for
        for name, edge in gates.edges(other.effective.service, states)
    )
    for task in gates.unhealthy(state):
        never = task.state is not TaskState.RUNNING
        late = pass_.now >= given_up(target, task)
        if waiting or (never and late):
            return explain(pass_, task)
    return None


def given_up(target: ReleaseTarget, task: Replica) -> float:
    """Return when an unhealthy container that nobody waits for is given up."""
    since = task.sick_since if task.sick_since is not None else math.inf
    return since + min(SICK, target.spec.deadline / 2)


def _hopeless(pass_: Pass, state: ServiceState, states: Mapping[str, ServiceState]) -> Cause | None:
    return _unhealthy(pass_, state) or _homeless(pass_, state) or _blocked(state, states)


def _unhealthy(pass_: Pass, state: ServiceState) -> Cause | None:
    """Return what is unhealthy now, restarted or not."""
    found = (t for t in gates.current(state) if t.live and t.unhealthy)
    return next((explain(pass_, t) for t in found), None)


def _homeless(pass_: Pass, state: ServiceState) -> Cause | None:
    for task in gates.current(state):
        if task.pending_since is None or not task.live:
            continue
        until = task.pending_since + HOMELESS
        if pass_.now < until:
            state.look_at = until
            continue
        found = pass_.draft.task(task.id)
        why = found.pending_reason if found is not None else ""
        return Cause(f"{state.name}: {why or 'no node takes it'}", service=state.name)
    return None


def _blocked(state: ServiceState, states: Mapping[str, ServiceState]) -> Cause | None:
    """Return who keeps the service from starting for as long as it is hopeless itself."""
    if not state.waits_for:
        return None
    service = state.effective.service
    for name, edge in gates.edges(service, states):
        one = name == service.task.partner
        if states[name].hopeless is None or gates.satisfied(edge, states[name], one=one):
            continue
        return Cause(f"{state.name} is blocked by {name}", service=state.name)
    return None


def explain(pass_: Pass, task: Replica, verdict: str = "") -> Cause:
    """Return how the task is, as a sentence."""
    return explain_task(pass_.cluster, pass_.draft.task(task.id), verdict)
