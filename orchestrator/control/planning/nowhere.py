"""Tasks that no node takes: said after a while, with each node's reason and what would help.

It is written into the release, which goes on: a node may join, room may be made. Whoever
waits for the release reads there whether anything else of it is still under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import RELEASES
from orchestrator.control.planning import gates
from orchestrator.control.planning.passes import earliest
from orchestrator.control.planning.placement import refusal
from specs.api import Homeless
from specs.patience import NOWHERE
from specs.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ServiceState
    from scheduler.replicas import Replica
    from specs.api import Release


def look(pass_: Pass, state: ServiceState) -> None:
    """Note in ``state`` which tasks have had no node for long, and when the next one will."""
    waiting = [t for t in gates.current(state) if t.live and t.pending_since is not None]
    until = {t.id: (t.pending_since or 0.0) + NOWHERE for t in waiting}
    state.homeless = tuple(t for t in waiting if until[t.id] <= pass_.now)
    soon = (at for at in until.values() if at > pass_.now)
    state.look_at = earliest(state.look_at, *soon)


def noted(pass_: Pass, release: Release, awaited: Sequence[ServiceState]) -> Release:
    """Write into the release what it has no node for; return it as it is then."""
    named = (_homeless(pass_, state) for state in awaited if state.homeless)
    found = tuple(one for one in named if one is not None)
    stalled = bool(found) and all(at_rest(pass_, state) for state in awaited)
    if (release.homeless, release.stalled) == (found, stalled):
        return release
    release = release.with_homeless(found, stalled=stalled)
    pass_.draft.put(RELEASES, release)
    return release


def at_rest(pass_: Pass, state: ServiceState) -> bool:
    """Say whether nothing of the service is under way: all of it serves, or waits for a node."""
    plan, moves = state.plan, state.moves
    if plan.create or plan.stop or moves.create or moves.stop:
        return False
    if earliest(plan.wake, moves.wake, state.steady_at) is not None:
        return False
    homeless = {task.id for task in state.homeless}
    return all(task.id in homeless or _rests(pass_, task) for task in state.replicas)


def _rests(pass_: Pass, task: Replica) -> bool:
    if task.ended or pass_.node_status(task.node) == "down":
        return True  # on a node that is down nothing gets on
    if task.ready or task.going:
        return not task.going
    # It could start, and waits for others: they are under way, or wait themselves.
    return task.state is TaskState.PREPARED and not task.started


def _homeless(pass_: Pass, state: ServiceState) -> Homeless | None:
    tasks = [found for t in state.homeless if (found := pass_.draft.task(t.id)) is not None]
    if not tasks:
        return None  # taken away in this very pass: nothing waits for a node any more
    why = refusal(pass_, tasks[0])
    return Homeless(
        service=state.name,
        tasks=tuple(task.name for task in tasks),
        placed=len({t.slot for t in gates.current(state) if t.node is not None}),
        wanted=len(state.wanted.slots),
        reason=tasks[0].pending_reason,
        nodes=why.nodes,
        hint=why.hint,
    )
