"""``cluster``: three joined lab hosts shared by the multi-host tests, checked after each of them.

Joining costs seconds, so it is done once. Every test ends without stacks and with every host as
it was before the test; the last thing of the session is that the nodes leave, and that every
host is then as it was before it was a node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.multi.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab_fixtures import LabPool


class Shared:
    """The session's cluster, made anew after a test that left something."""

    def __init__(self, pool: LabPool) -> None:
        self.pool = pool
        self.cluster: Cluster | None = None

    def get(self) -> Cluster:
        if self.cluster is None:
            cluster = Cluster(self.pool.make(3))
            try:
                cluster.start()
            except BaseException:
                cluster.lab.down()
                raise
            self.cluster = cluster
        return self.cluster

    def discard(self) -> None:
        if self.cluster is not None:
            self.cluster.lab.down()
            self.cluster = None


@pytest.fixture(scope="session")
def shared(lab_pool: LabPool) -> Iterator[Shared]:
    shared = Shared(lab_pool)
    yield shared
    try:
        left = shared.cluster.stop() if shared.cluster is not None else []
    finally:
        shared.discard()
    assert not left, "left after the nodes were removed:\n" + "\n".join(left)


@pytest.fixture
def cluster(shared: Shared) -> Iterator[Cluster]:
    cluster = shared.get()
    yield cluster
    try:
        left = cluster.clear()
    except BaseException:
        shared.discard()
        raise
    if left:
        shared.discard()
        pytest.fail("left behind:\n" + "\n".join(left), pytrace=False)
