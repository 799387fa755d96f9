"""Daemons are ended, hung or failed at every named place, under a stack that changes.

The laws are those of the fault model (N1-N8); tests/e2e/kills.py asserts them after every round.
A round that fails prints the command that plays it alone.
"""

from __future__ import annotations

import os
import random

import pytest

from specs.kit import failpoints
from tests.e2e.kills import Life, Round, command_of, drawn, kind_of, points

pytestmark = pytest.mark.real
HERE = "tests/e2e/test_failpoints.py"
ALONE = "CORRAL_ROUNDS"  # rounds to play instead, separated by semicolons


@pytest.fixture
def life(corral):
    life = Life(corral)
    life.begin()
    try:
        yield life
    finally:
        life.end()


def play(life: Life, rounds: list[Round], seed: str) -> None:
    for number, one in enumerate(rounds):
        try:
            life.play(one)
        except BaseException:
            print(f"round {number} of {seed}. Alone, and all of them up to there:")
            print(f"{ALONE}='{one}' python -m pytest {HERE} -k alone")
            earlier = "; ".join(map(str, rounds[: number + 1]))
            print(f"{ALONE}='{earlier}' python -m pytest {HERE} -k alone")
            print(life.tell())
            raise


@pytest.mark.skipif(ALONE not in os.environ, reason=f"plays what {ALONE} says")
@pytest.mark.timeout(3600)
def test_rounds_alone(life):
    play(life, [Round.parse(text) for text in os.environ[ALONE].split(";")], ALONE)


def test_every_place_is_reached(life):
    """Else the kills prove nothing: each of these is a place that a daemon comes to."""
    for command in ("change", "controller", "agent", "backup", "build", "restart"):
        life.play(Round(command))
    for daemon in ("controller", "agent"):
        wanted = set(points(daemon))
        life.corral.until(
            f"{daemon}: {sorted(wanted - life.been(daemon))}",
            lambda d=daemon, w=wanted: w <= life.been(d),
            20,
        )


@pytest.mark.timeout(900)
def test_twenty_kills_of_each(life):
    play(life, drawn(random.Random(20261128), 20), "seed 20261128")
    assert min(life.kills.values()) >= 15, f"the kills were real: {life.kills}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_many_kills_of_each(life, seed):
    play(life, drawn(random.Random(seed), 25), f"seed {seed}")
    print(f"kills: {life.kills}")


REFUSED = [
    (daemon, name)
    for daemon in ("controller", "agent")
    for name in points(daemon)
    if name in failpoints.FALLIBLE
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["error", "enospc"])
def test_an_effect_that_is_refused_at_every_place(life, kind):
    rounds = [
        Round(command_of(daemon, name), **{daemon: f"{name}:{kind}"}) for daemon, name in REFUSED
    ]
    play(life, rounds, kind)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("daemon", ["controller", "agent"])
def test_a_hang_at_every_place(life, daemon):
    rounds = [
        Round(command_of(daemon, name), **{daemon: f"{name}:hang"}) for name in points(daemon)
    ]
    play(life, rounds, f"hangs of the {daemon}")


def test_a_round_reads_as_it_is_written():
    rounds = drawn(random.Random(1), 60)
    assert [Round.parse(str(one)) for one in rounds] == rounds
    for daemon in ("controller", "agent"):
        named = [what for one in rounds for d, what in one.victims.items() if d == daemon]
        assert len(named) == 60, "each is killed in each round"
        assert set(points("controller")) <= {w for one in rounds for w in one.victims.values()}
    assert kind_of("0.31") == "kill"
    assert kind_of("a.b:error") == "error"
