"""Decide which tasks of one service should exist: how many, in which slots.

Called on every pass by ``orchestrator.control.planning.services``. What changes a running
replica to a new spec is not decided here but in ``scheduler.rollout``: a slot
whose replica merely has another spec counts as filled.

What ended is judged by the restart policy (``scheduler.restart``) until somebody asks for the
service to run: then it is followed by another at once, as if nothing had happened before;
only what completed stays, unless `restart` asked. What `stop` keeps down is not asked about.

What does not answer may run: it fills its slot until its node is down, is never surplus, and
makes nothing else surplus, until its node answers again and exactly one copy is kept.

Laws (tests/laws): a second look at the plan's own result plans nothing; creates
only what is missing; never stops the last good copy of a wanted slot; the order
of the input and the names of ids do not matter; ``now`` going back creates less,
never stops more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scheduler.replicas import Replica, best_first, by_slot
from scheduler.restart import Replacement, verdict
from scheduler.steps import STEP, whole
from specs.stack import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scheduler.steps import Steps


@dataclass(frozen=True, slots=True)
class WantedService:
    """What a service should be.

    ``slots`` maps each wanted slot to the spec hash it should have. A global
    service has one slot per eligible node (``nodes``). ``exclusive``: two tasks of a
    slot cannot exist at once (a fixed address, a port on the host). ``asked``: how often it
    was asked to run so far; ``asked_again``: the last of these that also meant what completed.
    ``beside``: slots whose new task runs beside the old one until somebody decides: a canary's.
    ``at_once``: how many slots may have a task that has not ended; None = all.
    """

    slots: Mapping[int, str]
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    nodes: Mapping[int, str] = field(default_factory=dict)  # slot -> node, global mode
    exclusive: bool = False
    asked: int = 0
    asked_again: int = 0
    beside: frozenset[int] = frozenset()
    at_once: int | None = None

    def without(self, slots: frozenset[int]) -> WantedService:
        """Return it as if these slots were not wanted yet."""
        if not slots:
            return self
        left = {slot: target for slot, target in self.slots.items() if slot not in slots}
        return replace(self, slots=left)

    def behind(self, task: Replica) -> bool:
        """Say whether the task ended before it was asked for again, so that it counts no more."""
        return task.ended and task.asked < (self.asked_again if task.done else self.asked)

    def outdated(self, task: Replica) -> bool:
        """Say whether the task must be replaced: it has another spec, or cannot stay there."""
        return task.displaced or task.spec_hash != self.slots.get(task.slot)


@dataclass(frozen=True, slots=True)
class CreateTask:
    slot: int
    spec_hash: str
    node: str | None = None
    attempt: int = 0
    replaces: str | None = None  # the task whose place it takes, still there


@dataclass(frozen=True, slots=True)
class StopTask:
    task: str
    reason: str


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """``wake`` is the earliest time at which the plan may differ; None = only when told."""

    create: tuple[CreateTask, ...] = ()
    stop: tuple[StopTask, ...] = ()
    keep: tuple[str, ...] = ()
    # slot -> why it stays empty; one whose task completed is not among them
    gave_up: Mapping[int, str] = field(default_factory=dict)
    wake: float | None = None
    queued: frozenset[int] = frozenset()  # slots whose turn has not come, see at_once


@dataclass(slots=True)
class _Draft:
    create: list[CreateTask] = field(default_factory=list)
    stop: list[StopTask] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    gave_up: dict[int, str] = field(default_factory=dict)
    wake: float | None = None


def reconcile(wanted: WantedService, tasks: Iterable[Replica], now: float) -> SlotPlan:
    """Return what to create, stop and keep."""
    return whole(reconcile_in_steps(wanted, tasks, now))


def reconcile_in_steps(
    wanted: WantedService, tasks: Iterable[Replica], now: float
) -> Steps[SlotPlan]:
    """Decide it in steps."""
    out = _Draft()
    slots = by_slot(tasks)
    yield len(slots) // 2
    for slot, found in slots.items():
        if slot not in wanted.slots:
            out.stop += [StopTask(t.id, "the service has fewer replicas") for t in found if t.live]
    for number, slot in enumerate(sorted(wanted.slots), 1):
        if not number % STEP:
            yield STEP
        here = slots.get(slot)
        if not here:  # again what _slot would say
            out.create.append(CreateTask(slot, wanted.slots[slot], wanted.nodes.get(slot)))
        elif len(here) == 1 and _as_it_should_be(wanted, here[0]):
            out.keep.append(here[0].id)  # what _slot would say, as of nearly all
        else:
            _slot(wanted, slot, here, now, out)
    queued = _queue(wanted, slots, out)
    return SlotPlan(
        create=tuple(out.create),
        stop=tuple(out.stop),
        keep=tuple(out.keep),
        gave_up=out.gave_up,
        wake=out.wake,
        queued=queued,
    )


def _queue(
    wanted: WantedService, slots: Mapping[int, list[Replica]], out: _Draft
) -> frozenset[int]:
    """Take back what is to be created beyond ``at_once``; return the slots that wait their turn.

    What takes the place of a task that is lost or moves goes first: its slot has begun. Whatever
    still runs takes a turn, also where it is asked to go.
    """
    if wanted.at_once is None or not out.create:
        return frozenset()
    busy = {
        slot
        for slot, found in slots.items()
        if any(not t.ended and not (t.lost and not t.awaited) for t in found)
    }
    turns = wanted.at_once - len(busy)
    begun = [c for c in out.create if c.slot in busy]
    fresh = sorted((c for c in out.create if c.slot not in busy), key=lambda c: c.slot)
    out.create = [*begun, *fresh[: max(0, turns)]]
    return frozenset(c.slot for c in fresh[max(0, turns) :])


def _as_it_should_be(wanted: WantedService, task: Replica) -> bool:
    """Say whether a task that is alone in its slot is all the slot needs."""
    away = task.lost or task.awaited or task.evicted
    return task.live and not away and not wanted.outdated(task)


def _slot(wanted: WantedService, slot: int, found: list[Replica], now: float, out: _Draft) -> None:
    target = wanted.slots[slot]
    live = [t for t in found if t.live]
    awaited = any(t.awaited and t.spec_hash == target and not t.evicted for t in live)
    if awaited:
        # No node has these yet, so nothing is lost by waiting; what runs by now stays.
        early = [t for t in live if t.node is None and t.spec_hash == target]
        out.stop += [StopTask(t.id, "the node it would replace is awaited") for t in early]
        live = [t for t in live if t not in early]
    current = best_first(t for t in live if not wanted.outdated(t) and not t.lost)
    if current:
        stays = _surplus(current, live, target, out)
        # What moves has a place already where one of this spec is awaited: another would be taken
        # back by the next look, and made again by the one after that.
        if not stays and not awaited and not wanted.exclusive:
            out.create.append(_replacement(wanted, slot, target, current[0]))
        return
    outdated = best_first(t for t in live if wanted.outdated(t) and not t.lost)
    if outdated:
        # scheduler.rollout replaces it; here only copies beyond the one are surplus.
        _keep_one(outdated, out)
        return
    out.keep += [t.id for t in live]  # lost ones: judged again when their node is back
    if awaited:
        return
    if wanted.exclusive and any(not t.ended and t.going and not t.unheard for t in found):
        return  # what it needs is still held; its end wakes us
    judged = _after(wanted, found, target, now)
    if judged.completed:
        return
    if judged.give_up:
        out.gave_up[slot] = judged.give_up
    elif judged.at > now:
        out.wake = judged.at if out.wake is None else min(out.wake, judged.at)
    else:
        node = wanted.nodes.get(slot)
        going = [t.id for t in found if not t.ended and not t.lost]
        out.create.append(
            CreateTask(slot, target, node, judged.attempt, replaces=going[-1] if going else None)
        )


def _surplus(current: list[Replica], live: list[Replica], target: str, out: _Draft) -> bool:
    """Keep the best copy, stop the others; say whether the one kept may stay where it is."""
    staying = [t for t in current if not t.evicted]
    leaving = [t for t in current if t.evicted]
    best = _keep_one(staying or leaving, out)
    if staying:
        for task in leaving:
            if best.ready and not best.unheard:
                out.stop.append(StopTask(task.id, "it was moved to another node"))
            else:
                out.keep.append(task.id)  # it serves until its replacement does
    for task in live:
        if task.lost:
            # Of an old spec it is of no use; of this one it is judged when its node is back.
            if task.spec_hash != target and best.ready and not best.unheard:
                out.stop.append(StopTask(task.id, "it was replaced"))
            else:
                out.keep.append(task.id)
    return bool(staying)


def _keep_one(copies: list[Replica], out: _Draft) -> Replica:
    """Keep the best of the copies that answer, and all that do not; return the best."""
    heard = [t for t in copies if not t.unheard]
    best, *others = heard or copies[:1]
    out.keep += [best.id, *(t.id for t in copies if t.unheard and t is not best)]
    out.stop += [StopTask(t.id, "another copy serves this slot") for t in others]
    return best


def _replacement(wanted: WantedService, slot: int, target: str, old: Replica) -> CreateTask:
    return CreateTask(slot, target, wanted.nodes.get(slot), replaces=old.id)


def _after(wanted: WantedService, found: list[Replica], target: str, now: float) -> Replacement:
    """Return the verdict on the newest ended task of this spec, or "create now"."""
    ended = [t for t in found if t.ended and t.spec_hash == target and not t.going]
    if not ended or wanted.behind(ended[-1]):
        return Replacement(at=now)
    return verdict(wanted.restart, ended[-1], now)
