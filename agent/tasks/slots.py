"""Which slot a task fills, whether that is wanted still, and whom its next task waits for (pure).

The anonymous volumes of a task that is gone pass to the next one of its slot on this node. The
controller says with each set which slots there are; one that says nothing keeps none. A global
service has one slot on a node, whatever number its task has there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.tasks.lifecycle import LEAVING
from specs.states import FINAL
from specs.wire import EVERY_NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.tasks.record import Record
    from specs.wire import Assignment, StackSlots


def slot_of(assignment: Assignment, slots: Mapping[str, StackSlots]) -> str:
    """Return the name of the slot a task fills."""
    known = slots.get(assignment.stack)
    count = known.services.get(assignment.service, 0) if known is not None else 0
    number = 0 if count == EVERY_NODE else assignment.slot
    return f"{assignment.stack}/{assignment.service}/{number}"


def is_wanted(slot: str, slots: Mapping[str, StackSlots]) -> bool:
    """Say whether the slot of that name is to have a task, now or when its stack starts again."""
    stack, service, number = slot.split("/")
    known = slots.get(stack)
    count = known.services.get(service, 0) if known is not None else 0
    return number == "0" if count == EVERY_NODE else 1 <= int(number) <= count


def predecessors(record: Record, others: Iterable[Record]) -> list[Record]:
    """Return the tasks of the same service that are on their way out, and not out yet.

    One that is to stay is none of them: whoever is started beside it has volumes of its own.
    """
    mine = record.assignment
    return [
        other
        for other in others
        if other.id != record.id
        and (other.assignment.stack, other.assignment.service) == (mine.stack, mine.service)
        and (other.assignment.desired in LEAVING or other.state in FINAL)
        and other.touched
        and not (other.tidied or other.erased)
    ]
