"""A release's life after its images are known: deploying, then deployed, failed, rolled back.

``target`` says what a stack is steered to, ``judge`` moves the release on after its
services were planned, ``find_cause`` finds what makes it impossible (``failing`` says which
services failed). Making a release and
having its images prepared is ``orchestrator.control.deploy``'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.observed import BY_HAND
from orchestrator.control.mirror.records import RELEASES, STACKS
from orchestrator.control.mirror.released import beside, finish, spec_of
from orchestrator.control.mirror.serving import is_leaving
from orchestrator.control.planning import failing, holding, misplaced, nowhere
from orchestrator.control.planning.gates import unhealthy
from orchestrator.control.planning.passes import earliest
from orchestrator.control.planning.service_state import ReleaseTarget
from orchestrator.control.planning.stopping import ACK_LIMIT, unheard
from orchestrator.control.telling.causes import explain_newest
from orchestrator.control.telling.words import words_of
from orchestrator.store import keys
from scheduler.trial import marked
from specs.kit.amounts import as_set
from specs.states import FINAL, ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ServiceState
    from orchestrator.control.telling.causes import Cause
    from specs.api import Release, Stack
    from specs.task import Task

LISTEN = 0.05  # seconds between two looks at what nodes have heard of


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
    # What failed half way is no reason to undo what it did, as ending tasks where it excludes
    # them; one that failed before it was deployed did nothing.
    begun = (
        newest is not None and newest.state is ReleaseState.FAILED and newest.updates is not None
    )
    mixed = any(t.release > stack.running for t in pass_.draft.tasks(stack.name).values())
    return None if mixed or begun else _target(pass_, running)


def _target(pass_: Pass, release: Release, *, rollback: bool = False) -> ReleaseTarget | None:
    spec = spec_of(pass_.cluster, release)
    if spec is None:
        return None
    tasks = pass_.draft.tasks(release.stack).values() if rollback and release.keeps else ()
    touched = {task.service for task in tasks if task.release > release.number}
    return ReleaseTarget(release, spec, rollback, tuple({*release.keeps} - touched))


def begin(pass_: Pass, release: Release, images: Mapping[str, str]) -> None:
    """Have a release deployed whose images are there: its numbers count, and what it starts."""
    pass_.draft.put(RELEASES, deploying(pass_, release, images))
    stack = pass_.cluster.stacks.get(release.stack)
    if stack is not None and stack.desired == "up":
        pass_.draft.put(STACKS, stack.begun(release))


def deploying(pass_: Pass, release: Release, images: Mapping[str, str]) -> Release:
    """Return a release whose images are there, with the services it updates.

    Those have tasks of another spec now, or where its constraints do not want them. What was
    stopped, or is not there, it only starts.
    """
    release = release.with_images(images)
    spec = spec_of(pass_.cluster, release)
    stack = pass_.cluster.stacks.get(release.stack)
    if spec is None or stack is None or stack.desired != "up":
        return release.with_updates(())
    about = set(spec.services) - set(beside(spec, release)) - set(stack.stopped_services)
    about -= {*release.keeps}

    def replaces(task: Task) -> bool:
        wanted = pass_.specs.under(release, spec, task.service)
        return task.spec_hash != wanted.hash or misplaced.breaks(pass_, wanted, task)

    tasks = pass_.draft.tasks(stack.name).values()
    living = [task for task in tasks if task.service in about and not is_leaving(task)]
    found = {task.service for task in living if replaces(task)}
    return release.with_updates(tuple(sorted(found)))


def under_way(pass_: Pass, stack: str) -> bool:
    """Say whether the stack's newest release is being deployed."""
    return deploys(pass_.cluster, stack)


def deploys(cluster: Cluster, stack: str) -> bool:
    """Say whether the stack's newest release is being deployed, by the records there are."""
    record = cluster.stacks.get(stack)
    release = cluster.releases.get((stack, record.release)) if record is not None else None
    return release is not None and release.state is ReleaseState.DEPLOYING


def judge(
    pass_: Pass,
    stack: Stack,
    target: ReleaseTarget,
    states: Mapping[str, ServiceState],
    interested: Mapping[str, set[str]],
) -> float | None:
    """Move the release on: deployed when all came to stay, failed when that cannot come.

    ``interested``: network -> the nodes that are told of its endpoints. Return when to look again.
    """
    release = target.release
    if release.state is not ReleaseState.DEPLOYING:
        return None
    judged = _judged(target, states)
    for state in judged:
        if state.moves.state == "failed" and not _spared(target, state):
            _rollout_failed(pass_, stack, release, state)
            return None
    cause = find_cause(pass_, target, states)
    if cause is not None:
        fail(pass_, release, cause.message, cause)
        return None
    release = holding.promote(pass_, _noted(pass_, target, judged), judged)
    awaited = [state for state in judged if not _spared(target, state)]
    steady = sum(state.steady for state in awaited)
    wanted = sum(len(state.wanted.slots) for state in awaited)
    quiet = _quiet(pass_, stack, target, awaited)
    held = any(state.held for state in awaited)
    if steady == wanted and quiet and not held:
        return _came_to_stay(pass_, stack, release, awaited, interested)
    release = nowhere.noted(pass_, release, awaited)
    stands = any(state.stands for state in awaited)
    _tell_by_hand(pass_, release, awaited)
    since = pass_.observed.settled(stack.name, release.number, steady, stands=stands)
    # A batch that is watched before the next one begins is no standstill, however long it is.
    since = max([since, *(s.moves.paused for s in awaited if s.moves.paused is not None)])
    until = max([since + target.spec.deadline, *(state.patient_until for state in awaited)])
    if pass_.now < until:
        given_up = (failing.given_up(target, t) for s in awaited for t in unhealthy(s))
        return earliest(until, *(at for at in given_up if at > pass_.now))
    # Where all serve and are only watched for a while, each service says until when.
    if not quiet or not all(_settled(state) for state in awaited):
        _too_late(pass_, stack, release, awaited, target.spec.deadline)
    return None


def _tell_by_hand(pass_: Pass, release: Release, awaited: Sequence[ServiceState]) -> None:
    """Note that all that is left of the release is somebody's to decide, where it is so."""
    asked = [state for state in awaited if state.by_hand]
    left = [s for s in awaited if not (s.by_hand or s.waits_for or s.moves.state == "done")]
    text = ""
    if asked and not left and all(s.steady == len(s.wanted.slots) for s in asked):
        told = "; ".join(f"{state.name}: {state.held}" for state in asked)
        text = f"{told}: corral rollout promote, or corral rollout abort"
    if pass_.observed.watch(release.stack, release.number, BY_HAND, text):
        pass_.told.add(release.stack)


def judge_back(
    pass_: Pass, stack: Stack, target: ReleaseTarget, states: Mapping[str, ServiceState]
) -> float | None:
    """Note in the release that was rolled back how far that is; return when to look again.

    It goes on however it is: what is wrong with it may pass.
    """
    newest = pass_.draft.get(
        keys.release(stack.name, stack.release),
        pass_.cluster.releases.get((stack.name, stack.release)),
    )
    if newest is None or newest.back in ("done", "failed"):
        return None
    judged = _judged(target, states)
    steady = sum(state.steady for state in judged)
    wanted = sum(len(state.wanted.slots) for state in judged)
    since = pass_.observed.settled(stack.name, -newest.number, steady)
    until = since + target.spec.deadline
    wrong = next((s for s in judged if s.moves.state == "failed"), None)
    due = None
    if steady == wanted and _quiet(pass_, stack, target, judged):
        newest = newest.with_back("done")
        kind, text = "release.back", f"release {target.release.number} runs again"
    elif wrong is not None or until <= pass_.now:
        why = f"{wrong.name}: {wrong.moves.reason}" if wrong is not None else ""
        cause = worst(pass_, stack.name, wrong) if wrong is not None else None
        why += f"; {cause.message}" if cause is not None else ""
        why = why or f"no progress for {as_set(target.spec.deadline)}: {stuck(pass_, judged)}"
        newest = newest.with_back("failed", why)
        text = f"going back to release {target.release.number} failed: {why}"
        kind = "release.back-failed"
    elif newest.back:
        return until
    else:
        newest, due = newest.with_back("going"), until
        kind, text = "release.going-back", f"going back to release {target.release.number}"
    pass_.draft.put(RELEASES, newest)
    pass_.notes.append((kind, stack.name, text))
    return due


def _came_to_stay(
    pass_: Pass,
    stack: Stack,
    release: Release,
    awaited: Iterable[ServiceState],
    interested: Mapping[str, set[str]],
) -> float | None:
    """End the release, all of which serves; return when to look again where it cannot end yet."""
    until, left_behind = _misplaced(pass_, awaited)
    if until > pass_.now:
        return until
    if _to_be_heard(pass_, awaited, interested):
        return pass_.now + LISTEN
    if left_behind:
        fail(pass_, release, left_behind)
    else:
        _deployed(pass_, stack, release)
    return None


def _to_be_heard(
    pass_: Pass, awaited: Iterable[ServiceState], interested: Mapping[str, set[str]]
) -> bool:
    """Say whether nodes have yet to hear of an endpoint: who was told that all is up asks there.

    A node that takes longer than ACK_LIMIT is not waited for, as when endpoints go.
    """
    for state in awaited:
        if _switch_unheard(pass_, state, interested):
            return True
        for replica in state.replicas:
            if replica.ready_since is None or replica.ready_since + ACK_LIMIT <= pass_.now:
                continue
            task = pass_.draft.task(replica.id)
            served = pass_.observed.mark(replica.id).served
            if task is not None and unheard(pass_, task, served, interested):
                return True
    return False


def _switch_unheard(pass_: Pass, state: ServiceState, interested: Mapping[str, set[str]]) -> bool:
    """Say whether nodes have yet to hear that the traffic of a service goes to others."""
    at, revision = pass_.observed.changed_over.get(state.effective.stack, (0.0, 0))
    if not revision or at + ACK_LIMIT <= pass_.now:
        return False
    found = (pass_.draft.task(t.id) for t in state.replicas if t.ready)
    return any(unheard(pass_, t, revision, interested) for t in found if t is not None)


def _misplaced(pass_: Pass, awaited: Iterable[ServiceState]) -> tuple[float, str]:
    """Return until when tasks that are not where they should be may yet find a place, and why.

    That fails the release, and nothing is rolled back: they serve.
    """
    until, texts = pass_.now, []
    for state in awaited:
        found = ((pass_.draft.task(t), stay) for t, stay in sorted(state.misplaced.stays.items()))
        # What is lost with its node is replaced, wherever it was.
        left = [
            (task, stay)
            for task, stay in found
            if stay.broken and task is not None and pass_.node_status(task.node) != "down"
        ]
        for task, stay in left:
            since = pass_.observed.mark(task.id).misplaced_since
            until = max(until, (pass_.now if since is None else since) + stay.patience)
        if left:
            tasks = "1 task is" if len(left) == 1 else f"{len(left)} tasks are"
            texts.append(f"{state.name}: {tasks} misplaced: {left[0][1].reason}")
    return until, "; ".join(texts)


def _too_late(
    pass_: Pass, stack: Stack, release: Release, awaited: Iterable[ServiceState], deadline: float
) -> None:
    text = f"no progress for {as_set(deadline)}: {stuck(pass_, awaited)}"
    broken = next((s for s in awaited if s.moves.total > s.moves.updated), None)
    found = (worst(pass_, stack.name, state) for state in awaited if not _settled(state))
    cause = next((c for c in found if c is not None and c.task), None)
    if broken is not None and _rolls_back(stack, broken, release):
        _roll_back(pass_, stack, release, text, cause)
    else:
        fail(pass_, release, text, cause)


def _judged(target: ReleaseTarget, states: Mapping[str, ServiceState]) -> list[ServiceState]:
    """Return the services the release is about, in dependency order; others are carried along."""
    order = dependencies_of(target.spec).order
    return [states[name] for name in order if not states[name].carried]


def _spared(target: ReleaseTarget, state: ServiceState) -> bool:
    """Say whether the release can do without the service, and has to.

    An update is not spared while the tasks before it still serve: there is something to lose.
    """
    if state.hopeless is None or state.name in failing.needed(target.spec, target.release.services):
        return False
    hashes = state.wanted.slots
    return not any(t.ready and t.spec_hash != hashes.get(t.slot) for t in state.replicas)


def _noted(pass_: Pass, target: ReleaseTarget, judged: Sequence[ServiceState]) -> Release:
    """Note in the release what it goes without, each thing once; return it as it is then.

    How often a check failed, and what it said, is another each time: the same thing all the same.
    """
    notes = [
        f"{state.name} goes on without waiting for {name} to be healthy: it has no health check "
        "(required: false)"
        for state in judged
        for name, required in state.unchecked
        if not required
    ]
    notes += [
        f"{state.name} goes on without {name}, waited for as long as x-corral.depends_deadline says"
        for state in judged
        for name in sorted(state.gone_without)
    ]
    told = target.release.notes
    fresh = [note for note in notes if note not in told]
    ill = [
        (failing.explain(pass_, task), "; it was there before and is left as it is")
        for state in judged
        for task in unhealthy(state)
        if marked(task, state.trial)
    ]
    lacking = [(s.name, s.hopeless) for s in judged if s.hopeless and _spared(target, s)]
    ill += [(cause, _without(target, name)) for name, cause in lacking]
    for cause, then in ill:
        head = cause.head or cause.message
        if not any(note.startswith(head) for note in (*told, *fresh)):
            fresh.append(cause.message + then)
    if not fresh:
        return target.release
    release = target.release.with_notes(tuple(fresh))
    pass_.draft.put(RELEASES, release)
    return release


def _without(target: ReleaseTarget, name: str) -> str:
    """Return who goes on without a service, to be said behind how it is."""
    services = target.spec.services.values()
    edges = {s.name: s.depends_on[name] for s in services if name in s.depends_on}
    users = [user for user, edge in sorted(edges.items()) if not edge.required]
    if not users:
        return ""
    go = "goes" if len(users) == 1 else "go"
    return f"; {', '.join(users)} {go} on without {name} (required: false)"


def _quiet(
    pass_: Pass, stack: Stack, target: ReleaseTarget, awaited: Iterable[ServiceState]
) -> bool:
    """Say whether no rollout moves and nothing of removed or surplus tasks still runs."""
    if any(_moves(state) for state in awaited):
        return False
    names = {state.name for state in awaited}
    return not any(
        task.state not in FINAL and pass_.node_status(task.node) != "down" and not task.live
        for task in pass_.draft.tasks(stack.name).values()
        if task.service in names or task.service not in target.spec.services
    ) and all(
        task.service in target.spec.services or not task.live
        for task in pass_.draft.tasks(stack.name).values()
    )


def _moves(state: ServiceState) -> bool:
    """Say whether the rollout goes on; a slot whose task is only marked is none it waits for."""
    moves = state.moves
    if moves.state != "going" or moves.create or moves.stop:
        return moves.state == "going"
    left = any(t.live and state.wanted.outdated(t) for t in state.replicas)
    sick = any(marked(t, state.trial) for t in unhealthy(state))
    return left or not sick or state.steady < len(state.wanted.slots)


def _deployed(pass_: Pass, stack: Stack, release: Release) -> None:
    finish(pass_.draft, release, ReleaseState.DEPLOYED, "", at=pass_.wall)
    record = pass_.draft.get(keys.stack(stack.name), stack)
    pass_.draft.put(STACKS, record.with_running(release.number))


def fail(pass_: Pass, release: Release, reason: str, cause: Cause | None = None) -> None:
    """Mark a release as failed, by the task that ``cause`` names; what runs is left as it is."""
    culprit = cause.task if cause is not None else ""
    finish(pass_.draft, release, ReleaseState.FAILED, reason, at=pass_.wall, culprit=culprit)


def _rolls_back(stack: Stack, state: ServiceState, release: Release) -> bool:
    action = state.effective.service.update.failure_action
    if release.rollback_to:
        return False  # one that fails is paused, and goes nowhere by itself
    return action == "rollback" and 0 < stack.running < release.number


def _rollout_failed(pass_: Pass, stack: Stack, release: Release, state: ServiceState) -> None:
    cause = worst(pass_, stack.name, state)
    text = f"update of {state.name} failed: {state.moves.reason}"
    if cause is not None:
        text += f"; {cause.message}"
    if _rolls_back(stack, state, release):
        _roll_back(pass_, stack, release, text, cause)
    else:
        fail(pass_, release, f"{text}; the update is paused", cause)


def _roll_back(
    pass_: Pass, stack: Stack, release: Release, reason: str, cause: Cause | None
) -> None:
    text = f"{reason}; rolled back to release {stack.running}"
    culprit = cause.task if cause is not None else ""
    finish(pass_.draft, release, ReleaseState.ROLLED_BACK, text, at=pass_.wall, culprit=culprit)


def find_cause(
    pass_: Pass, target: ReleaseTarget, states: Mapping[str, ServiceState]
) -> Cause | None:
    """Return what makes the release impossible, the root before what it blocks."""
    graph = dependencies_of(target.spec)
    for state in _judged(target, states):
        if _spared(target, state):
            continue
        cause = state.failed or failing.sick(pass_, target, states, state)
        if cause is None:
            continue
        blocked = sorted(
            other
            for other in graph.all_dependents([state.name])
            if states[other].waits_for and states[other].hopeless is not None
        )
        if not blocked:
            return cause
        are = "is" if len(blocked) == 1 else "are"
        text = f"{cause.message}; {', '.join(blocked)} {are} blocked by {state.name}"
        return replace(cause, message=text)
    return None


def _settled(state: ServiceState) -> bool:
    return state.settled == len(state.wanted.slots)


def worst(pass_: Pass, stack: str, state: ServiceState) -> Cause | None:
    """Return the explanation by the newest task of the service that went wrong."""
    tasks = [pass_.draft.task(t.id) for t in state.replicas if t.broken or not t.ready]
    return explain_newest(pass_.cluster, [t for t in tasks if t is not None and t.stack == stack])


def stuck(pass_: Pass, awaited: Iterable[ServiceState]) -> str:
    """Return who the release waits for, in one line."""
    parts = []
    for state in awaited:
        name = state.name
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
