"""Two examples on three hosts: built on one, run and reached on all; belongs to the slow lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.lab.host import CHECKOUT
from scripts import lab_mirror
from tests.e2e.example_stacks import Stage
from tests.e2e.multi.cluster import FOLDER, NODES, Cluster
from tests.e2e.test_examples import BASES, cached_base, live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab_fixtures import LabPool

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def three_hosts(lab_pool: LabPool) -> Iterator[Cluster]:
    cached_base()
    lab = lab_pool.make(3)
    try:
        cluster = Cluster(lab)
        with lab_mirror.reachable([cluster.first]):
            cluster.env = {"http_proxy": lab_mirror.URL}
            cluster.start()
            cluster.first.run(BASES, timeout=300)
            cluster.first.copy_in(CHECKOUT / "examples", f"{FOLDER}/examples")
            yield cluster
            assert cluster.clear() == [], "left behind after `down -v`"
            assert cluster.stop() == [], "left behind after the nodes were removed"
    finally:
        lab.down()


@pytest.mark.parametrize("name", ["flask", "metrics"])
def test_on_three_hosts(three_hosts: Cluster, name: str) -> None:
    addresses = [three_hosts.ip(node) for node in NODES]
    live(Stage(three_hosts, three_hosts.client, addresses), name)
