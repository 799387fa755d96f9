"""The simulation itself: a cluster without faults comes up and stays as it is wanted."""

from __future__ import annotations

from tests.sim.run import run


def test_without_faults_every_law_holds():
    found = run(1, only=())
    assert found.broken is None, found.words
    assert found.checks > 400
