"""The simulated cluster with an exclusive service: never two copies run, and one does at last."""

from __future__ import annotations

import pytest

from tests.sim.run import run

SEEDS = (1, 2, 3, 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_law_holds_with_an_exclusive_service(seed):
    found = run(seed, exclusive=True)
    assert found.broken is None, found.words
    assert any("sole" in line and " started " in line for line in found.trace)
