"""How far each service's rollout is, in the words and numbers of `corral rollout status`.

Made of what a pass decided, at its end; ``telling.rollouts`` puts the release beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.api import RolloutRow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
    from specs.api import Stack
    from specs.task import Task


def note(
    pass_: Pass, stack: Stack, target: ReleaseTarget, states: Mapping[str, ServiceState]
) -> None:
    """Keep how far the services are that the newest release changes."""
    newest = pass_.cluster.releases.get((stack.name, stack.release))
    updates = {*(newest.updates or ())} if newest is not None else set()
    about = [s for s in states.values() if s.name in updates or s.name in stack.standby]
    rows = tuple(_row(pass_, stack, target, state) for state in about if not state.carried)
    if pass_.observed.rollouts.get(stack.name, ()) != rows:
        pass_.observed.rollouts[stack.name] = rows
        pass_.told.add(stack.name)


def _row(pass_: Pass, stack: Stack, target: ReleaseTarget, state: ServiceState) -> RolloutRow:
    update = state.effective.service.update
    way = "blue-green" if update.blue_green else "canary" if update.canary else "rolling"
    goal = state.effective.hash
    new = {t.slot for t in state.replicas if t.spec_hash == goal and (t.ready or t.done)}
    total = max(len(state.wanted.slots), state.moves.total)
    old = {t.slot for t in state.replicas if t.spec_hash != goal and t.live}
    serving = {t.slot for t in state.replicas if t.live and (t.ready or t.done)}
    waits, until = _waits(pass_, state)
    standby = stack.standby.get(state.name)
    kept = standby.hashes if standby is not None and standby.since else ()
    updated = len(new - old)
    return RolloutRow(
        service=state.name,
        way=way,
        state=_state(state, target, updated=updated, total=total),
        updated=updated,
        total=total,
        under_way=tuple(_names(pass_, state, goal)),
        failed=sum(t.broken and t.spec_hash == goal for t in state.replicas),
        unavailable=max(0, total - len(serving)),
        waits=waits,
        until=until,
        kept=tuple(sorted(t.name for t in _kept(pass_, stack, state.name, kept))),
        kept_until=standby.until if standby is not None and kept else 0.0,
    )


def _kept(pass_: Pass, stack: Stack, service: str, hashes: Collection[str]) -> list[Task]:
    mine = pass_.draft.tasks(stack.name).values() if hashes else ()
    return [t for t in mine if t.service == service and t.live and t.spec_hash in hashes]


def _names(pass_: Pass, state: ServiceState, goal: str) -> list[str]:
    """Return the tasks that come or go now."""
    moving = [
        t
        for t in state.replicas
        if (t.going and not t.ended) or (t.live and t.spec_hash == goal and not t.ready)
    ]
    found = (pass_.draft.task(t.id) for t in moving)
    return sorted(task.name for task in found if task is not None)


def _state(state: ServiceState, target: ReleaseTarget, *, updated: int, total: int) -> str:
    if state.moves.state == "failed" or state.failed is not None:
        return "failed"
    if state.name in target.release.paused and state.stands:
        return "paused"
    if state.held:
        return "standby" if state.wanted.beside == {*state.wanted.slots} else "canary"
    if updated == total and state.moves.state == "done":
        return "done"
    return "waiting" if state.waits_for and not updated else "going"


def _waits(pass_: Pass, state: ServiceState) -> tuple[str, float]:
    """Return what the service waits for, and when time alone ends that (seconds, the epoch)."""
    at = state.until
    text = state.held
    if not text and state.waits_for:
        text = f"waits for {state.waits_for}"
    elif not text and state.moves.paused is not None and state.moves.paused > pass_.now:
        text, at = "what is new is watched before the next follow", state.moves.paused
    elif not text and state.homeless:
        found = pass_.draft.task(state.homeless[0].id)
        text = f"no node: {found.pending_reason}" if found is not None else ""
    return text, 0.0 if at is None or at <= pass_.now else round(pass_.wall + at - pass_.now, 1)
