"""Tasks on nodes that do not satisfy their constraints (any more): who moves, who stays marked.

Asks ``scheduler.displaced``. Those that move are replaced by ``rollout`` like tasks of an old
spec; those that stay serve on, and say so in their record (``Task.misplaced``). A global
service is not asked about: its tasks belong to nodes, and end where they do not belong.

What must leave its node for another reason (a drain) is replaced by ``reconcile`` beside it; but
two of what cannot exist twice never are, so its end comes first, and it moves as these do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import spec_of
from orchestrator.control.planning import pairs
from orchestrator.control.planning.placement import needs
from orchestrator.control.planning.room import fleet
from orchestrator.control.planning.terms import at_home, must_leave
from scheduler import constraints
from scheduler.displaced import Displaced, Settled, Stay, displaced
from scheduler.view import Fleet
from specs.states import FINAL, ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.api import Release, Stack
    from specs.stack import StackSpec
    from specs.task import Task


def look(pass_: Pass, effective: Effective, tasks: Sequence[Task]) -> Displaced:
    """Return which of a service's tasks must go elsewhere, and which would but stay."""
    if effective.service.per_node or effective.task.partner:
        return Displaced()  # nobody moves away from his partner
    if not pairs.constraints_of(effective) and not effective.exclusive:
        return Displaced()
    here = [t for t in tasks if t.live and t.node is not None]
    leaves = _leaving(pass_, here, effective)
    wrong = [t for t in here if t.id in leaves or breaks(pass_, effective, t)]
    return _judged(pass_, effective, here, wrong, leaves)


def leaving(pass_: Pass, effective: Effective, tasks: Sequence[Task]) -> Displaced:
    """Return which tasks must leave their nodes though their constraints allow them there.

    Of what may exist twice none: ``reconcile`` replaces that before it ends.
    """
    if effective.service.per_node or effective.task.partner:
        return Displaced()
    here = [t for t in tasks if t.live and t.node is not None]
    leaves = _leaving(pass_, here, effective)
    return _judged(pass_, effective, here, [t for t in here if t.id in leaves], leaves)


def _judged(
    pass_: Pass,
    effective: Effective,
    here: Iterable[Task],
    wrong: Sequence[Task],
    leaves: Mapping[str, str],
) -> Displaced:
    if not wrong:
        return Displaced()
    right = {t.slot for t in here if t not in wrong and t.spec_hash == effective.hash}
    settled = [
        Settled(
            needs(pass_, task, effective),
            task.node or "",
            succeeded=task.slot in right,
            leaves=leaves.get(task.id, ""),
        )
        for task in wrong
    ]
    view = Fleet({found.id: found for task in wrong if (found := pass_.view(task.node))})
    if not all(task.wants.homes for task in settled):
        view = fleet(pass_)  # some may go elsewhere: what room is there
    return displaced(view, settled, brake=pass_.brake)


def _leaving(pass_: Pass, here: Sequence[Task], effective: Effective) -> dict[str, str]:
    """Return why tasks must leave their nodes: what is tied to its node stays, whatever comes."""
    if not effective.exclusive:
        return {}
    return {
        t.id: why
        for t in here
        if (why := must_leave(pass_, t)) and not at_home(pass_, t, effective)
    }


def breaks(pass_: Pass, effective: Effective, task: Task) -> bool:
    """Say whether a task is where its service's constraints do not want it."""
    view = pass_.view(task.node) if not effective.service.per_node else None
    if view is None:
        return False
    return constraints.broken(pairs.constraints_of(effective), view) is not None


def failed_release(pass_: Pass, stack: Stack) -> Release | None:
    """Return the newest release where it failed: nothing is steered to it, but it was asked."""
    newest = pass_.cluster.releases.get((stack.name, stack.release))
    failed = newest is not None and newest.state is ReleaseState.FAILED
    return newest if failed else None


def mark(pass_: Pass, tasks: Iterable[Task], stays: Mapping[str, Stay]) -> None:
    """Have the records say which tasks are misplaced."""
    for known in tasks:
        if not known.misplaced and known.id not in stays:
            continue
        task = pass_.draft.task(known.id)
        if task is None or task.state in FINAL:
            continue
        reason = stays[task.id].reason if task.id in stays and task.live else ""
        if task.misplaced != reason:
            pass_.draft.put_task(task.with_misplaced(reason))


def as_failed(
    pass_: Pass, release: Release, service: str, tasks: Sequence[Task]
) -> Mapping[str, Stay]:
    """Return which tasks are not where a release that failed asked for them to be."""
    spec: StackSpec | None = spec_of(pass_.cluster, release)
    if spec is None or service not in spec.services:
        return {}
    effective = pass_.specs.under(release, spec, service)
    found = look(pass_, effective, tasks)
    later = f"release {release.number} failed, so it is not moved: corral up"
    wrong = {t.id for t in tasks if t.id in found.moves and breaks(pass_, effective, t)}
    moves = {task: Stay(f"its node is not what the file asks for; {later}") for task in wrong}
    return {**moves, **{task: stay for task, stay in found.stays.items() if stay.broken}}
