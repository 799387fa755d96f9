"""Whose clock a point in time is of: what nodes say is by theirs, records are by the controller's.

Nothing is decided by the difference of two clocks as it stands: a machine without a time server is
days off, and one that finds its server jumps. How far a node is off is measured with each report
(``NodeCondition.ahead``); what a record says besides bounds what may be believed. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.kit.amounts import span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.node import NodeCondition
    from specs.task import Task

NOTICED = 2.0  # seconds: as much as a busy line or machine makes of clocks that agree
TELLING = 10.0  # seconds from which people are told: logs merged by time make less sense
_NEXT = 0.001


def ahead(conditions: Mapping[str, NodeCondition], node: str | None) -> float:
    """Return how many seconds a node's clock is ahead of ours; 0 where that is not known."""
    condition = conditions.get(node or "")
    return condition.ahead if condition is not None else 0.0


def by_ours(conditions: Mapping[str, NodeCondition], task: Task, moment: float) -> float:
    """Return what our clock showed when the one of the task's node showed ``moment``."""
    return moment - ahead(conditions, task.node)


def ran(conditions: Mapping[str, NodeCondition], task: Task, wall: float) -> float:
    """Return for how many seconds the task's run has run, at most as long as there is the task."""
    run = task.status.run
    if run is None or run.started_at is None:
        return 0.0
    known = wall - by_ours(conditions, task, run.started_at)
    return max(0.0, min(known, wall - task.created_at))


def later_than(newest: float, wall: float) -> float:
    """Return when a record is made now: never before the newest, also where our clock went back."""
    return wall if wall >= newest else newest + _NEXT


def words(seconds: float) -> str:
    """Return how a node's clock differs, for people: "" where it is as good as ours."""
    if abs(seconds) < TELLING:
        return ""
    way = "ahead of" if seconds > 0 else "behind"
    return (
        f"its clock is {span(abs(seconds))} {way} the controller's: times of its logs are by it;"
        " let both machines follow a time server"
    )
