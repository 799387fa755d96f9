"""How a task goes: endpoints first, acknowledged, then stopped and removed.

``begin`` starts a stop, ``advance`` moves what was started. A node that does not
acknowledge in ACK_LIMIT seconds is named and not waited for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.control.planning import pairs
from specs.states import FINAL, UNPLACED, Desired, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.control.planning.passes import Pass
    from specs.task import Task

ACK_LIMIT = 5.0  # seconds nodes get to take a task's endpoints out before it is stopped


def begin(
    pass_: Pass,
    task: Task,
    *,
    graceful: bool = True,
    final: Desired = Desired.REMOVED,
    grace: float | None = None,
) -> None:
    """Start stopping a task; repeating it changes nothing."""
    if task.state in UNPLACED or task.node is None:
        pass_.draft.delete_task(task)
        return
    if task.node not in pass_.cluster.nodes:
        pass_.draft.delete_task(task)  # its node left the cluster: nobody is there to ask
        return
    if task.desired in (Desired.REMOVED, final):
        # Asked again with less patience, as by a second Ctrl-C: the clock runs from the first.
        sooner = grace is not None and (task.grace is None or grace < task.grace)
        if sooner and task.state not in FINAL:
            pass_.draft.put_task(task.with_grace(grace))
        return
    if graceful and task.status.ready and task.addresses and task.state not in FINAL:
        if not task.leaving:
            # Its grace is that of this stop, not what an earlier `restart -t` gave it.
            pass_.draft.put_task(task.with_leaving().with_grace(grace))
        return
    if task.state not in FINAL and _after_others(pass_, task, grace):
        return
    going = task.with_desired(final).with_leaving()
    stack = pass_.cluster.stacks.get(task.stack)
    if final is Desired.SHUTDOWN and stack is not None:
        going = going.with_asked(stack.asked.get(task.service, 0))
    if grace is not None or (task.desired is not Desired.SHUTDOWN and not task.leaving):
        going = going.with_grace(grace)
    pass_.draft.put_task(going)


def _after_others(pass_: Pass, task: Task, grace: float | None) -> bool:
    """Stop those that live in the task's namespaces first; say whether they are still there."""
    tasks, guests = pairs.followers(pass_, task), pairs.guests(pass_, task)
    for other in tasks:
        begin(pass_, other, graceful=False, grace=grace)
    for guest in guests:
        pairs.end_guest(pass_, guest, task.name, grace)
    others = bool(tasks or guests)
    if others and not task.leaving:
        pass_.draft.put_task(task.with_leaving().with_grace(grace))
    return others


def unheard(
    pass_: Pass, task: Task, revision: int, interested: Mapping[str, set[str]]
) -> list[str]:
    """Return the ready nodes that see the task's endpoints and have not yet got that revision."""
    networks = tuple(task.addresses)
    least = pass_.least_heard.get(networks)
    if least is None:
        least = pass_.least_heard[networks] = _least_heard(pass_, networks, interested)
    if least >= revision:
        return []
    nodes: set[str] = set().union(*(interested.get(n, set()) for n in networks))
    return sorted(
        n
        for n in nodes
        if pass_.node_status(n) == "ready" and pass_.observed.acknowledged.get(n, 0) < revision
    )


def _least_heard(pass_: Pass, networks: Iterable[str], interested: Mapping[str, set[str]]) -> float:
    """Return the revision that every ready node which sees the networks has got."""
    nodes: set[str] = set().union(*(interested.get(n, set()) for n in networks))
    heard = (
        pass_.observed.acknowledged.get(n, 0) for n in nodes if pass_.node_status(n) == "ready"
    )
    return min(heard, default=math.inf)


def advance(pass_: Pass, task: Task, interested: Mapping[str, set[str]]) -> float | None:
    """Stop a withdrawn task once every ready node that knew its endpoints let go of them.

    Return when to look again.
    """
    if not task.leaving or task.desired not in (Desired.PREPARED, Desired.RUNNING):
        return None
    mark = pass_.observed.mark(task.id)
    if mark.leaving_since is None:
        return None  # written in this very pass
    late = unheard(pass_, task, mark.withdrawn, interested)
    until = mark.leaving_since + ACK_LIMIT
    if late and pass_.now < until and task.state not in FINAL:
        return until
    if late and task.state not in FINAL:
        names = ", ".join(pass_.cluster.nodes[n].name for n in late if n in pass_.cluster.nodes)
        pass_.notes.append(
            (
                "endpoint.late",
                task.stack,
                (
                    f"{task.name} is stopped although {names} did not confirm within "
                    f"{ACK_LIMIT:g} s that it gets no more traffic"
                ),
            )
        )
    if task.state in FINAL or not _after_others(pass_, task, task.grace):
        pass_.draft.put_task(task.with_desired(Desired.REMOVED))
    return None  # the end of the last of the others is heard


def trim(pass_: Pass, tasks: list[Task], *, wanted: bool) -> None:
    """Let go of what ended in one slot: all but the newest, all where it is unwanted."""
    ended = sorted(
        (t for t in tasks if t.state in FINAL and t.desired is not Desired.REMOVED),
        key=lambda t: (t.desired is not Desired.SHUTDOWN, t.created_at, t.id),
    )
    keep = ended[-1:] if wanted else []
    if keep and keep[0].desired is Desired.SHUTDOWN:
        # Stopped by `corral stop`; what runs now took its place, unless it was done already.
        keep = [t for t in keep if t.state is TaskState.COMPLETE]
    for task in ended:
        if task not in keep:
            begin(pass_, task, graceful=False)


def trim_stopped(pass_: Pass, tasks: Iterable[Task]) -> None:
    """Keep one task in each slot of a stopped service: a stop in the middle of an update finds two.

    What ran has logs, so it is kept rather than what was never started; else the newest.
    """
    ended: dict[int, list[Task]] = {}
    for known in tasks:
        task = pass_.draft.task(known.id)
        if task is not None and task.state in FINAL and task.desired is not Desired.REMOVED:
            ended.setdefault(task.slot, []).append(task)
    for found in ended.values():
        kept = max(found, key=lambda t: (t.status.run is not None, t.created_at, t.id))
        for task in found:
            if task is not kept:
                begin(pass_, task, graceful=False)
