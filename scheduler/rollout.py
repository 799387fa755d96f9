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

A slot of ``WantedService.beside`` (a canary's) goes through staged, started, ready whatever the
order, and keeps its old task until it is taken out of them.

A new task without a health check keeps its place until it has run its monitor time: what
starts and dies a moment later is to spoil one batch, not the service. A check that passed says
enough by itself, and what replaces tasks that serve nobody puts nothing at stake. With
start-first the old task serves beside it for that time: nothing is lost to one that dies.

Laws (tests/laws): never more than ``parallelism`` slots under way; with stop-first
at least ``replicas - parallelism`` stay available while the new ones become ready;
a paused rollout moves nothing; where failures are tolerated a failed slot is tried again with
back-off and holds nobody up; done means all current and ready. Whether they came to
stay is ``scheduler.trial``'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from scheduler.reconcile import CreateTask, StopTask, WantedService
from scheduler.replicas import Replica, best_first, by_slot
from scheduler.restart import delay
from scheduler.steps import STEP, whole
from specs.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scheduler.steps import Steps
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
    paused: float | None = None  # until when what is there already has others wait
    others: int = 0  # slots that are still to come, but for those that failed and may


@dataclass(slots=True)
class _Slot:
    slot: int
    target: str
    old: list[Replica] = field(default_factory=list)  # live, another spec or a wrong place
    going: list[Replica] = field(default_factory=list)  # asked to go, still there
    new: Replica | None = None
    broken: list[Replica] = field(default_factory=list)
    failed: Replica | None = None  # what ended here last, as it should not
    awaited: bool = False  # its new task is on a node that is likelier to come back

    @property
    def moving(self) -> bool:
        """Whether only the place is to change."""
        return bool(self.old) and all(t.displaced and t.spec_hash == self.target for t in self.old)

    @property
    def serves(self) -> bool:
        """Whether there is something to lose."""
        return any(t.ready for t in self.old)


@dataclass(frozen=True, slots=True)
class _Pause:
    """What is done takes a place a while longer; only with ``holds_all`` from everybody."""

    until: float
    holds_all: bool


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
    return whole(
        advance_in_steps(
            wanted, tasks, update, release=release, gate=gate, updating=updating, now=now
        )
    )


def advance_in_steps(
    wanted: WantedService,
    tasks: Iterable[Replica],
    update: UpdateConfig,
    *,
    release: int,
    gate: bool,
    updating: bool,
    now: float,
) -> Steps[Moves]:
    """Decide it in steps."""
    slots = yield from _slots(wanted, tasks, release)
    total = len(slots)
    failed = [s for s in slots if updating and _failed(s, update, release)]
    updated = sum(1 for s in slots if _settled(s))
    if failed and len(failed) / (len(wanted.beside) or total) > update.max_failure_ratio:
        what = "canary" if 0 < len(wanted.beside) < total else "updated"
        reason = f"{len(failed)} of {len(wanted.beside) or total} {what} tasks failed"
        if update.failure_action != "continue":
            return Moves(state="failed", reason=reason, updated=updated, total=total)
    width = max(update.parallelism or total, len(wanted.beside))
    failing = {entry.slot for entry in failed}
    left = [s for s in slots if s.old or not _settled(s)]
    yield total // 2
    pauses = _pauses(slots, update, release if updating else None, now)
    # What fails and may is tried again beside the others: it takes nobody's place.
    busy = sum(_under_way(s) for s in slots if s.slot not in failing)
    yield total // 2
    busy += sum(pause.holds_all for pause in pauses)
    watched = sum(not pause.holds_all for pause in pauses)
    create: list[CreateTask] = []
    stop: list[StopTask] = []
    wake = [pause.until for pause in pauses]
    watching: list[float] = []
    # Slots that serve nobody go first: replacing them costs no availability.
    for number, entry in enumerate(sorted(left, key=lambda s: (s.serves, s.slot)), 1):
        if not number % STEP:
            yield STEP // 2
        taken = busy + (watched if entry.serves else 0)
        if entry.old and entry.new is None and entry.awaited:
            continue  # another new one would be taken back by reconcile, pass after pass
        if entry.old and entry.new is None and taken < width:
            again = _again(entry, now)
            busy += entry.slot not in failing
            if again > now:
                wake.append(again)
            else:
                _begin(wanted, entry, create, stop, gate=gate)
        elif entry.slot in wanted.beside:
            continue  # both stay until somebody decides
        elif entry.old and entry.new is not None and gate:
            proven = _proven_at(entry, update, release if updating else None)
            if proven > now:
                watching.append(proven)
            else:
                stop += _swap(entry, update)
    return Moves(
        tuple(create),
        tuple(stop),
        "going" if left else "done",
        updated=updated,
        total=total,
        wake=min([*wake, *watching], default=None) if left else None,
        paused=max([*(p.until for p in pauses), *watching], default=None) if left else None,
        others=sum(s.slot not in failing for s in left),
    )


def _slots(wanted: WantedService, tasks: Iterable[Replica], release: int) -> Steps[list[_Slot]]:
    found = by_slot(tasks)
    slots: list[_Slot] = []
    for slot, target in sorted(wanted.slots.items()):
        if not len(slots) % STEP:
            yield STEP // 2
        entry = _Slot(slot, target)
        here = found.get(slot)
        slots.append(entry)
        if not here:
            continue
        if len(here) == 1 and here[0].sound and not wanted.outdated(here[0]):
            entry.new = here[0]  # nothing else is here, as in nearly all
            continue
        current = best_first(t for t in here if not wanted.outdated(t) and t.sound)
        ended = [
            t
            for t in here
            if t.spec_hash == target and t.ended and not t.going and not wanted.behind(t)
        ]
        entry.new = current[0] if current else (ended[-1] if ended and ended[-1].done else None)
        entry.old = [t for t in here if wanted.outdated(t) and t.sound]
        entry.awaited = any(
            t.awaited and t.live and t.spec_hash == target and not t.evicted for t in here
        )
        entry.going = [t for t in here if t.going and not t.ended and not t.unheard]
        entry.broken = [t for t in ended if t.broken and t.release == release]
        entry.failed = ended[-1] if ended and ended[-1].broken else None
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
    return new.restarts > 0 and new.lived < update.trial


def _again(entry: _Slot, now: float) -> float:
    """Return when the next try with the slot may begin: at once unless the last one failed."""
    if entry.failed is None:
        return now
    ended = entry.failed.ended_at if entry.failed.ended_at is not None else now
    return ended + delay(entry.failed.attempt + 2)  # it failed once already


def _under_way(entry: _Slot) -> bool:
    """Say whether the slot takes one of the ``parallelism`` places."""
    if entry.new is None:
        # Untouched, or the old one is on its way out and the new one not yet made.
        return not entry.old
    return bool(entry.old) or not _settled(entry)


def _pauses(
    slots: list[_Slot], update: UpdateConfig, release: int | None, now: float
) -> list[_Pause]:
    """Return the slots that are done and have the next ones wait all the same.

    ``release``: the one whose new tasks are watched, None where nothing is updated.
    """
    found = []
    moving = any(entry.moving for entry in slots)
    for entry in slots:
        new = entry.new
        if new is None or entry.old or not new.ready or new.ready_since is None:
            continue
        fresh = new.release == release
        if (fresh or moving) and now < new.ready_since + update.delay:
            found.append(_Pause(new.ready_since + update.delay, holds_all=True))
        elif fresh and not new.checked and now < new.ready_since + update.monitor:
            found.append(_Pause(new.ready_since + update.monitor, holds_all=False))
    return found


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
        attempt = entry.failed.attempt + 1 if entry.failed is not None else 0
        node = wanted.nodes.get(entry.slot)
        create.append(CreateTask(entry.slot, entry.target, node, attempt, replaces=old.id))
    elif gate:
        # Both cannot exist: the old one goes, then reconcile finds the slot empty.
        stop += [StopTask(t.id, "it is being updated") for t in entry.old]


def _proven_at(entry: _Slot, update: UpdateConfig, release: int | None) -> float:
    """Return when a task that serves may go for its successor, which serves beside it already.

    ``release``: as for ``_pauses``. 0: nothing has to be waited for.
    """
    new = entry.new
    if update.order != "start-first" or new is None or new.after or new.done or not entry.serves:
        return 0.0
    unproven = new.ready and not new.checked and new.release == release
    return new.ready_since + update.monitor if unproven and new.ready_since is not None else 0.0


def _swap(entry: _Slot, update: UpdateConfig) -> list[StopTask]:
    """Stop the old task when the new one is far enough."""
    new = entry.new
    if new is None:
        return []
    far = new.ready or new.done
    if update.order == "stop-first" or new.after:
        far = far or new.state in (TaskState.PREPARED, TaskState.STARTING, TaskState.RUNNING)
    serving = any(t.ready for t in entry.old)
    if not far and not serving and new.state in (TaskState.PREPARED, TaskState.STARTING):
        far = True  # nothing is lost by stopping what does not serve
    return [StopTask(t.id, "it is being updated") for t in entry.old] if far else []
