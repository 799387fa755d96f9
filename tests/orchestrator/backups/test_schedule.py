"""When a backup is due."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backups.schedule import Cron


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
