"""Replace a service's tasks by tasks of a new spec, or in new places, a few at a time.

A step machine without memory: every pass looks at the tasks as they are and
returns the next moves, so a controller that starts in the middle goes on where
the last one stopped. One slot goes through::

    untouched -> staged (new task prepared) -> old withdrawn, acknowledged, stopped
              -> new started -> ready -> done                            (stop-first)
    untouched -> staged -> new started -> ready -> old withdrawn, stopped -> done
                                                                        (start-first)

Withdrawing endpoints and waiting for acknowledgements belongs to whoever performs
a stop (``orchestrator.control.planning.stopping``).

Laws (tests/laws): never more than ``parallelism`` slots under way; with stop-first
at least ``replicas - parallelism`` stay available while the new ones become ready;
a paused rollout moves nothing; done means all current and ready. Whether they came to
stay is ``scheduler.trial``'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from scheduler.reconcile import CreateTask, StopTask, WantedService
from scheduler.replicas import Replica, best_first, by_slot
from scheduler.restart import delay
from specs.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specs.stack import UpdateConfig

CRASHES = 3  # restarts of a new task that was never ready: it counts as failed


@dataclass(frozen=True, slots=True)
class Moves:
    """What to do next; ``state`` is where the rollout stands."""

    create: tuple[CreateTask, ...] = ()
    stop: tuple[StopTask, ...] = ()
    state: Literal["going", "done", "failed"] = "going"
    reason: str = ""
    updated: int = 0
    total: int = 0
    wake: float | None = None


@dataclass(slots=True)
class _Slot:
    slot: int
    target: str
    old: list[Replica] = field(default_factory=list)  # live, another spec or a wrong place
    going: list[Replica] = field(default_factory=list)  # asked to go, still there
    new: Replica | None = None
    broken: list[Replica] = field(default_factory=list)
    failed: Replica | None = None  # what ended here last, as it should not

    @property
    def moving(self) -> bool:
        """Whether only the place is to change."""
        return bool(self.old) and all(t.displaced and t.spec_hash == self.target for t in self.old)


def advance(
    wanted: WantedService,
    tasks: Iterable[Replica],
    update: UpdateConfig,
    *,
    release: int,
    gate: bool,
    updating: bool,
    now: float,
) -> Moves:
    """Return the next moves of the rollout to ``wanted``.

    ``release`` is the one being rolled out; ``updating`` says that the service was there
    before it, so that failures are the update's and not a first start's.
    ``gate`` False: dependencies are awaited; new tasks may be staged, nothing is stopped.
    """
    slots = _slots(wanted, tasks, release)
    total = len(slots)
    failed = [s for s in slots if updating and _failed(s, update, release)]
    updated = sum(1 for s in slots if _settled(s))
    if failed and len(failed) / total > update.max_failure_ratio:
        reason = f"{len(failed)} of {total} updated tasks failed"
        if update.failure_action != "continue":
            return Moves(state="failed", reason=reason, updated=updated, total=total)
    width = update.parallelism or total
    wake: list[float] = []
    busy = 0
    moving = any(entry.moving for entry in slots)
    for entry in slots:
        delayed = updating and entry.new is not None and entry.new.release == release
        under_way, until = _under_way(entry, update, now, delayed=delayed or moving)
        busy += under_way
        if until is not None:
            wake.append(until)
    create: list[CreateTask] = []
    stop: list[StopTask] = []
    # Slots that serve nobody go first: replacing them costs no availability.
    for entry in sorted(slots, key=lambda s: (any(t.ready for t in s.old), s.slot)):
        if entry.old and entry.new is None and busy < width:
            busy += 1
            again = _again(entry, now)
            if again > now:
                wake.append(again)
            else:
                _begin(wanted, entry, create, stop, gate=gate)
        elif entry.old and entry.new is not None and gate:
            stop += _swap(entry, update)
    if create or stop or any(not _settled(s) or s.old for s in slots):
        return Moves(
            tuple(create), tuple(stop), "going", "", updated, total, min(wake, default=None)
        )
    return Moves(state="done", updated=updated, total=total)


def _slots(wanted: WantedService, tasks: Iterable[Replica], release: int) -> list[_Slot]:
    found = by_slot(tasks)
    slots = []
    for slot, target in sorted(wanted.slots.items()):
        entry = _Slot(slot, target)
        here = found.get(slot, [])
        current = best_first(t for t in here if not wanted.outdated(t) and t.sound)
        ended = [
            t
            for t in here
            if t.spec_hash == target and t.ended and not t.going and not wanted.behind(t)
        ]
        entry.new = current[0] if current else (ended[-1] if ended and ended[-1].done else None)
        entry.old = [t for t in here if wanted.outdated(t) and t.sound]
        entry.going = [t for t in here if t.going and not t.ended and not t.unheard]
        entry.broken = [t for t in ended if t.broken and t.release == release]
        entry.failed = ended[-1] if ended and ended[-1].broken else None
        slots.append(entry)
    return slots


def _settled(entry: _Slot) -> bool:
    """Say whether the slot has a current task that serves (or a one-off that completed)."""
    return entry.new is not None and (entry.new.done or entry.new.ready)


def _failed(entry: _Slot, update: UpdateConfig, release: int) -> bool:
    if entry.broken:
        return True
    new = entry.new
    if new is None or new.ready or new.done or new.release != release:
        return False
    if not new.was_ready:
        return new.restarts >= CRASHES or new.sick_since is not None
    return new.restarts > 0 and new.lived < update.monitor


def _again(entry: _Slot, now: float) -> float:
    """Return when the next try to move the slot may begin: at once unless the last one failed."""
    if not entry.moving or entry.failed is None:
        return now
    ended = entry.failed.ended_at if entry.failed.ended_at is not None else now
    return ended + delay(entry.failed.attempt + 2)  # it failed once already


def _under_way(
    entry: _Slot, update: UpdateConfig, now: float, *, delayed: bool
) -> tuple[bool, float | None]:
    """Say whether the slot takes one of the ``parallelism`` places, and until when if known.

    ``delayed``: the next one waits for ``update.delay`` after this one.
    """
    if entry.new is None:
        # Untouched, or the old one is on its way out and the new one not yet made.
        return not entry.old, None
    if entry.old or not _settled(entry):
        return True, None
    if entry.new.ready_since is None or not update.delay or not delayed:
        return False, None
    until = entry.new.ready_since + update.delay
    return now < until, until if now < until else None


def _begin(
    wanted: WantedService,
    entry: _Slot,
    create: list[CreateTask],
    stop: list[StopTask],
    *,
    gate: bool,
) -> None:
    old = best_first(entry.old)[0]
    if not wanted.exclusive:
        attempt = entry.failed.attempt + 1 if entry.moving and entry.failed is not None else 0
        node = wanted.nodes.get(entry.slot)
        create.append(CreateTask(entry.slot, entry.target, node, attempt, replaces=old.id))
    elif gate:
        # Both cannot exist: the old one goes, then reconcile finds the slot empty.
        stop += [StopTask(t.id, "it is being updated") for t in entry.old]


def _swap(entry: _Slot, update: UpdateConfig) -> list[StopTask]:
    """Stop the old task when the new one is far enough."""
    new = entry.new
    if new is None:
        return []
    far = new.ready or new.done
    if update.order == "stop-first":
        far = far or new.state in (TaskState.PREPARED, TaskState.STARTING, TaskState.RUNNING)
    serving = any(t.ready for t in entry.old)
    if not far and not serving and new.state in (TaskState.PREPARED, TaskState.STARTING):
        far = True  # nothing is lost by stopping what does not serve
    return [StopTask(t.id, "it is being updated") for t in entry.old] if far else []
