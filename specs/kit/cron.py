"""When something is due: cron's five fields, in UTC or in a time zone. Pure.

    minute hour day-of-month month day-of-week     0 3 * * *   */15 * * * *   30 2 1,15 * mon-fri

``@hourly``, ``@daily``, ``@weekly``, ``@monthly`` and ``@yearly`` are short for the usual ones. As
in cron, a day fits when either of its two fields does, where both are restricted.

In UTC every minute comes once. Where a zone's clock is put forward, what names its hour and
would be in the hour that is left out is due when the clock is put; where it is put back, such a
thing is due the first time only. What is due every hour follows the clock as it goes: it skips
what is left out, and comes again in what is repeated.

Times are seconds since the epoch.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
NAMES = ("minute", "hour", "day of the month", "month", "day of the week")
WEEKDAY = 4  # its place
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
FARTHEST = 366 * 8 + 2  # days between two 29ths of February, at worst
EXAMPLE = "0 3 * * * is every day at three, */30 * * * * every half hour"
HOURS = frozenset(range(24))
# Longer than any clock was ever put: Samoa left out a day. Where the offset at both ends of such a
# span is the same, it is so all through it.
SPAN = 26 * 3600.0


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule; each field is the set of values that fit."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool  # both kinds of days are restricted: one of them is enough

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Return the schedule. Raises ValueError with the field and what is wrong in it."""
        words = SHORT.get(text.strip().lower(), text).lower().split()
        if len(words) != 5:
            raise ValueError(f"{text!r} has {len(words)} fields, a schedule has 5: {EXAMPLE}")
        sets = [_field(word, place) for place, word in enumerate(words)]
        weekdays = frozenset(day % 7 for day in sets[4])
        either = not words[2].startswith("*") and not words[4].startswith("*")
        made = cls(sets[0], sets[1], sets[2], sets[3], weekdays, either)
        if made.before(dt.datetime(2032, 3, 1, tzinfo=dt.UTC).timestamp()) is None:
            raise ValueError(f"{text!r} never comes: no such day is in any of its months")
        return made

    def before(self, now: float, zone: dt.tzinfo = dt.UTC) -> float | None:
        """Return the newest time that is due and not after ``now``; None = there is none."""
        offset = _offset(zone, now)
        if zone is dt.UTC or offset == _offset(zone, now - SPAN) == _offset(zone, now + SPAN):
            local = self._before(now + offset)
            if zone is dt.UTC or local is None:
                return local
            if now - (local - offset) <= SPAN:
                return local - offset
        if self.hours == HOURS and (near := self._near(now // 60 * 60, -60, zone)) is not None:
            return near
        day = dt.datetime.fromtimestamp(now, zone).date() + dt.timedelta(days=2)
        found: list[float] = []
        for back in range(FARTHEST):
            at = day - dt.timedelta(days=back)
            if self._day(at):
                times = _times(self, at, zone)
                found += times[: bisect_right(times, now)][-1:]
            # A day more, as the next one's first minutes may come before this one's last.
            if found and max(found) > _time(at, 0) - offset + SPAN:
                break
        return max(found, default=None)

    def after(self, now: float, zone: dt.tzinfo = dt.UTC) -> float:
        """Return the first time that is due and after ``now``."""
        offset = _offset(zone, now)
        if zone is dt.UTC:
            return self._after(now)
        if offset == _offset(zone, now - SPAN) == _offset(zone, now + SPAN):
            local = self._after(now + offset) - offset
            if local - now <= SPAN:
                return local
        if self.hours == HOURS and (near := self._near(now // 60 * 60 + 60, 60, zone)) is not None:
            return near
        day = dt.datetime.fromtimestamp(now, zone).date() - dt.timedelta(days=2)
        found: list[float] = []
        for ahead in range(FARTHEST + 3):
            at = day + dt.timedelta(days=ahead)
            if self._day(at):
                times = _times(self, at, zone)
                place = bisect_right(times, now)
                found += times[place : place + 1]
            if found and min(found) < _time(at, 0) - offset - SPAN:
                break
        return min(found)

    def count(self, since: float, until: float, most: int, zone: dt.tzinfo = dt.UTC) -> int:
        """Return how many times are due in (since, until], at most ``most``."""
        found = 0
        while found < most and (since := self.after(since, zone)) <= until:
            found += 1
        return found

    def _near(self, at: float, step: int, zone: dt.tzinfo) -> float | None:
        """Return the first of the next 120 minutes at which the zone's clock shows what is due."""
        for _ in range(120):
            local = dt.datetime.fromtimestamp(at, zone)
            if local.minute in self.minutes and self._day(local.date()):
                return at
            at += step
        return None

    def _before(self, now: float) -> float | None:
        at = dt.datetime.fromtimestamp(now, dt.UTC).replace(second=0, microsecond=0)
        limit = at.hour * 60 + at.minute
        for back in range(FARTHEST):
            day = at.date() - dt.timedelta(days=back)
            if self._day(day) and (found := self._latest(limit)) is not None:
                return _time(day, found)
            limit = 24 * 60
        return None

    def _after(self, now: float) -> float:
        at = dt.datetime.fromtimestamp(now, dt.UTC).replace(second=0, microsecond=0)
        limit = at.hour * 60 + at.minute
        for ahead in range(FARTHEST):
            day = at.date() + dt.timedelta(days=ahead)
            if self._day(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        if hour * 60 + minute > limit:
                            return _time(day, hour * 60 + minute)
            limit = -1
        raise AssertionError("parse() refuses what never comes")

    def _day(self, day: dt.date) -> bool:
        if day.month not in self.months:
            return False
        fits = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return any(fits) if self.either else all(fits)

    def _latest(self, limit: int) -> int | None:
        """Return the last fitting minute of a day that is not after a minute of it."""
        for hour in sorted(self.hours, reverse=True):
            for minute in sorted(self.minutes, reverse=True):
                if hour * 60 + minute <= limit:
                    return hour * 60 + minute
        return None


# Days about a change of the clock are looked at by the minute; many questions are about the same.
@lru_cache(maxsize=64)
def _times(cron: Cron, day: dt.date, zone: dt.tzinfo) -> tuple[float, ...]:
    """Return when it is due on a day of the zone, in order."""
    offset = _offset(zone, _time(day, 0))
    begin = _time(day, 0) - offset
    end = begin + 24 * 3600
    if all(_offset(zone, at) == offset for at in (begin - SPAN, begin, end, end + SPAN)):
        return tuple(
            begin + 3600 * hour + 60 * minute
            for hour in sorted(cron.hours)
            for minute in sorted(cron.minutes)
        )
    found = []
    for hour in cron.hours:
        for minute in cron.minutes:
            local = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            found += _instants(local, follows=cron.hours == HOURS)
    return tuple(sorted(found))


def _time(day: dt.date, minutes: int) -> float:
    begin = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return (begin + dt.timedelta(minutes=minutes)).timestamp()


def _offset(zone: dt.tzinfo, at: float) -> float:
    """Return the seconds a zone's clock is ahead of UTC."""
    if zone is dt.UTC:
        return 0.0
    ahead = dt.datetime.fromtimestamp(at, zone).utcoffset()
    return ahead.total_seconds() if ahead is not None else 0.0


def _instants(local: dt.datetime, *, follows: bool) -> list[float]:
    """Return when a zone's clock shows a time; ``follows``: as often as it does, if at all.

    Else once: where the clock leaves it out, at the moment it is put.
    """
    first, second = (local.replace(fold=fold).timestamp() for fold in (0, 1))
    if first == second:
        return [first]
    if first < second:  # the clock is put back
        return [first, second] if follows else [first]
    return [] if follows else [_put(local.tzinfo or dt.UTC, second, first)]


def _put(zone: dt.tzinfo, low: float, high: float) -> float:
    """Return when, in (low, high], the zone's clock is put forward; to the second."""
    before = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


class NoZone(ValueError):
    """A time zone that is not known here; the message says why, and what to write."""


@lru_cache(maxsize=1024)
def cron_of(text: str) -> Cron:
    """Return what ``Cron.parse`` makes of a text: for who asks again and again."""
    return Cron.parse(text)


@lru_cache(maxsize=256)
def zone_of(name: str) -> dt.tzinfo:
    """Return the time zone with this name (``Europe/Berlin``). Raises NoZone."""
    if name in ("UTC", "Etc/UTC"):
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    try:
        zoneinfo.ZoneInfo("Europe/London")
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        raise NoZone(
            f"the time zone {name!r} is not known: this machine has no time zone data; install "
            "its package tzdata, or write UTC"
        ) from None
    raise NoZone(f"there is no time zone {name!r}; write one like Europe/Berlin, or UTC")


def _field(word: str, place: int) -> frozenset[int]:
    low, high = RANGES[place]
    found: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _value(begin, place, word)
            last = _value(end, place, word) if dash else (high if slash else first)
            if place == WEEKDAY and last == 0 < first:
                last = high  # fri-sun: a Sunday ends a week as well as it begins one
        if slash and (not step.isascii() or not step.isdigit() or int(step) == 0):
            raise ValueError(f"{NAMES[place]} {word!r}: {step!r} is not a step; {EXAMPLE}")
        if first > last:
            raise ValueError(f"{NAMES[place]} {word!r}: {first} is after {last}")
        found.update(range(first, last + 1, int(step) if slash else 1))
    return frozenset(found)


def _value(text: str, place: int, word: str) -> int:
    low, high = RANGES[place]
    named = {3: MONTHS, 4: DAYS}.get(place, {})
    value = named.get(text, int(text) if text.isascii() and text.isdigit() else -1)
    if not low <= value <= high:
        raise ValueError(
            f"{NAMES[place]} {word!r}: {text!r} is not from {low} to {high}; {EXAMPLE}"
        )
    return value
