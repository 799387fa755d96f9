"""Pauses between tries: they double, have a longest one, start over, and are scattered by seed."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from specs.kit.backoff import Backoff, after, grown

SECONDS = st.floats(min_value=0.001, max_value=1000)


def test_pauses_double_up_to_the_longest_and_start_over() -> None:
    backoff = Backoff(0.5, 5.0)

    assert [backoff.pause() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]

    backoff.reset()

    assert backoff.pause() == 0.5


def test_without_a_longest_it_grows_on() -> None:
    backoff = Backoff(1.0)

    assert [backoff.pause() for _ in range(12)][-1] == 2048.0


def test_counted_failures_give_the_same_pauses() -> None:
    backoff = Backoff(0.5, 20.0)
    counted = [after(failures, first=0.5, longest=20.0) for failures in range(100)]

    assert counted == [0.0, *(backoff.pause() for _ in range(99))]


def test_a_first_pause_of_nothing_stays_nothing() -> None:
    assert grown(0.0, first=0.0, longest=60.0) == 0.0


@given(first=SECONDS, longest=SECONDS, tries=st.integers(1, 80), seed=st.integers())
def test_scattered_pauses_keep_the_bounds_and_the_seed(
    first: float, longest: float, tries: int, seed: int
) -> None:
    plain = Backoff(first, longest)
    one = Backoff(first, longest, rng=random.Random(seed))
    other = Backoff(first, longest, rng=random.Random(seed))
    for _ in range(tries):
        whole, pause = plain.pause(), one.pause()

        assert whole / 2 <= pause <= whole <= longest
        assert pause == other.pause()


@given(previous=SECONDS, first=SECONDS, longest=SECONDS)
def test_a_pause_never_shrinks_before_it_reaches_the_longest(
    previous: float, first: float, longest: float
) -> None:
    pause = grown(previous, first=first, longest=longest)

    assert pause == longest or pause >= max(previous, first)
