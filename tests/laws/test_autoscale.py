"""Laws of the number of tasks by what they use: scheduler.autoscale."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.autoscale import TOLERANCE, Measured, Remembered, decide
from specs.autoscale import AutoscaleSpec

LOOK = 15.0

specs = st.builds(
    lambda least, more, cpu, memory, cooldown: AutoscaleSpec(
        least=least, most=least + more, cpu=cpu, memory=memory, cooldown=cooldown
    ),
    st.integers(1, 4),
    st.integers(0, 30),
    st.sampled_from([0.5, 0.7, 1.0]),
    st.sampled_from([None, 0.8]),
    st.sampled_from([0.0, 60.0, 300.0]),
)
loads = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), min_size=1, max_size=12)


def seen(count, load, **more):
    """A service whose tasks share a load that does not depend on how many they are."""
    cpu, memory = load
    used = {"cpu": cpu / count, "memory": memory / count}
    return Measured(count=count, ready=count, tasks=count, used=used, **more)


@given(specs, st.integers(1, 40), loads)
def test_it_stays_within_bounds_and_comes_to_rest(spec, count, loads):
    known, now = Remembered(), 0.0
    for load in loads:
        changes = []
        for _ in range(60):
            verdict, known = decide(spec, seen(count, load), known, now)
            if verdict.count is not None:
                assert verdict.count != count, "law: a change is one"
                assert verdict.why
                assert spec.least <= verdict.count <= spec.most, "law: within its bounds"
                changes.append((now, verdict.count))
                count = verdict.count
            now += LOOK
        assert len(changes) <= 3, f"law: under a load that stays it comes to rest: {changes}"
        ups = [b > a for (_, a), (_, b) in itertools.pairwise(changes)]
        assert len(set(ups)) <= 1, "law: it does not swing"
        asked = max(load[0] / spec.cpu, load[1] / spec.memory if spec.memory else 0.0)
        enough = math.ceil(asked - 1e-9)
        low = min(max(math.ceil(asked / (1 + TOLERANCE) - 1e-9), spec.least), spec.most)
        assert count >= low, "law: in the end there are enough"
        if count > max(spec.least, enough):
            assert asked / count >= 1 - TOLERANCE - 1e-9, "law: and not many more than enough"


@given(specs, st.integers(0, 40), loads)
def test_who_set_a_number_is_not_fought(spec, count, loads):
    known, now = Remembered(), 0.0
    for number, load in enumerate(loads):
        one = seen(max(count, 1), load, by_hand=True)
        verdict, known = decide(spec, one, known, now)
        assert verdict.count is None, "law: what somebody set stays for `hold`"
        now += spec.hold / (len(loads) + 1)
        assert number * spec.hold / (len(loads) + 1) < spec.hold


CPU = AutoscaleSpec(least=2, most=8, cpu=0.7, memory=0.8, cooldown=60.0)
QUIET = Remembered(changed=-1000.0)
# what is seen, what was before -> the number, and what is said
CASES = {
    "as wanted": (Measured(4, 4, 4, {"cpu": 0.7}), QUIET, None, "CPU at 70% of 70%"),
    "a little more": (Measured(4, 4, 4, {"cpu": 0.76}), QUIET, None, "CPU at 76%"),
    "too much": (Measured(4, 4, 4, {"cpu": 0.95}), QUIET, 6, "CPU at 95% of 70%"),
    "far too much": (Measured(4, 4, 4, {"cpu": 4.0}), QUIET, 8, "CPU at 400%"),
    "memory asks for more": (
        *(Measured(4, 4, 4, {"cpu": 0.1, "memory": 0.95}), QUIET, 5, "memory at 95% of 80%"),
    ),
    "just changed": (
        *(Measured(4, 4, 4, {"cpu": 0.95}), Remembered(changed=-10.0), None, "it cools down"),
    ),
    "too little, for a moment": (Measured(4, 4, 4, {"cpu": 0.1}), QUIET, None, "fewer would do"),
    "too little for long": (
        *(Measured(4, 4, 4, {"cpu": 0.1}), Remembered(-1000.0, None, ((-61.0, 2), (-20.0, 3)))),
        *(3, "CPU at 10%"),
    ),
    "fewer than its file says": (Measured(1, 1, 1, {"cpu": 0.1}), QUIET, 2, "at least 2"),
    "more than its file says": (Measured(9, 0, 0), QUIET, 8, "at most 8"),
    "some are not ready": (Measured(4, 3, 3, {"cpu": 0.95}), QUIET, None, "3 of 4 tasks are ready"),
    "some are not measured": (Measured(4, 4, 3, {"cpu": 0.95}), QUIET, None, "3 of 4 ready tasks"),
    "updated": (
        Measured(4, 4, 4, {"cpu": 0.95}, updating=True),
        QUIET,
        None,
        "update is under way",
    ),
    "scaled to 0": (Measured(0), QUIET, None, "scaled to 0"),
    "by hand": (Measured(4, 4, 4, {"cpu": 0.95}, by_hand=True), QUIET, None, "by hand"),
    "by hand, long ago": (
        *(Measured(4, 4, 4, {"cpu": 0.95}, by_hand=True), Remembered(-1000.0, -700.0)),
        *(6, "CPU at 95%"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_decided(name):
    one, before, count, words = CASES[name]
    verdict, _ = decide(CPU, one, before, 0.0)
    assert verdict.count == count
    assert words in verdict.why
