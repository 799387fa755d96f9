"""What this node should hold, the runners that hold it, and how far it is.

One table, written by those who own the fact (``worker.py`` the set and the runners,
``networking.py`` what is in force) and read by everybody else: reports, the server, the
preparation of tasks. It does nothing by itself.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from agent.tasks import slots
from agent.tasks.held import Held

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.tasks.adoption import Found
    from agent.tasks.record import Record
    from agent.tasks.runner import Runner
    from specs.wire import Assignment, Content

GONE_KEPT = 1000  # the controller forgets a task with the first report that lists it


class Stray(NamedTuple):
    """A task whose what is not known: what there is of it, and why that is not enough."""

    found: Found
    why: str


class Holdings:
    """The set by the newest instructions, and one runner for each task of it that is not gone."""

    def __init__(self) -> None:
        self.held = Held()
        self.runners: dict[str, Runner] = {}
        self.applied = 0  # the generation whose network state is in force
        self.strays: dict[str, Stray] = {}  # touched by nobody before the controller has spoken
        self.notes: dict[str, str] = {}  # what is kept and cannot be read -> why
        self.settled: tuple[str, ...] = ()  # what a controller's word took the place of since
        self.network_error = ""  # why a newer one is not
        self._gone: deque[str] = deque(maxlen=GONE_KEPT)  # erased, and out of the set

    @property
    def generation(self) -> int:
        """Return the generation of the newest instructions; 0 before the first."""
        return self.held.stamp.generation if self.held.stamp else 0

    @property
    def unread(self) -> tuple[str, ...]:
        """Return what cannot be read and is kept all the same, for people."""
        return (
            *(f"{what}: {why}" for what, why in sorted(self.notes.items())),
            *(
                f"task {task} is left as it is: {stray.why}"
                for task, stray in sorted(self.strays.items())
            ),
        )

    def contents(self) -> Mapping[str, Content]:
        """Return the secrets and configs sent to this node."""
        return self.held.objects.contents

    def slot_of(self, assignment: Assignment) -> str:
        """Return the name of the slot a task fills."""
        return slots.slot_of(assignment, self.held.objects.slots)

    def keeps(self, slot: str) -> bool:
        """Say whether what a slot has stays; where the set is in doubt, everything does."""
        return bool(self.held.doubt) or slots.is_wanted(slot, self.held.objects.slots)

    def predecessors(self, record: Record) -> list[Record]:
        """Return the tasks of a task's slot that are on their way out."""
        mine = self.slot_of(record.assignment)
        found = slots.predecessors(record, self.records())
        return [other for other in found if self.slot_of(other.assignment) == mine]

    def unclear(self, task: str) -> bool:
        """Say whether something is here of a task, and nobody knows yet what became of it."""
        return task in self.strays

    def record(self, task: str) -> Record | None:
        """Return what is known of a task, as far as it is written."""
        runner = self.runners.get(task)
        return runner.told if runner else None

    def records(self) -> list[Record]:
        """Return every task's record."""
        return [runner.told for runner in self.runners.values()]

    def erased(self) -> list[str]:
        """Return tasks nothing is left of: those still in the set, then the last ones that were."""
        return [*(record.id for record in self.records() if record.erased), *self._gone]

    def drop_if_gone(self, task: str) -> None:
        """Forget a task that is neither wanted nor there; its id is still reported as gone."""
        runner = self.runners.get(task)
        if runner is None or not runner.record.erased or task in self.held.objects.tasks:
            return
        del self.runners[task]
        if task not in self._gone:
            self._gone.append(task)
