"""What a schedule asks for now: which due time begins an iteration, and which never will.

Asked by ``orchestrator.control.planning.schedules`` at every look at a stack. Pure; times are
seconds since the epoch.

Laws (tests/laws/test_schedule.py): a due time begins at most one iteration, whatever the clock
does and however often it is asked; ``since`` never goes back; of many that were missed one at
most begins; what began on time was due; nothing that is due is passed over in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from specs.kit.cron import cron_of, zone_of

if TYPE_CHECKING:
    from specs.schedule import ScheduleSpec

ON_TIME = 60.0  # seconds after which a due time counts as missed: a controller that restarts is not
MOST_COUNTED = 100  # missed times that are counted in one look
MOST_BESIDE = 10  # iterations at a time, where they may overlap
AHEAD = 3600.0  # seconds by which the last due time may lie in the future without a word


@dataclass(frozen=True, slots=True)
class ScheduleRuling:
    """What is due. ``begin``: the due time that begins an iteration; None = none does.

    ``since``: what the record is to have from now on. ``skipped`` times were passed over, because
    of ``why``. ``replaces``: what goes on is ended for it. ``wake``: when to ask again. ``note``:
    what there is to say although nothing is to be done.
    """

    since: float
    begin: float | None = None
    skipped: int = 0
    why: str = ""
    replaces: bool = False
    wake: float | None = None
    note: str = ""


def due(spec: ScheduleSpec, salt: str, since: float, now: float, *, going: int) -> ScheduleRuling:
    """Return what is due at ``now``; ``going``: iterations that have not ended.

    ``salt`` is what the jitter hangs on beside the due time. Raises ValueError where the times
    cannot be read, or the zone is not known here.
    """
    cron, zone = cron_of(spec.cron), zone_of(spec.timezone)

    def follows(at: float) -> float:
        following = cron.after(at, zone)
        return following + jitter(spec, salt, following)

    if now < since:
        ahead = since - now > AHEAD
        return ScheduleRuling(since, wake=follows(since), note=_BACK if ahead else "")
    newest = cron.before(now, zone)
    while newest is not None and newest > since and newest + jitter(spec, salt, newest) > now:
        # It is due, and waits for its jitter; the one before it may not have begun yet.
        newest = cron.before(newest - 1, zone)
    if newest is None or newest <= since:
        return ScheduleRuling(since, wake=follows(since))
    wake = follows(newest)
    earlier = cron.count(since, newest - 1, MOST_COUNTED, zone)
    late = now - newest - jitter(spec, salt, newest)
    missed = "" if late <= ON_TIME else _missed(spec, late)
    busy = "" if missed else _busy(spec, going)
    if missed or busy:
        return ScheduleRuling(newest, skipped=earlier + 1, why=missed or busy, wake=wake)
    why = "nobody was there to begin them" if earlier else ""
    replaces = spec.overlap == "replace" and going > 0
    return ScheduleRuling(newest, newest, skipped=earlier, why=why, replaces=replaces, wake=wake)


_BACK = "the clock was put back: nothing is due before the newest time that was"


def _missed(spec: ScheduleSpec, late: float) -> str:
    if spec.missed == "skip":
        return "nobody was there to begin it"
    return "" if late <= spec.missed_within else "it was missed for longer than missed_within"


def _busy(spec: ScheduleSpec, going: int) -> str:
    if spec.overlap == "forbid" and going:
        return "an earlier iteration was still going on"
    if spec.overlap == "allow" and going >= MOST_BESIDE:
        return f"{going} earlier iterations were still going on"
    return ""


def jitter(spec: ScheduleSpec, salt: str, at: float) -> float:
    """Return by how much what is due at a time begins later: the same at every look."""
    if spec.jitter <= 0:
        return 0.0
    word = sha256(f"{salt}\0{at:.0f}".encode()).digest()[:8]
    return spec.jitter * int.from_bytes(word, "big") / 2**64


def next_due(spec: ScheduleSpec, salt: str, since: float, now: float) -> float:
    """Return when the next iteration begins by itself. Raises ValueError as ``due`` does."""
    found = due(spec, salt, since, now, going=0)
    return now if found.begin is not None or found.wake is None else found.wake
