"""One look at stacks: everything a pass decides, in the order it must be decided.

Releases, services, gates and rollouts of each stack first, then placement for all of
them together, then what is left over: withdrawn tasks, resting addresses, history.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from orchestrator.control.planning import (
    networks,
    oneoffs,
    reaper,
    reboots,
    releases,
    removal,
    restarts,
    rollout_rows,
    schedules,
    stopping,
)
from orchestrator.control.planning.frozen import plan_frozen
from orchestrator.control.planning.moving import stop_users
from orchestrator.control.planning.passes import earliest, mistake
from orchestrator.control.planning.placement import place_pending
from orchestrator.control.planning.services import plan_services
from scheduler.steps import STEP
from specs.states import FINAL, UNPLACED, WANTED, Desired, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.control.planning.passes import Pass
    from scheduler.steps import Steps
    from specs.api import Stack
    from specs.task import Task


log = logging.getLogger(__name__)

AFTER_MISTAKE = 5.0
PERSISTENT = 15.0  # seconds of the same that are no passing thing


Dues = dict[str, float | None]


class Audience(Protocol):
    """Who is told of networks: ``wanted.Outgoing``, or nobody where nothing is written."""

    def interested(self, networks: Iterable[str]) -> dict[str, set[str]]:
        """Return, for each network, the nodes that are told about it."""
        ...


def look(
    pass_: Pass, stacks: Iterable[str], out: Audience, *, over: bool
) -> Steps[tuple[Dues, float | None]]:
    """Decide, in steps, for these stacks and, if ``over``, for what belongs to none.

    Return when each must be looked at again, and what belongs to none.
    """
    dues = yield from _look_at_all(pass_, stacks, out)
    over_due = (yield from _look_over(pass_, out)) if over else None
    return dues, over_due


def _look_at_all(pass_: Pass, stacks: Iterable[str], out: Audience) -> Steps[Dues]:
    due: Dues = {}
    names = sorted(stacks)
    deploying = {name for name in names if releases.under_way(pass_, name)}
    moving = {
        n
        for name in names
        for t in pass_.cluster.by_stack.get(name, {}).values()
        if t.leaving or (t.status.ready and name in deploying)
        for n in t.addresses
    }
    interested = out.interested(moving)
    yield len(pass_.cluster.tasks) // 4
    for name in names:
        stack = pass_.cluster.stacks.get(name)
        again: float | None = None
        try:
            if stack is not None:
                again = yield from _look_at(pass_, stack, interested)
            else:
                _strays(pass_, name)
                oneoffs.remove_all(pass_, name)
            pass_.observed.faults.pop(name, None)
        except Exception as error:  # noqa: BLE001 - told of the stack; the others go on
            # A mistake of ours about one stack must not stop the care for all others; what was
            # decided so far is valid by itself, and the stack is looked at again.
            again = pass_.now + AFTER_MISTAKE
            _mistaken(pass_, name, mistake(error, name))
        leaving = [t for t in pass_.draft.tasks(name).values() if t.leaving]
        for number, task in enumerate(leaving, 1):
            if not number % STEP:
                yield STEP
            again = earliest(again, stopping.advance(pass_, task, interested))
        due[name] = again
        yield len(pass_.draft.tasks(name)) // 4
    stop_users(pass_, names)
    waiting = [
        task
        for name in names
        for task in pass_.draft.tasks(name).values()
        if task.state in UNPLACED and task.live
    ]
    yield from place_pending(pass_, waiting)
    for name in names:
        if name in pass_.cluster.stacks:
            stack = pass_.cluster.stacks[name]
            again = earliest(_schedules(pass_, stack), oneoffs.plan(pass_, stack))
            due[name] = earliest(due[name], again)
    return due


def _schedules(pass_: Pass, stack: Stack) -> float | None:
    """Move the stack's schedules on; return when to look again."""
    try:
        return schedules.plan(pass_, stack)
    except Exception as error:  # noqa: BLE001 - told of the stack; the others go on
        pass_.notes.append(("schedule.mistake", stack.name, mistake(error, stack.name)))
        return pass_.now + AFTER_MISTAKE


def _look_at(pass_: Pass, stack: Stack, interested: Mapping[str, set[str]]) -> Steps[float | None]:
    """Decide for one stack; return when to look again."""
    _orphans(pass_, stack.name)
    match stack.desired:
        case "removed":
            removal.plan_removal(pass_, stack)
            return None
        case "stopped":
            removal.plan_stop(pass_, stack)
            return None
        case "up":
            reboots.admit(pass_, stack.name)
            restarts.hand_on(pass_, stack)
    target = releases.target(pass_, stack)
    if target is None:
        return plan_frozen(pass_, stack)
    if target.release.state is ReleaseState.DEPLOYING:
        problem = networks.ensure_networks(pass_, stack.name, target.spec)
        if problem:
            releases.fail(pass_, target.release, problem)
            return None
    yield len(pass_.draft.tasks(stack.name)) // 4
    states = yield from plan_services(pass_, stack, target)
    if target.rollback:
        due = releases.judge_back(pass_, stack, target, states)
    else:
        due = releases.judge(pass_, stack, target, states, interested)
    rollout_rows.note(pass_, stack, target, states)
    if target.release.state is ReleaseState.DEPLOYED:
        serving = {name for name, service in target.spec.services.items() if not service.is_job}
        networks.drop_vips(pass_, stack.name, serving)
        keep = {
            found.id
            for _, wanted in target.spec.all_networks()
            if (found := networks.find_network(pass_, stack.name, wanted)) is not None
        }
        networks.retire_networks(pass_, stack.name, keep)
    reaper.trim_releases(pass_, stack)
    return earliest(due, *(state.due for state in states.values()))


def _mistaken(pass_: Pass, name: str, reason: str) -> None:
    """Say of a stack why nothing comes of it: by its tasks, and by its release after a while."""
    since = pass_.observed.faults.setdefault(name, pass_.now)
    for task in pass_.draft.tasks(name).values():
        if task.live and task.node is None and task.pending_reason != reason:
            pass_.draft.put_task(task.with_reason(reason))
    if pass_.now - since < PERSISTENT:
        return
    for release in pass_.cluster.stack_releases.get(name, {}).values():
        if release.state is ReleaseState.DEPLOYING:
            releases.fail(pass_, release, reason)


def _orphans(pass_: Pass, stack: str) -> None:
    """Forget tasks of nodes that left the cluster: nobody can be asked any more.

    What had ended by itself did so wherever it was: a migration that completed is not run again
    because its machine was taken away, and one that failed has used up its attempt.
    """
    for task in list(pass_.draft.tasks(stack).values()):
        if task.node is None or task.node in pass_.cluster.nodes:
            continue
        if _ended_by_itself(task):
            pass_.draft.leave_node(task)
            continue
        pass_.draft.delete_task(task)
        if task.state not in FINAL:
            pass_.notes.append(
                ("task.orphaned", stack, f"{task.name} was lost: its node left the cluster")
            )


def _ended_by_itself(task: Task) -> bool:
    if task.state is TaskState.COMPLETE:
        return task.desired is not Desired.REMOVED  # `stop` came to it afterwards
    return task.state in FINAL and task.desired in WANTED and not task.leaving


def _strays(pass_: Pass, stack: str) -> None:
    """Remove tasks whose stack has no record."""
    _orphans(pass_, stack)
    for task in list(pass_.draft.tasks(stack).values()):
        stopping.begin(pass_, task, graceful=False)


def _look_over(pass_: Pass, out: Audience) -> Steps[float | None]:
    """Decide what belongs to no stack: addresses that rested, leases and contents unused.

    Return when to look again.
    """
    resting = [network for network, found in pass_.cluster.resting.items() if found]
    networks.retire_left(pass_)
    due = yield from networks.rest_over(pass_, out.interested(resting))
    yield len(pass_.cluster.tasks) // 2
    reaper.sweep(pass_)
    return due
