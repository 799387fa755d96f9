"""``x-corral.depends_deadline``: how long a service waits for one that it depends on.

A dependency's time runs once nothing but itself holds it back: who waits in a chain is not held to
the time of those before it. Where it is over, the release fails by the edge; a dependent that can
do without (``required: false``) goes on. What is observed only: a controller that starts begins
the time anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import edge_words
from orchestrator.control.planning import gates
from orchestrator.control.planning.passes import earliest
from orchestrator.control.telling.causes import Cause, explain_task
from specs.kit.amounts import as_set

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
    from specs.stack import Dependency


def gone_without(pass_: Pass, target: ReleaseTarget, name: str) -> frozenset[str]:
    """Return whom a service can do without and has waited for long enough."""
    key = (target.release.stack, target.release.number)
    since = pass_.observed.edges.get(key, {})
    service = target.spec.services[name]
    return frozenset(
        other
        for other, edge in service.depends_on.items()
        if edge.deadline and not edge.required
        if (at := since.get((name, other))) is not None and at + edge.deadline <= pass_.now
    )


def look(
    pass_: Pass, target: ReleaseTarget, state: ServiceState, states: Mapping[str, ServiceState]
) -> None:
    """Note in ``state`` that a dependency was waited for too long, and when the next one is."""
    release = target.release
    if not target.deploys or state.carried:
        return
    edges = {n: e for n, e in state.effective.service.depends_on.items() if e.deadline}
    if not edges:
        return
    seen = pass_.observed.edges.setdefault((release.stack, release.number), {})
    for name, edge in sorted(edges.items()):
        other = states.get(name)
        if other is None:
            continue
        met = gates.satisfied(edge, other)
        if name in state.gone_without and not met:
            continue  # that is not taken back
        if met or other.stands or not state.waits_for:
            seen.pop((state.name, name), None)
            continue
        if other.waits_for:
            continue
        at = seen.setdefault((state.name, name), pass_.now) + edge.deadline
        if at > pass_.now:
            state.look_at = earliest(state.look_at, at)
            state.patient_until = max(state.patient_until, at)
        elif edge.required and state.failed is None:
            state.failed = state.hopeless = _cause(pass_, state, other, edge)


def _cause(pass_: Pass, state: ServiceState, other: ServiceState, edge: Dependency) -> Cause:
    """Return the edge that was waited for too long, and how the one waited for is."""
    text = (
        f"{state.name} waited {as_set(edge.deadline)} for {edge_words(other.name, edge)} "
        "(x-corral.depends_deadline)"
    )
    for task in gates.current(other):
        if not gates.meets(edge.condition, task):
            found = explain_task(pass_.cluster, pass_.draft.task(task.id), "")
            return Cause(
                f"{text}: {found.message}",
                service=found.service or other.name,
                task=found.task,
                exit_code=found.exit_code,
                log_tail=found.log_tail,
            )
    return Cause(text, service=other.name)
