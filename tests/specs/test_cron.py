"""When something is due: cron's five fields, in UTC and where clocks are put forward and back."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.schedule import due
from specs.kit import cron as crons
from specs.kit.cron import Cron, NoZone, zone_of
from specs.schedule import ScheduleSpec


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("cron", "now", "before", "after"),
    [
        ("0 3 * * *", "2026-11-28T03:00:30", "2026-11-28T03:00", "2026-11-29T03:00"),
        ("0 3 * * *", "2026-11-28T02:59:59", "2026-11-27T03:00", "2026-11-28T03:00"),
        ("*/15 * * * *", "2026-11-28T00:14", "2026-11-28T00:00", "2026-11-28T00:15"),
        ("5/20 * * * *", "2026-11-28T00:04", "2026-11-27T23:45", "2026-11-28T00:05"),
        ("30 2 1,15 * *", "2026-11-28T00:00", "2026-11-15T02:30", "2026-12-01T02:30"),
        ("0 0 29 2 *", "2026-11-28T00:00", "2024-02-29T00:00", "2028-02-29T00:00"),
        ("0 12 * * mon-fri", "2026-11-28T13:00", "2026-11-27T12:00", "2026-11-30T12:00"),
        ("0 12 * * 7", "2026-11-28T13:00", "2026-11-22T12:00", "2026-11-29T12:00"),
        ("0 0 13 * fri", "2026-11-28T00:00", "2026-11-27T00:00", "2026-12-04T00:00"),
        ("@daily", "2026-12-31T23:59", "2026-12-31T00:00", "2027-01-01T00:00"),
        ("@weekly", "2026-11-28T00:00", "2026-11-22T00:00", "2026-11-29T00:00"),
        ("0 0 1 jan *", "2026-11-28T00:00", "2026-01-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_the_minute_before_and_the_minute_after(cron, now, before, after):
    found = Cron.parse(cron)
    assert found.before(at(now)) == at(before)
    assert found.after(at(now)) == at(after)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "has 0 fields"),
        ("0 3 * *", "has 4 fields"),
        ("60 * * * *", "minute '60'.*not from 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of the month '0'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day of the week '8'"),
        ("*/0 * * * *", "'0' is not a step"),
        ("5-1 * * * *", "5 is after 1"),
        ("a * * * *", "'a' is not from"),
        ("1,,2 * * * *", "'' is not from"),
        ("² * * * *", "is not from"),
        ("0 0 30 2 *", "never comes"),
        ("@reboot", "has 1 fields"),
    ],
)
def test_what_is_no_schedule_is_refused_by_its_field(cron, words):
    with pytest.raises(ValueError, match=words):
        Cron.parse(cron)


FIELDS = st.tuples(
    st.sampled_from(["*", "0", "*/7", "3-20/4", "59"]),
    st.sampled_from(["*", "0", "23", "1-5", "*/6"]),
    st.sampled_from(["*", "1", "31", "28-30"]),
    st.sampled_from(["*", "1", "jan,mar"]),
    st.sampled_from(["*", "0", "sat", "1-5"]),
)


@given(FIELDS, st.floats(0, 4e9))
def test_before_and_after_agree(fields, now):
    cron = Cron.parse(" ".join(fields))
    before, after = cron.before(now), cron.after(now)
    assert after > now
    assert before is None or before <= now
    assert cron.before(after) == after, "what comes is one of its minutes"
    assert cron.before(after - 1) == before, "and none is between"
    if before is not None:
        assert cron.after(before - 1) == before


@pytest.mark.parametrize(
    ("days", "fit"),
    [
        ("mon-sun", {0, 1, 2, 3, 4, 5, 6}),
        ("fri-sun", {5, 6, 0}),
        ("sat-0", {6, 0}),
        ("5-7", {5, 6, 0}),
        ("sun-tue", {0, 1, 2}),
        ("sun-sun", {0}),
    ],
)
def test_a_week_may_end_with_its_sunday(days, fit):
    assert Cron.parse(f"0 3 * * {days}").weekdays == fit


def local(text, zone):
    """Return a time from its text in a zone; ``*``: the second time that its clock shows it."""
    moment = dt.datetime.fromisoformat(text.rstrip("*"))
    return moment.replace(tzinfo=zone_of(zone), fold=int(text.endswith("*"))).timestamp()


# zone, cron -> what is due from a moment on, as its clock shows it (``*``: for the second time)
CLOCKS = {
    # 2026-03-29 02:00 is 03:00 in Berlin; 2026-10-25 03:00 is 02:00 again.
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00"): ("2026-03-29T03:00", "2026-03-30T02:30"),
    ("Europe/Berlin", "0,30 2 * * *", "2026-03-28T12:00"): (
        *("2026-03-29T03:00", "2026-03-30T02:00", "2026-03-30T02:30"),
    ),
    ("Europe/Berlin", "30 2,3 * * *", "2026-03-28T12:00"): (
        *("2026-03-29T03:00", "2026-03-29T03:30", "2026-03-30T02:30"),
    ),
    ("Europe/Berlin", "30 * * * *", "2026-03-29T00:45"): (
        *("2026-03-29T01:30", "2026-03-29T03:30", "2026-03-29T04:30"),
    ),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00"): ("2026-10-25T02:30", "2026-10-26T02:30"),
    ("Europe/Berlin", "30 * * * *", "2026-10-25T01:45"): (
        *("2026-10-25T02:30", "2026-10-25T02:30*", "2026-10-25T03:30"),
    ),
    # 2026-03-08 02:00 is 03:00 in New York; 2026-11-01 02:00 is 01:00 again.
    ("America/New_York", "0 2 * * *", "2026-03-07T12:00"): ("2026-03-08T03:00", "2026-03-09T02:00"),
    ("America/New_York", "15 1 * * *", "2026-10-31T12:00"): (
        *("2026-11-01T01:15", "2026-11-02T01:15"),
    ),
    ("America/New_York", "*/30 * * * *", "2026-11-01T01:10"): (
        *("2026-11-01T01:30", "2026-11-01T01:00*", "2026-11-01T01:30*", "2026-11-01T02:00"),
    ),
    # Half an hour only: 2026-10-04 02:00 is 02:30 on Lord Howe; 2026-04-05 02:00 is 01:30 again.
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00"): (
        *("2026-10-04T02:30", "2026-10-05T02:15"),
    ),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00"): (
        *("2026-04-05T01:45", "2026-04-06T01:45"),
    ),
    ("Australia/Lord_Howe", "*/15 * * * *", "2026-04-05T01:40"): (
        *("2026-04-05T01:45", "2026-04-05T01:30*", "2026-04-05T01:45*", "2026-04-05T02:00"),
    ),
    # Samoa left 2011-12-30 out.
    ("Pacific/Apia", "0 12 * * *", "2011-12-29T13:00"): ("2011-12-31T00:00", "2011-12-31T12:00"),
    # Days that not every month or year has; either kind of day.
    ("Europe/Berlin", "0 4 31 * *", "2026-01-01T00:00"): (
        *("2026-01-31T04:00", "2026-03-31T04:00", "2026-05-31T04:00"),
    ),
    ("Europe/Berlin", "0 4 29 2 *", "2026-01-01T00:00"): ("2028-02-29T04:00", "2032-02-29T04:00"),
    ("America/New_York", "0 0 13 * fri", "2026-02-01T00:00"): (
        *("2026-02-06T00:00", "2026-02-13T00:00", "2026-02-20T00:00"),
    ),
    ("Asia/Kolkata", "@daily", "2026-12-31T05:00"): ("2027-01-01T00:00", "2027-01-02T00:00"),
    ("Asia/Kathmandu", "@hourly", "2026-06-01T05:01"): ("2026-06-01T06:00", "2026-06-01T07:00"),
}


@pytest.mark.parametrize("case", CLOCKS, ids=" ".join)
def test_where_clocks_are_put(case):
    name, text, begin = case
    cron, zone, now = Cron.parse(text), zone_of(name), local(begin, name)
    for wanted in CLOCKS[case]:
        due = cron.after(now, zone)
        assert due == local(wanted, name), dt.datetime.fromtimestamp(due, zone)
        assert cron.before(due, zone) == due
        assert cron.before(due - 1, zone) == (cron.before(now, zone) if due > now else None)
        now = due


ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"),
    *("America/Sao_Paulo", "America/St_Johns", "Asia/Kolkata", "Africa/Casablanca", "Asia/Beirut"),
)


def oracle(cron, begin, end, zone):
    """Return what is due in [begin, end), minute by minute: what cron(8) of Debian does."""
    found, shown = [], set()
    last = dt.datetime.fromtimestamp(begin - 3 * 86400, zone).replace(tzinfo=None, fold=0)
    at = begin - 3 * 86400
    while at < end:
        now = dt.datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0)
        minutes = [now]
        if cron.hours != crons.HOURS:
            # What the clock left out since the last minute is made up for; once is enough.
            left = int((now - last).total_seconds() // 60)
            minutes = [last + dt.timedelta(minutes=n) for n in range(1, left + 1)] or [now]
            minutes = [minute for minute in minutes if minute not in shown]
            shown.update(minutes)
        if any(
            m.minute in cron.minutes and m.hour in cron.hours and cron._day(m.date())
            for m in minutes
        ):
            found.append(at)
        last, at = now, at + 60
    return [at for at in found if at >= begin]


@settings(max_examples=40)
@given(
    st.tuples(
        st.sampled_from(["*", "0", "30", "*/15", "3-50/13"]),
        st.sampled_from(["*", "0", "1", "2", "3", "0-3", "*/6", "23"]),
        st.sampled_from(["*", "1", "29", "30", "31"]),
        st.sampled_from(["*", "3", "10,11", "4"]),
        st.sampled_from(["*", "sun", "1-5"]),
    ),
    st.sampled_from(ZONES),
    st.sampled_from(
        [
            at(f"20{y}-{d}T00:00")
            for y in ("11", "18", "26")
            for d in (
                "03-08",
                "03-28",
                "04-03",
                "10-03",
                "10-24",
                "10-31",
                "12-29",
                "06-14",
                "02-28",
            )
        ]
    ),
    st.integers(0, 86400),
)
def test_it_agrees_with_looking_at_every_minute(fields, name, begin, later):
    cron, zone = Cron.parse(" ".join(fields)), zone_of(name)
    begin, end = begin + later // 60 * 60, begin + 3 * 86400
    found, now = [], begin - 1
    while (now := cron.after(now, zone)) < end:
        found.append(now)
        assert len(found) < 5000
    assert found == oracle(cron, begin, end, zone)
    assert found == sorted(set(found)), "law: each is due once, one after the other"
    back, now = [], end - 1
    while (now := cron.before(now, zone)) is not None and now >= begin:
        back.append(now)
        now -= 1
    assert back == found[::-1], "law: before and after agree"
    assert cron.count(begin - 1, end - 1, 5000, zone) == len(found)


@pytest.mark.parametrize("cron", ["0-59 2 * * *", "* 0-22 * * *", "*/5 2 29 2 *", "* 2 * * sun"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-14"])
def test_missed_times_about_a_change_of_the_clock_take_few_steps(cron, day, monkeypatch):
    """However many were missed, each minute of the days about the change is looked at once."""
    crons._times.cache_clear()
    looked, instants = [], crons._instants
    monkeypatch.setattr(
        crons, "_instants", lambda at, **how: looked.append(at) or instants(at, **how)
    )
    spec = ScheduleSpec(cron=cron, timezone="Europe/Berlin")
    now = at(f"{day}T12:00")
    due(spec, "app", now - 86400, now, going=0)
    assert len(looked) == len(set(looked))
    assert len({one.date() for one in looked}) <= 6
    before = len(looked)
    due(spec, "app", now - 86400 + 60, now + 60, going=0)
    assert len(looked) == before, "the next look does not look at them again"


def test_a_zone_that_is_not_known(monkeypatch):
    zone_of.cache_clear()
    with pytest.raises(NoZone, match="there is no time zone 'Mars/Base'"):
        zone_of("Mars/Base")
    with pytest.raises(NoZone, match="no time zone"):
        zone_of("../etc/passwd")
    monkeypatch.setattr(zoneinfo, "ZoneInfo", _without_data)
    zone_of.cache_clear()
    with pytest.raises(NoZone, match="has no time zone data; install its package tzdata"):
        zone_of("Europe/Berlin")
    assert zone_of("UTC") is dt.UTC
    zone_of.cache_clear()


def _without_data(name):
    raise zoneinfo.ZoneInfoNotFoundError(name)
