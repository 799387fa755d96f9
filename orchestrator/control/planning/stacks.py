"""One look at stacks: everything a pass decides, in the order it must be decided.

Releases, services, gates and rollouts of each stack first, then placement for all of
them together, then what is left over: withdrawn tasks, resting addresses, history.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from orchestrator.control.planning import networks, reaper, releases, removal, stopping
from orchestrator.control.planning.placement import place_pending
from orchestrator.control.planning.services import plan_frozen, plan_services
from specs.states import FINAL, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.wanted import Outgoing
    from specs.api import Stack


log = logging.getLogger(__name__)

AFTER_MISTAKE = 5.0


def look(run: Pass, stacks: Iterable[str], out: Outgoing) -> dict[str, float | None]:
    """Decide for these stacks; return for each when it must be looked at again."""
    due: dict[str, float | None] = {}
    pinned: dict[str, str] = {}
    _reserve_fixed(run)
    names = sorted(stacks)
    leaving = {
        n
        for name in names
        for t in run.cluster.by_stack.get(name, {}).values()
        if t.leaving
        for n in t.addresses
    }
    interested = out.interested(leaving)
    for name in names:
        run.wake = None
        stack = run.cluster.stacks.get(name)
        try:
            if stack is not None:
                _look_at(run, stack, pinned)
            else:
                _strays(run, name)
        except Exception:
            # A mistake of ours about one stack must not stop the care for all others; what was
            # decided so far is valid by itself, and the stack is looked at again.
            log.exception("planning failed", extra={"stack": name})
            run.look_again(run.now + AFTER_MISTAKE)
        for task in list(run.draft.tasks(name).values()):
            stopping.advance(run, task, interested)
        due[name] = run.wake
    waiting = [
        task
        for name in names
        for task in run.draft.tasks(name).values()
        if task.live and task.state in (TaskState.NEW, TaskState.PENDING)
    ]
    place_pending(run, waiting, pinned)
    return due


def _look_at(run: Pass, stack: Stack, pinned: dict[str, str]) -> None:
    _orphans(run, stack.name)
    match stack.desired:
        case "removed":
            removal.plan_removal(run, stack)
            return
        case "stopped":
            removal.plan_stop(run, stack)
            return
        case "up":
            pass
    target = releases.target(run, stack)
    if target is None:
        plan_frozen(run, stack)
        return
    if target.release.state is ReleaseState.DEPLOYING:
        problem = networks.ensure_networks(run, stack.name, target.spec)
        if problem:
            releases.fail(run, target.release, problem)
            return
    states = plan_services(run, stack, target, pinned)
    releases.judge(run, stack, target, states)
    if target.release.state is ReleaseState.DEPLOYED:
        networks.drop_vips(run, stack.name, set(target.spec.services))
        keep = {
            found.id
            for wanted in target.spec.networks.values()
            if (found := networks.find_network(run, stack.name, wanted)) is not None
        }
        networks.retire_networks(run, stack.name, keep)
    reaper.trim_releases(run, stack)


def _orphans(run: Pass, stack: str) -> None:
    """Forget tasks of nodes that left the cluster: nobody can be asked any more."""
    for task in list(run.draft.tasks(stack).values()):
        if task.node is not None and task.node not in run.cluster.nodes:
            run.draft.delete_task(task)
            if task.state not in FINAL:
                run.notes.append(
                    ("task.orphaned", stack, f"{task.name} was lost: its node left the cluster")
                )


def _strays(run: Pass, stack: str) -> None:
    """Remove tasks whose stack has no record."""
    _orphans(run, stack)
    for task in list(run.draft.tasks(stack).values()):
        stopping.begin(run, task, graceful=False)


def _reserve_fixed(run: Pass) -> None:
    """Keep fixed addresses of all stacks from being given to other tasks."""
    for stack in run.cluster.stacks.values():
        release = run.cluster.releases.get((stack.name, stack.release))
        spec = run.cluster.spec_of(release) if release is not None else None
        for service in spec.services.values() if spec is not None else ():
            for attachment in service.task.networks:
                if attachment.ipv4_address is None or spec is None:
                    continue
                wanted = spec.networks.get(attachment.network)
                found = networks.find_network(run, stack.name, wanted) if wanted else None
                if found is not None:
                    run.addresses.reserve_fixed(found.id, attachment.ipv4_address)


def look_over(run: Pass, out: Outgoing) -> None:
    """Decide what belongs to no stack: addresses that rested, leases and contents unused."""
    run.wake = None
    _reserve_fixed(run)
    networks.rest_over(run, out.interested(n for n, r in run.cluster.resting.items() if r))
    reaper.sweep(run)
