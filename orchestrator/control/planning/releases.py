"""A release's life after its images are known: deploying, then deployed, failed, rolled back.

``target`` says what a stack is steered to, ``judge`` moves the release on after its
services were planned, ``find_cause`` finds what makes it impossible. Making a release and
having its images prepared is ``orchestrator.control.deploy``'s.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.records import STACKS
from orchestrator.control.mirror.released import finish, spec_of
from orchestrator.control.planning.gates import failed_for_good, unhealthy
from orchestrator.control.planning.passes import earliest
from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
from orchestrator.control.telling.causes import Cause, explain_newest, explain_task
from orchestrator.control.telling.words import words_of
from specs.stack import Condition
from specs.states import FINAL, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.planning.passes import Pass
    from scheduler.replicas import Replica
    from specs.api import Release, Stack
    from specs.stack import StackSpec

CRASHES = 10  # restarts of a first start that was never ready: about a minute of back-off
SICK = 30.0  # seconds for an unhealthy container that nobody waits for: slow starters get well
ATTEMPTS = 3  # replacements of one slot that failed in a row: the release fails


def target(pass_: Pass, stack: Stack) -> ReleaseTarget | None:
    """Return what the stack is steered to, or None: it is kept as it is."""
    newest = pass_.cluster.releases.get((stack.name, stack.release))
    if newest is not None and newest.state in (ReleaseState.DEPLOYING, ReleaseState.DEPLOYED):
        return _target(pass_, newest)
    running = pass_.cluster.releases.get((stack.name, stack.running))
    if running is None:
        return None
    if newest is not None and newest.state is ReleaseState.ROLLED_BACK:
        return _target(pass_, running, rollback=True)
    mixed = any(t.release > stack.running for t in pass_.draft.tasks(stack.name).values())
    return None if mixed else _target(pass_, running)


def _target(pass_: Pass, release: Release, *, rollback: bool = False) -> ReleaseTarget | None:
    spec = spec_of(pass_.cluster, release)
    return None if spec is None else ReleaseTarget(release, spec, rollback)


def judge(
    pass_: Pass, stack: Stack, target: ReleaseTarget, states: Mapping[str, ServiceState]
) -> float | None:
    """Move the release on: deployed when all is as wanted, failed when that cannot come.

    Return when to look again.
    """
    release = target.release
    if release.state is not ReleaseState.DEPLOYING:
        return None
    states = {name: state for name, state in states.items() if not state.carried}
    for state in states.values():
        if state.moves.state == "failed":
            _rollout_failed(pass_, stack, release, state)
            return None
    cause = find_cause(pass_, target, states)
    if cause is not None:
        fail(pass_, release, cause.message)
        return None
    settled = sum(state.settled for state in states.values())
    wanted = sum(len(state.wanted.slots) for state in states.values())
    if settled == wanted and _quiet(pass_, stack, target, states):
        _deployed(pass_, stack, release)
        return None
    since = pass_.observed.settled(stack.name, release.number, settled)
    until = since + target.spec.deadline
    if pass_.now >= until:
        slow = stuck(pass_, states)
        text = f"no progress for {target.spec.deadline:g} s: {slow}"
        broken = next((s for s in states.values() if s.moves.total > s.moves.updated), None)
        if broken is not None and _rolls_back(stack, broken, release):
            _roll_back(pass_, stack, release, text)
        else:
            fail(pass_, release, text)
        return None
    given_up = (_given_up(target, t) for state in states.values() for t in unhealthy(state))
    return earliest(until, *(at for at in given_up if at > pass_.now))


def _quiet(
    pass_: Pass, stack: Stack, target: ReleaseTarget, states: Mapping[str, ServiceState]
) -> bool:
    """Say whether no rollout moves and nothing of removed or surplus tasks still runs."""
    if any(state.moves.state == "going" for state in states.values()):
        return False
    return not any(
        task.state not in FINAL and pass_.node_status(task.node) != "down" and not task.live
        for task in pass_.draft.tasks(stack.name).values()
        if task.service not in target.spec.carried
    ) and all(
        task.service in target.spec.services or not task.live
        for task in pass_.draft.tasks(stack.name).values()
    )


def _deployed(pass_: Pass, stack: Stack, release: Release) -> None:
    finish(pass_.draft, release, ReleaseState.DEPLOYED, "", at=pass_.wall)
    pass_.draft.put(STACKS, stack.with_running(release.number))


def fail(pass_: Pass, release: Release, reason: str) -> None:
    """Mark a release as failed; what runs is left as it is."""
    finish(pass_.draft, release, ReleaseState.FAILED, reason, at=pass_.wall)


def _rolls_back(stack: Stack, state: ServiceState, release: Release) -> bool:
    action = state.effective.service.update.failure_action
    return action == "rollback" and 0 < stack.running < release.number


def _rollout_failed(pass_: Pass, stack: Stack, release: Release, state: ServiceState) -> None:
    cause = worst(pass_, stack.name, state)
    text = f"update of {state.name} failed: {state.moves.reason}"
    if cause is not None:
        text += f"; {cause.message}"
    if _rolls_back(stack, state, release):
        _roll_back(pass_, stack, release, text)
    else:
        fail(pass_, release, f"{text}; the update is paused")


def _roll_back(pass_: Pass, stack: Stack, release: Release, reason: str) -> None:
    text = f"{reason}; rolled back to release {stack.running}"
    finish(pass_.draft, release, ReleaseState.ROLLED_BACK, text, at=pass_.wall)


def find_cause(
    pass_: Pass, target: ReleaseTarget, states: Mapping[str, ServiceState]
) -> Cause | None:
    """Return what makes the release impossible, the root before what it blocks."""
    graph = dependencies_of(target.spec)
    for name, state in states.items():
        if state.networks:
            return Cause(f"{name}: {state.networks}", service=name)
        cause = _service_failed(pass_, target, state) or _sick(pass_, target, states, name)
        if cause is None or _optional(target.spec, name):
            continue
        blocked = sorted(
            other
            for other in graph.all_dependents([name])
            if other in states and not _settled(states[other])
        )
        if blocked:
            names = ", ".join(blocked)
            return Cause(
                f"{cause.message}; {names} {'is' if len(blocked) == 1 else 'are'} "
                f"blocked by {name}",
                cause.service,
                cause.task,
                cause.exit_code,
                cause.log_tail,
            )
        return cause
    return None


def _settled(state: ServiceState) -> bool:
    return state.settled == len(state.wanted.slots)


def _optional(spec: StackSpec, name: str) -> bool:
    """Say whether everybody who depends on the service does so with ``required: false``."""
    edges = [s.depends_on[name] for s in spec.services.values() if name in s.depends_on]
    return bool(edges) and not any(edge.required for edge in edges)


def _service_failed(pass_: Pass, target: ReleaseTarget, state: ServiceState) -> Cause | None:
    for task in failed_for_good(state):
        return explain_task(pass_.cluster, pass_.draft.task(task.id), state.plan.gave_up[task.slot])
    mine = [
        t for t in state.replicas if t.release == target.release.number and t.broken and not t.going
    ]
    rejections = [t for t in mine if t.state is TaskState.REJECTED]
    limit = min(ATTEMPTS, max(1, len(pass_.cluster.nodes)))
    for task in rejections:
        if task.attempt + 1 >= limit:
            return explain_task(pass_.cluster, pass_.draft.task(task.id), "")
    for task in mine:
        if task.attempt + 1 >= ATTEMPTS:
            return explain_task(
                pass_.cluster, pass_.draft.task(task.id), "it failed again and again"
            )
    for task in state.replicas:
        crashing = task.restarts >= CRASHES and not task.was_ready
        if crashing and task.live and task.release == target.release.number:
            return explain_task(
                pass_.cluster,
                pass_.draft.task(task.id),
                f"restarted {task.restarts} times and never ready",
            )
    return None


def _sick(
    pass_: Pass, target: ReleaseTarget, states: Mapping[str, ServiceState], name: str
) -> Cause | None:
    """Return what an unhealthy container spoils that is only marked, not restarted.

    Whoever waits for its health waits in vain; where nobody does it has ``SICK`` seconds more.
    """
    waiting = any(
        state.waits_for
        and (edge := state.effective.service.depends_on.get(name)) is not None
        and (edge.condition, edge.required) == (Condition.HEALTHY, True)
        for state in states.values()
    )
    for task in unhealthy(states[name]):
        never = task.state is not TaskState.RUNNING
        late = pass_.now >= _given_up(target, task)
        if waiting or (never and late):
            return explain_task(pass_.cluster, pass_.draft.task(task.id), "")
    return None


def _given_up(target: ReleaseTarget, task: Replica) -> float:
    """Return when an unhealthy container that nobody waits for is given up."""
    since = task.sick_since if task.sick_since is not None else math.inf
    return since + min(SICK, target.spec.deadline / 2)


def worst(pass_: Pass, stack: str, state: ServiceState) -> Cause | None:
    """Return the explanation by the newest task of the service that went wrong."""
    tasks = [pass_.draft.task(t.id) for t in state.replicas if t.broken or not t.ready]
    return explain_newest(pass_.cluster, [t for t in tasks if t is not None and t.stack == stack])


def stuck(pass_: Pass, states: Mapping[str, ServiceState]) -> str:
    """Return who the release waits for, in one line."""
    parts = []
    for name, state in states.items():
        if _settled(state) and state.moves.state != "going":
            continue
        if state.waits_for:
            parts.append(f"{name} waits for {state.waits_for}")
            continue
        waiting = [pass_.draft.task(t.id) for t in state.replicas if t.live and not t.ready]
        words = sorted({words_of(pass_.cluster, t).text for t in waiting if t is not None})
        parts.append(
            f"{name} has {state.settled} of {len(state.wanted.slots)} ready"
            + (f" ({'; '.join(words[:3])})" if words else "")
        )
    return "; ".join(parts[:5]) or "tasks of an earlier release are still there"
