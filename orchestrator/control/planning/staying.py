"""Which of a service's tasks came to stay, and when the next one may have: scheduler.trial.

A release ends well only when all of them have; ``services`` asks after a service was planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.planning import gates
from orchestrator.control.planning.passes import earliest
from scheduler.trial import Trial, has_exited, steady_at
from specs.kit.amounts import as_set
from specs.patience import TRIAL
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
    from specs.api import Release, Stack


def judge(pass_: Pass, stack: Stack, state: ServiceState, target: ReleaseTarget) -> None:
    """Count the slots whose task came to stay, and note when the next one may have."""
    before = pass_.specs.of(stack.name, stack.running, state.name)
    service = state.effective.service
    update = service.rollback if target.rollback else service.update
    updated = before is not None and target.release.updating(state.name)
    state.trial = Trial(
        monitor=update.trial if updated else update.monitor,  # a first start has no delay
        updated=updated,
        deployed=min(stack.running, target.release.number - 1),
    )
    tasks = gates.current(state)
    exited = has_exited(tasks)
    slots: dict[int, float] = {}
    tried = 0.0
    for task in tasks:
        if state.must_end and not task.done:
            continue
        at = steady_at(task, state.trial, exited=exited, now=pass_.now)
        if at is not None:
            slots[task.slot] = min(at, slots.get(task.slot, at))
            if at > pass_.now and task.ready_since is not None:
                tried = max(tried, round(at - task.ready_since, 1))
    state.steady = sum(at <= pass_.now for at in slots.values())
    if target.release.state is ReleaseState.DEPLOYING:
        state.steady_at = earliest(*(at for at in slots.values() if at > pass_.now))
    words = "" if state.carried else _words(state, target.release, tried, serve=len(slots))
    if pass_.observed.watch(stack.name, target.release.number, state.name, words):
        pass_.told.add(stack.name)


def _words(state: ServiceState, release: Release, tried: float, *, serve: int) -> str:
    """Return that time alone is missing, for whoever waits; "" where it is not so."""
    total = len(state.wanted.slots)
    if state.held:
        paused = state.name in release.paused
        help_ = "; corral rollout resume goes on with it" if paused else ""
        return f"{state.held}{help_}" if state.stands else ""
    if serve == total:
        return (
            f"all of it runs; watched for {as_set(tried)} before that counts"
            if tried > TRIAL
            else ""
        )
    if state.moves.paused is None or state.moves.create or not state.moves.others:
        return ""
    update = state.effective.service.update
    until = max(update.monitor, update.delay)
    return f"{serve} of {total} replaced; the next follow when these have run for {as_set(until)}"
