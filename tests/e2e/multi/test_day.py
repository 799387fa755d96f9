"""The day of :mod:`tests.e2e.test_day`, on three hosts: nothing but the host's name differs."""

from __future__ import annotations

import pytest

from tests.e2e import day_files as files
from tests.e2e.day import Day
from tests.e2e.multi.cluster import FOLDER, NODES
from tests.e2e.test_day import STEPS

pytestmark = pytest.mark.real


@pytest.mark.timeout(900)
def test_the_day_on_three_hosts(cluster):
    cluster.folder = f"{FOLDER}/shop"
    addresses = [cluster.ip(name) for name in NODES]
    cluster.first.write(f"{cluster.folder}/compose.yaml", files.COMPOSE)
    Day(cluster.first, addresses, cluster.folder).run(STEPS)
