"""Schedules as people read them: when each is due next, or why it is not, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.schedule import next_due
from specs.schedule import ScheduleRow

if TYPE_CHECKING:
    from orchestrator.contracts import Mirror
    from specs.schedule import Schedule


def schedule_rows(cluster: Mirror, stack: str | None, *, now: float) -> tuple[ScheduleRow, ...]:
    """Return the schedules of a stack, or of all, by name. ``now`` is a wall clock's."""
    found = [one for key, one in sorted(cluster.schedules.items()) if stack in (None, key[0])]
    return tuple(schedule_row(one, now=now) for one in found)


def schedule_row(record: Schedule, *, now: float) -> ScheduleRow:
    """Return one schedule."""
    why, at = _idle(record), None
    if not why:
        try:
            at = next_due(record.spec, record.salt, record.since, now)
        except ValueError as error:
            why = str(error)
    return ScheduleRow(
        stack=record.stack,
        service=record.service,
        cron=record.spec.cron,
        timezone=record.spec.timezone,
        next_at=at,
        why=why or record.problem,
        running=len(record.going),
        last=record.iterations[-1] if record.iterations else None,
        iterations=record.iterations,
        skipped=record.skipped,
        skipped_at=record.skipped_at,
        skipped_why=record.skipped_why,
        succeeded_at=record.succeeded_at,
        succeeded=record.succeeded,
        failed=record.failed,
    )


def _idle(record: Schedule) -> str:
    if record.resting:
        return "stopped"
    if record.held:
        return "paused"
    return "paused by its file" if record.spec.paused else ""
