"""Laws of what is due: scheduler.schedule, whatever the clock does and whoever was not there."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.schedule import MOST_BESIDE, ON_TIME, due, jitter, next_due
from specs.kit.cron import Cron, NoZone, zone_of
from specs.schedule import ScheduleSpec

DAY = 86400.0
NOON = dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC).timestamp()

specs = st.builds(
    ScheduleSpec,
    cron=st.sampled_from(["*/5 * * * *", "0 * * * *", "30 2 * * *", "0 0 13 * fri", "@weekly"]),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    jitter=st.sampled_from([0.0, 0.0, 30.0, 250.0]),
    overlap=st.sampled_from(["allow", "forbid", "replace"]),
    missed=st.sampled_from(["skip", "run-once"]),
    missed_within=st.sampled_from([0.0, 600.0, DAY]),
)
# What the clock does between two looks: on by a little, away for long, put forward, put back.
steps = st.lists(
    st.one_of(st.floats(0, 120), st.floats(0, 3 * DAY), st.floats(-2 * DAY, 0)), max_size=40
)


@given(specs, steps, st.lists(st.integers(0, 2), min_size=41, max_size=41))
def test_each_is_due_once_at_most(spec, steps, going):
    cron, zone = Cron.parse(spec.cron), zone_of(spec.timezone)
    since = now = NOON
    begun = []
    for step, busy in zip([0.0, *steps], going, strict=False):
        now += step
        found = due(spec, "app/report", since, now, going=busy)
        assert found.since >= since, "law: what was decided stays decided"
        again = due(spec, "app/report", found.since, now, going=busy)
        assert again.begin is None, "law: a second look begins nothing"
        assert not again.skipped
        if found.begin is not None:
            assert cron.before(found.begin, zone) == found.begin, "law: what begins was due"
            assert since < found.begin <= now
            late = now - found.begin - jitter(spec, "app/report", found.begin)
            assert late >= 0, "law: nothing begins before its jitter is over"
            if spec.missed == "skip":
                assert late <= ON_TIME
            else:
                assert late <= max(ON_TIME, spec.missed_within)
            assert not (spec.overlap == "forbid" and busy)
            assert found.replaces == (spec.overlap == "replace" and busy > 0)
            begun.append(found.begin)
        if found.since > since:
            count = cron.count(since, found.since, 5000, zone)
            told = found.skipped + (found.begin is not None)
            assert told == min(count, 101) or (told >= 100 and count > told), "law: each is told"
            assert bool(found.skipped) == bool(found.why)
        if found.wake is not None and now >= since:
            assert found.wake > now, "law: it is never asked without an end"
            soon = due(spec, "app/report", found.since, found.wake, going=0)
            assert soon.begin is not None or soon.skipped, "law: it wakes when something is due"
        since = found.since
    assert len(begun) == len(set(begun)), "law: no due time begins twice"
    assert begun == sorted(begun)


@given(specs, st.floats(0, 30 * DAY))
def test_who_looks_often_begins_all_of_them(spec, begin):
    """Nobody away, nothing going on: every due time begins one, and none is passed over."""
    cron, zone = Cron.parse(spec.cron), zone_of(spec.timezone)
    since = now = NOON + begin
    end, found = now + 6 * 3600, []
    while now < end:
        one = due(spec, "a/b", since, now, going=0)
        assert not one.skipped
        found += [one.begin] if one.begin is not None else []
        since, now = one.since, one.wake
    assert len(found) == cron.count(NOON + begin, since, 5000, zone)


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


NIGHT = {"cron": "0 2 * * *"}
# what the file says, since, now, going -> what begins, how many are passed over, why
CASES = {
    "not yet": (NIGHT, "11-27T02:00", "11-28T01:59", 0, None, 0, ""),
    "on time": (NIGHT, "11-27T02:00", "11-28T02:00", 0, "11-28T02:00", 0, ""),
    "a restart later": (NIGHT, "11-27T02:00", "11-28T02:00:45", 0, "11-28T02:00", 0, ""),
    "away at night": (NIGHT, "11-27T02:00", "11-28T02:40", 0, "11-28T02:00", 0, ""),
    "away for longer than within": (
        *(NIGHT, "11-27T02:00", "11-28T09:00", 0, None, 1, "longer than missed_within"),
    ),
    "away over several": (
        *(NIGHT, "11-20T02:00", "11-28T02:40", 0, "11-28T02:00", 7, "nobody was there"),
    ),
    "missed ones are skipped": (
        {**NIGHT, "missed": "skip"}, "11-20T02:00", "11-28T02:40", 0, None, 8, "nobody was there",
    ),
    "skipped ones do not keep one that is on time": (
        *({**NIGHT, "missed": "skip"}, "11-20T02:00", "11-28T02:00:10", 0, "11-28T02:00"),
        *(7, "nobody was there"),
    ),
    "within a day": (
        *({**NIGHT, "missed_within": DAY}, "11-27T02:00", "11-28T09:00", 0, "11-28T02:00", 0, ""),
    ),
    "the last one goes on": (
        *(NIGHT, "11-27T02:00", "11-28T02:00", 1, None, 1, "still going on"),
    ),
    "beside the last one": (
        *({**NIGHT, "overlap": "allow"}, "11-27T02:00", "11-28T02:00", 1, "11-28T02:00", 0, ""),
    ),
    "beside too many": (
        *({**NIGHT, "overlap": "allow"}, "11-27T02:00", "11-28T02:00", MOST_BESIDE, None, 1),
        "still going on",
    ),
    "in the place of the last one": (
        *({**NIGHT, "overlap": "replace"}, "11-27T02:00", "11-28T02:00", 1, "11-28T02:00", 0, ""),
    ),
    "the clock was put back": (NIGHT, "11-28T02:00", "11-27T02:00", 0, None, 0, ""),
    "and comes to the same time again": (NIGHT, "11-28T02:00", "11-28T02:00", 0, None, 0, ""),
    "the clock was put forward for years": (
        *({"cron": "* * * * *"}, "11-27T02:00", "12-27T02:00:01", 0, "12-27T02:00", 100),
        "nobody was there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_due(name):
    spec, since, now, going, begins, skipped, why = CASES[name]
    found = due(ScheduleSpec(**spec), "app/x", at(f"2026-{since}"), at(f"2026-{now}"), going=going)
    assert found.begin == (at(f"2026-{begins}") if begins else None)
    assert found.skipped == skipped
    assert why in found.why
    assert bool(found.why) == bool(skipped)


def test_a_clock_that_was_far_ahead_is_told():
    spec = ScheduleSpec(**NIGHT)
    found = due(spec, "app/x", at("2027-06-01T02:00"), at("2026-11-28T02:00"), going=0)
    assert "clock was put back" in found.note
    assert next_due(spec, "app/x", at("2027-06-01T02:00"), at("2026-11-28T02:00")) == at(
        "2027-06-02T02:00"
    )


def test_a_zone_that_is_gone_is_said():
    with pytest.raises(NoZone):
        due(ScheduleSpec(cron="0 2 * * *", timezone="No/Where"), "a/b", 0.0, NOON, going=0)
