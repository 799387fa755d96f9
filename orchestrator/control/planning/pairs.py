"""Pairs: a task that shares another one's namespaces is where that one is, and goes when it goes.

The Compose file says it of services (``network_mode: service:web``); here it becomes a matter of
tasks. ``Task.partner`` names the task whose namespaces one has, from the moment it has a node.

Who goes with whom: by number, as far as there are partners, and from the front again beyond (so
all go with the one there is, as in Compose); of global services those on the same node. The pair
is placed by what both need (:func:`together`), which stays reserved while one of them is missing
(:func:`set_aside`). Nobody moves away from his partner: whoever's partner goes, goes first, and
another takes his place beside whoever took the partner's (:func:`left_behind`). ADR 0021.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.control.mirror.dependencies import edge_words
from orchestrator.control.mirror.ports import fixed_host_ports
from orchestrator.control.mirror.serving import copies, global_slots, is_leaving, meets
from specs.stack import Dependency
from specs.states import FINAL, WANTED, Desired, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.view import Home, Only, Pending
    from specs.api import Stack
    from specs.oneoff import OneOff
    from specs.task import Task

Ties = tuple[tuple["Home", ...], tuple["Only", ...]]


def beside(slot: int, others: Sequence[int]) -> int:
    """Return the slot of the partner of a slot, of those there are; 0 where there is none."""
    return others[(slot - 1) % len(others)] if others else 0


def _copies(stack: Stack | None, effective: Effective) -> int:
    if stack is None or effective.service.name in stack.stopped_services:
        return 0
    return copies(stack, effective.service)


class Lenders:
    """The tasks whose namespaces those of one service share."""

    def __init__(self, pass_: Pass, effective: Effective) -> None:
        self.service = effective.task.partner
        self.lent = effective.task.lent
        self._pass = pass_
        self._by_node = effective.service.per_node
        self._own = pass_.specs.of(effective.stack, effective.release, self.service)
        stack = pass_.cluster.stacks.get(effective.stack)
        count = _copies(stack, self._own) if self._own is not None else 0
        self._strict = self._own is not None and _replacing(pass_, effective, self.service)
        known = [
            task
            for task in pass_.draft.tasks(effective.stack).values()
            if task.service == self.service
        ]
        self._tasks = [task for task in known if task.live]
        self._slots: Sequence[int] = range(1, count + 1)
        if self._own is not None and self._own.service.per_node:
            # Of nodes, so there may be gaps; not of tasks, which come and go in between.
            self._slots = sorted(global_slots(pass_.cluster, self._own.service, known))

    @property
    def missing(self) -> str:
        """Return what would help, where there is to be none; else ""."""
        if self._slots:
            return ""
        return f"corral {'start' if self._own is not None else 'up -d'} {self.service}"

    def of(self, slot: int, node: str | None = None) -> Task | None:
        """Return the one a task of that slot goes with: the newest, and of the spec that is wanted.

        ``node``: where the task belongs, of a global service.
        """
        wanted = beside(slot, self._slots)
        found = [
            task
            for task in self._tasks
            if (task.node == node if self._by_node else task.slot == wanted)
            and self._pass.node_status(task.node) != "down"
        ]
        right = [t for t in found if self._own is None or t.spec_hash == self._own.hash]
        if self._strict and not right:
            return None
        return max(right or found, key=lambda t: (t.created_at, t.id), default=None)

    def goes_with(self, slot: int, other: Task) -> bool:
        """Say whether a task of that slot still belongs to that partner, by their numbers."""
        return self._by_node or other.slot == beside(slot, self._slots)


def any_lender(pass_: Pass, effective: Effective) -> Task | None:
    """Return whose network a one-off of the service shares: the first there is, as in Compose."""
    found = [
        task
        for task in pass_.draft.tasks(effective.stack).values()
        if task.service == effective.task.partner
        and task.live
        and task.node is not None
        and pass_.node_status(task.node) != "down"
    ]
    return min(found, key=lambda t: (t.slot, -t.created_at, t.id), default=None)


def _replacing(pass_: Pass, effective: Effective, name: str) -> bool:
    """Say whether the release gives the service's tasks the spec it has there: others come."""
    release = pass_.cluster.releases.get((effective.stack, effective.release))
    return (
        release is not None
        and release.state is ReleaseState.DEPLOYING
        and not release.only_starts
        and name not in release.keeps
    )


def left_behind(pass_: Pass, effective: Effective, tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks of a service that have no partner any more, or not the right one."""
    if not effective.task.partner:
        return []
    lenders = Lenders(pass_, effective)
    return [t for t in tasks if t.live and t.partner and _is_left(pass_, lenders, t)]


def _is_left(pass_: Pass, lenders: Lenders, task: Task) -> bool:
    partner = pass_.draft.task(task.partner)
    if partner is None or partner.desired not in WANTED:
        return True
    if partner.leaving:
        return False  # it still serves who is there; then ``stopping`` has its pair go first
    if partner.state in FINAL or pass_.node_status(partner.node) == "down":
        # What ended by itself, or is silent, is gone once another one is to be there.
        follower = lenders.of(task.slot, task.node)
        return follower is not None and follower.id != partner.id
    return not lenders.goes_with(task.slot, partner)


def goes_with_partner(pass_: Pass, effective: Effective, task: Task) -> bool:
    """Say whether a task that is asked to go does so for its partner's sake alone.

    Its slot is wanted still: another one comes, beside whoever takes the partner's place. Not so
    where the file of the stack's newest release has no such slot any more.
    """
    if not task.partner or not effective.task.partner:
        return False
    stack = pass_.cluster.stacks.get(task.stack)
    newest = pass_.specs.of(task.stack, stack.release, task.service) if stack is not None else None
    if newest is None or newest.task.partner != effective.task.partner:
        return False
    lenders = Lenders(pass_, effective)
    if newest.service.per_node:
        if lenders.of(task.slot, task.node) is None:
            return False
    elif task.slot > _copies(stack, newest):
        return False
    partner = pass_.draft.task(task.partner)
    return (
        partner is None
        or is_leaving(partner)
        or partner.state in FINAL
        or pass_.node_status(partner.node) == "down"
        or not lenders.goes_with(task.slot, partner)
    )


def comes_as(pass_: Pass, stack: Stack, effective: Effective, task: Task) -> Effective:
    """Return what the successor of a task that went with its partner is: as old as his partner."""
    deployed = pass_.specs.of(stack.name, stack.running, task.service)
    if deployed is None or deployed.hash == effective.hash:
        return effective
    lender = Lenders(pass_, effective).of(task.slot, task.node)
    name = effective.task.partner
    lends = pass_.specs.of(stack.name, stack.running, name)
    failed = lends is not None and lender is not None and lender.spec_hash == lends.hash
    return deployed if failed else effective


def came_so_far(pass_: Pass, task: Task) -> bool:
    """Say whether a task belongs to one that was let run by the same release."""
    partner = pass_.draft.task(task.partner) if task.partner else None
    return (
        partner is not None
        and partner.release == task.release
        and partner.desired is Desired.RUNNING
    )


def followers(pass_: Pass, task: Task) -> list[Task]:
    """Return the tasks that still have this one's namespaces, where they can be asked to go."""
    known = pass_.followers.get(task.stack)
    if known is None:
        known = pass_.followers[task.stack] = {}
        for other in pass_.draft.tasks(task.stack).values():
            if other.partner:
                known.setdefault(other.partner, []).append(other.id)
    found = (pass_.draft.task(name) for name in known.get(task.id, ()))
    return [
        other
        for other in found
        if other is not None
        and other.node is not None
        and other.state not in FINAL
        and pass_.node_status(other.node) != "down"
    ]


def all_followers(pass_: Pass, task: Task) -> list[Task]:
    """Return its followers, and theirs: all that end before this one can."""
    direct = followers(pass_, task)
    return direct + [other for one in direct for other in all_followers(pass_, one)]


def guests(pass_: Pass, task: Task) -> list[OneOff]:
    """Return the one-offs that have this one's namespaces, where they can be asked to go."""
    return [
        one
        for one in pass_.draft.oneoffs(task.stack)
        if one.task.partner == task.id
        and one.task.node is not None
        and not one.over
        and pass_.node_status(one.task.node) != "down"
    ]


def end_guest(pass_: Pass, one: OneOff, partner: str, grace: float | None = None) -> None:
    """Ask a one-off to end with the task whose namespaces it has: no other is made of it."""
    if one.task.desired not in WANTED:
        return
    lent = one.service.task.lent
    text = f"{one.task.name} ends: {partner}, whose {lent} it shares, goes"
    pass_.notes.append(("task.partner-gone", one.stack, text))
    asked = one.stopped(grace)
    reason = f"{partner}, whose {lent} it shares, goes"
    pass_.draft.put_oneoff(asked.with_task(asked.task.with_reason(reason)))


def lost_partner(pass_: Pass, one: OneOff) -> str:
    """Return the name of a one-off's partner that is there no more, or ""; it may have ended."""
    if not one.task.partner or one.task.node is None or one.over:
        return ""
    partner = pass_.draft.task(one.task.partner)
    if partner is None:
        return one.service.task.partner
    if partner.state not in FINAL:
        return ""  # one that goes has its guests go first: ``stopping``
    others = pass_.draft.tasks(one.stack).values()
    place = (partner.service, partner.slot)
    replaced = any(other.live and (other.service, other.slot) == place for other in others)
    return partner.name if replaced or partner.desired not in WANTED else ""


def awaited(pass_: Pass, effective: Effective, task: Task) -> str:
    """Return what a task waits for of its own partner before it may start, or ""."""
    name = effective.task.partner
    if not name:
        return ""
    edge = effective.service.depends_on.get(name, Dependency())
    partner = pass_.draft.task(task.partner) if task.partner else None
    return "" if partner is not None and meets(edge.condition, partner) else edge_words(name, edge)


# where both go


def members(pass_: Pass, effective: Effective, slot: int) -> Iterator[tuple[Effective, int]]:
    """Yield the services, and slots, of which a task goes with that one, or with one of those."""
    if not effective.lends:
        return
    stack = pass_.cluster.stacks.get(effective.stack)
    mine = _copies(stack, effective)
    for name in effective.lends:
        other = pass_.specs.of(effective.stack, effective.release, name)
        if other is None or other.task.partner != effective.service.name:
            continue
        if other.service.per_node:
            slots: Iterable[int] = (slot,) if _copies(stack, other) else ()
        elif effective.service.per_node:
            slots = (slot,) if slot <= _copies(stack, other) else ()
        else:
            slots = range(slot, _copies(stack, other) + 1, mine) if mine else ()
        for number in slots:
            yield other, number
            yield from members(pass_, other, number)


def together(
    pass_: Pass,
    effective: Effective,
    pending: Pending,
    ties: Callable[[Effective, int], Ties],
) -> Pending:
    """Return what a task needs of a node with all that goes with it."""
    for other, slot in members(pass_, effective, pending.slot):
        (cpus, memory), placing = other.reserved, other.service.placement
        homes, only = ties(other, slot)
        most = [n for n in (pending.max_per_node, placing.max_replicas_per_node) if n]
        pending = replace(
            pending,
            cpus=pending.cpus + cpus,
            memory=pending.memory + memory,
            constraints=(*pending.constraints, *placing.constraints),
            max_per_node=min(most, default=0),
            ports=(*pending.ports, *fixed_host_ports(other.task)),
            homes=tuple({home.key: home for home in (*pending.homes, *homes)}.values()),
            only=(*pending.only, *only),
            platform=pending.platform or other.task.platform,
        )
    return pending


def constraints_of(effective: Effective) -> tuple[str, ...]:
    """Return what a service and all that goes with it ask of their node."""
    found = list(effective.service.placement.constraints)
    for name in effective.lends:
        found += effective.spec.services[name].placement.constraints
    return tuple(dict.fromkeys(found))


class Present(NamedTuple):
    """Which of a pair are there, and of whom no other one comes."""

    there: Counter[tuple[str, str]]  # of each first partner, by its id: how many of a service
    over: set[tuple[str, str, int | str]]  # stack, service, and slot or (a global one's) node


def present(pass_: Pass) -> Present:
    """Return, for all pairs, which of their tasks are there and which will not come again."""
    found = Present(Counter(), set())
    ended: dict[tuple[str, str, int | str], Task] = {}
    for task in pass_.draft.all_tasks():
        if not task.partner:
            continue
        if task.node is None:
            continue  # one that waits is missing still, though it knows its partner
        if task.state not in FINAL:
            found.there[first_of(pass_, task).id, task.service] += 1
            continue
        for place in (task.slot, task.node or ""):
            key = (task.stack, task.service, place)
            last = ended.get(key)
            if last is None or (last.created_at, last.id) < (task.created_at, task.id):
                ended[key] = task
    found.over.update(key for key, task in ended.items() if _no_other(pass_, task))
    return found


def _no_other(pass_: Pass, task: Task) -> bool:
    """Say whether no other task follows one that ended: it completed, or had its attempts."""
    stack = pass_.cluster.stacks.get(task.stack)
    if stack is None or task.leaving or task.desired not in WANTED:
        return False
    again = stack.asked_again if task.state is TaskState.COMPLETE else stack.asked
    newest = pass_.specs.of(task.stack, stack.release, task.service)
    if newest is None or task.asked < again.get(task.service, 0):
        return False
    release = pass_.cluster.releases[task.stack, stack.release]
    if newest.hash != task.spec_hash and release.state is ReleaseState.DEPLOYING:
        return False  # one of the new spec comes
    if task.state is not TaskState.FAILED or task.cut_off:
        return task.state is TaskState.COMPLETE
    policy = newest.task.restart
    most = policy.max_attempts
    used_up = most is not None and not policy.window and task.attempt + task.status.restarts >= most
    return policy.condition == "none" or used_up


def first_of(pass_: Pass, task: Task) -> Task:
    """Return the one at the head of a task's partners."""
    while task.partner and (other := pass_.draft.task(task.partner)) is not None:
        task = other
    return task


def set_aside(pass_: Pass, task: Task, found: Present) -> tuple[float, int]:
    """Return the CPUs and memory reserved beside a task for those of its pair that are missing.

    Those count that the file wants by now, whatever release the task itself is of.
    """
    if task.partner or not task.live:
        return 0.0, 0
    stack = pass_.cluster.stacks.get(task.stack)
    effective = pass_.specs.of(task.stack, stack.release, task.service) if stack else None
    if effective is None or not effective.lends or effective.task.partner:
        return 0.0, 0
    return _missing(pass_, task.id, task, effective, found)


def kept_for(pass_: Pass, task: Task, effective: Effective) -> tuple[float, int]:
    """Return what of that is a task's own that has no node yet, and that of who goes with it."""
    cpus, memory = effective.reserved
    if effective.lends:
        first = first_of(pass_, task).id
        more = _missing(pass_, first, task, effective, present(pass_))
        cpus, memory = cpus + more[0], memory + more[1]
    return cpus, memory


def _missing(
    pass_: Pass, first: str, task: Task, effective: Effective, found: Present
) -> tuple[float, int]:
    """Return what those reserve that go with a task and are not there; ``first``: of the pair."""
    cpus, memory = 0.0, 0
    seen: Counter[str] = Counter()
    for other, slot in members(pass_, effective, task.slot):
        name = other.service.name
        place = (task.node or "") if other.service.per_node else slot
        if (task.stack, name, place) in found.over:
            continue
        seen[name] += 1
        if seen[name] > found.there[first, name]:
            own = other.reserved
            cpus, memory = cpus + own[0], memory + own[1]
    return cpus, memory
