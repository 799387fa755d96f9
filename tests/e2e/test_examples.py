"""The examples, built and run for real; belongs to the slow lane, because builds cost minutes.

Each on one host: built from Debian's packages, brought up, its job done through its published
ports, updated or scaled meanwhile; its data outlives `down`, and `down -v` leaves nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.lab.host import CHECKOUT
from scripts import lab_mirror
from tests.e2e.cluster import FOLDER, Cluster
from tests.e2e.example_stacks import EXAMPLES, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab_fixtures import LabPool

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]
BASES = [sys.executable, str(CHECKOUT / "scripts/base_images.py"), "debian"]


def cached_base() -> None:
    """Have the base in the cache that lab hosts see: they reach no mirror but through ours."""
    cache = {"CORRAL_CACHE_DIR": "/var/cache/corral"}
    subprocess.run([*BASES, "--archive-only"], check=True, env={**os.environ, **cache})


@pytest.fixture
def one_host(lab_pool: LabPool) -> Iterator[Cluster]:
    """A cluster for one example: images and build cache go with it."""
    cached_base()
    lab = lab_pool.make(1, client=False)
    try:
        cluster = Cluster(lab.nodes[0])
        with lab_mirror.reachable(lab.nodes):
            cluster.env = {"http_proxy": lab_mirror.URL}  # builds have the agent's
            cluster.start()
            cluster.host.run(BASES, timeout=300)
            cluster.host.copy_in(CHECKOUT / "examples", f"{FOLDER}/examples")
            yield cluster
            left = cluster.clear()
            assert left == [], "left behind after `down -v`"
            cluster.stop()
    finally:
        lab.down()


@pytest.mark.parametrize("name", EXAMPLES)
def test_on_one_host(one_host: Cluster, name: str) -> None:
    live(Stage(one_host, one_host.host, ["127.0.0.1"]), name)


def live(stage: Stage, name: str) -> None:
    """Bring the example up, use it, update it, and take it down twice."""
    corral, example = stage.corral, EXAMPLES[name]()
    corral.folder = f"{FOLDER}/examples/{name}"
    stage.up()
    for service in example.services:
        assert stage.ready(service, name), f"{service} is ready"
    example.work(stage)
    example.update(stage)
    corral("down")
    volumes = corral("volume", "ls", "-q").stdout.split()
    assert volumes, "down keeps the data"
    stage.up()
    example.kept(stage)
    corral("down", "-v")
    assert corral("volume", "ls", "-q").stdout == ""
    assert name not in corral("ls", "-a").stdout
