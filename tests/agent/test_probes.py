"""When to probe: Docker's meaning of the keys, plus early probes that cannot do harm."""

from __future__ import annotations

import pytest

from agent.tasks import probes
from specs.stack import Healthcheck
from specs.states import Health

CHECK = Healthcheck(test=("CMD", "x"), interval=30, start_period=60, start_interval=5)


def ages(check, health=Health.STARTING, until=120.0):
    age, found = 0.0, []
    while age < until:
        age += probes.delay(check, health, age)
        found.append(round(age, 3))
    return found


def test_early_probes_double_up_to_the_interval():
    assert ages(CHECK)[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 11.4]
    plain = Healthcheck(test=("CMD", "x"), interval=1)
    assert ages(plain, until=3)[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.6, 3.6]


def test_once_known_the_interval_rules():
    assert probes.delay(CHECK, Health.HEALTHY, 0.2) == 30
    assert probes.delay(CHECK, Health.UNHEALTHY, 5000) == 30


@pytest.mark.parametrize(
    ("health", "begun", "counted"),
    [
        (Health.STARTING, 0.1, False),
        (Health.STARTING, 40.0, False),
        (Health.STARTING, 60.0, True),
        (Health.HEALTHY, 0.5, True),
    ],
)
def test_which_failures_count(health, begun, counted):
    assert probes.counts(CHECK, health, begun) is counted
    no_period = Healthcheck(test=("CMD", "x"), interval=30)
    assert not probes.counts(no_period, Health.STARTING, 29)
    assert probes.counts(no_period, Health.STARTING, 30)


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (("CMD", "curl", "-f", "x"), ("curl", "-f", "x")),
        (("CMD-SHELL", "a && b"), ("/bin/sh", "-c", "a && b")),
        (("NONE",), ()),
    ],
)
def test_commands(test, argv):
    assert probes.command(Healthcheck(test=test)) == argv


def test_output_is_bounded():
    assert len(probes.verdict(1, "x" * 10_000)[1]) == 4096
