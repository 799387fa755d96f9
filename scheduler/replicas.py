"""What reconcile, rollout and restart know of one service's tasks.

``orchestrator.control.planning.terms`` makes these from the store's records and what
it has observed. Times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from specs.states import FINAL, Desired, TaskState

GOING = frozenset({Desired.SHUTDOWN, Desired.REMOVED})


@dataclass(frozen=True, slots=True)
class Replica:
    """One task of a service.

    ``asked``: how often the service had been asked to run when it ended or was told to stop.
    ``lost``: its node is down and it may run elsewhere; ``awaited``: that node is likelier to
    come back as it was, so nothing takes the task's place. ``evicted``: it must leave its
    node, which still works. ``displaced``: its node breaks its constraints, and it goes
    elsewhere, see ``scheduler.displaced``. ``unheard``: its node does not answer, so nothing it
    is asked will happen now, and nobody knows what it does. ``returned_at``: when its node came
    back after it was down. ``ready_since``, ``ended_at``, ``sick_since`` None = not so.
    """

    id: str
    slot: int
    spec_hash: str
    node: str | None = None
    release: int = 0
    state: TaskState = TaskState.RUNNING
    desired: Desired = Desired.RUNNING
    ready: bool = False
    leaving: bool = False
    lost: bool = False
    awaited: bool = False
    evicted: bool = False
    displaced: bool = False
    unheard: bool = False
    returned_at: float = 0.0
    created_at: float = 0.0
    ready_since: float | None = None
    ended_at: float | None = None
    was_ready: bool = False
    has_run: bool = False  # a run was started at least once
    after: bool = False  # it starts once the one it replaces has gone: no node takes both
    checked: bool = False  # it has a health check, its own or its image's
    unhealthy: bool = False  # the check failed as often as it may
    pending_since: float | None = None  # no node takes it
    lived: float = 0.0  # seconds it was ready in its last spell
    restarts: int = 0
    restarting: bool = False  # a restart was asked for and is not done
    attempt: int = 0
    asked: int = 0
    cut_off: Literal["", "run", "keep"] = ""  # its node's end was its own: what then is asked for
    sick_since: float | None = None  # unhealthy since, and nothing will restart it

    @property
    def live(self) -> bool:
        """Whether it counts as a replica: not ended and not asked to go."""
        return self.state not in FINAL and not (self.leaving or self.desired in GOING)

    @property
    def ended(self) -> bool:
        return self.state in FINAL

    @property
    def going(self) -> bool:
        """Whether it was asked to go (and may still be there).

        One that had completed when the stop came to it stays what it is: done.
        """
        if self.desired is Desired.SHUTDOWN and self.done:
            return False
        return self.leaving or self.desired in GOING

    @property
    def done(self) -> bool:
        """Whether it ended as it should: a one-off that exited with 0."""
        return self.state is TaskState.COMPLETE

    @property
    def started(self) -> bool:
        """Whether it was told to run, not only to get ready for it."""
        return self.desired is Desired.RUNNING

    @property
    def broken(self) -> bool:
        """Whether it ended as it should not."""
        return self.state in (TaskState.FAILED, TaskState.REJECTED)

    @property
    def sound(self) -> bool:
        """Whether it is a replica that can be counted on where it is."""
        return self.live and not self.lost


def by_slot(tasks: Iterable[Replica]) -> dict[int, list[Replica]]:
    """Return tasks by slot, oldest first."""
    slots: dict[int, list[Replica]] = {}
    for task in tasks:
        slots.setdefault(task.slot, []).append(task)
    for found in slots.values():
        if len(found) > 1:  # nearly all have one
            found.sort(key=lambda t: (t.created_at, t.id))
    return {slot: slots[slot] for slot in sorted(slots)}


def best_first(tasks: Iterable[Replica]) -> list[Replica]:
    """Order copies of one slot: the first is kept, the others are surplus.

    A ready one beats one that is not, one that was told to start beats one that was
    not, one whose node answers beats one whose node does not, one that ran well once beats
    one that did not yet (so a replacement that came to nothing so far goes), one whose node
    stayed in reach beats one whose node was away, newer beats older. Only copies that answer are
    judged so (``reconcile``); the order then stays until one of them goes, so two passes
    never disagree.
    """
    return sorted(
        sorted(tasks, key=lambda t: (t.created_at, t.id), reverse=True),
        key=lambda t: (
            not t.ready,
            t.unheard,
            t.evicted,
            not t.started,
            t.state is not TaskState.RUNNING,
            t.returned_at,
        ),
    )


Slots = Mapping[int, list[Replica]]
