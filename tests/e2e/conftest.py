"""``corral``: a running one-machine cluster; each test leaves it without a trace of its stacks.

Controller and agent are started once for all tests of the session, because that is half a
second each time. The last thing the session does is to take the machine out of its cluster
and to hold it against what it was before corral came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import leaks
from tests.e2e.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab_fixtures import LabPool

CHECKED = tuple(kind for kind in leaks.ALL if kind != "sysctls")  # some are changed for good
KEPT = (
    r"^files: /var/lib/corral/",
    r"^files: /etc/(group|gshadow)",
    r"^files: /var/lib/containers/",  # skopeo keeps a cache there of where layers were seen
)


class Running:
    """The session's cluster, renewed after a test that left something."""

    def __init__(self, pool: LabPool) -> None:
        self.pool = pool
        self.lab = None
        self.cluster: Cluster | None = None
        self.before: leaks.Snapshot = {}

    def get(self) -> Cluster:
        if self.cluster is None:
            self.lab = self.pool.make(1, client=False)
            (host,) = self.lab.nodes
            self.before = leaks.of_host(host, CHECKED)
            self.cluster = Cluster(host)
            self.cluster.start()
        return self.cluster

    def discard(self) -> None:
        if self.lab is not None:
            self.lab.down()
        self.lab = self.cluster = None


@pytest.fixture(scope="session")
def running_cluster(lab_pool: LabPool) -> Iterator[Running]:
    running = Running(lab_pool)
    yield running
    if running.cluster is None:
        return
    cluster = running.cluster
    try:
        cluster.stop()
        left = leaks.settled(
            lambda: leaks.of_host(cluster.host, CHECKED),
            running.before,
            kinds=CHECKED,
            allow=KEPT,
        )
    finally:
        running.discard()
    assert left == [], "a machine that left its cluster is as it was before"


@pytest.fixture
def corral(running_cluster: Running) -> Iterator[Cluster]:
    cluster = running_cluster.get()
    cluster.env = {}
    yield cluster
    try:
        left = cluster.clear()
    except BaseException:
        running_cluster.discard()
        raise
    if left:
        running_cluster.discard()
        pytest.fail("left behind after `down -v`:\n" + "\n".join(left), pytrace=False)
