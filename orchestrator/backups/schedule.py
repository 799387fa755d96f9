"""When a backup is due: cron's five fields, in UTC. Pure.

    minute hour day-of-month month day-of-week     0 3 * * *   */15 * * * *   30 2 1,15 * mon-fri

``@hourly``, ``@daily``, ``@weekly`` and ``@monthly`` are short for the usual ones. As in cron, a
day fits when either of its two fields does, where both are restricted. UTC, because there every
minute comes once: an hour that summer time takes away would take its backup along.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
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
EXAMPLE = "0 3 * * * is every day at three (UTC), */30 * * * * every half hour"


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

    def before(self, now: float) -> float | None:
        """Return the newest minute that fits and is not after ``now``; None = there is none."""
        at = dt.datetime.fromtimestamp(now, dt.UTC).replace(second=0, microsecond=0)
        limit = at.hour * 60 + at.minute
        for back in range(FARTHEST):
            day = at.date() - dt.timedelta(days=back)
            if self._day(day) and (found := self._latest(limit)) is not None:
                return _time(day, found)
            limit = 24 * 60
        return None

    def after(self, now: float) -> float:
        """Return the first minute that fits and is after ``now``."""
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


def _time(day: dt.date, minutes: int) -> float:
    begin = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return (begin + dt.timedelta(minutes=minutes)).timestamp()


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
