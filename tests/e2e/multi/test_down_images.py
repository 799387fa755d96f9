"""`down --rmi` where the images lie on several nodes: each of them removes what nobody else has."""

from __future__ import annotations

import pytest

from orchestrator.client.client import Client
from tests.e2e.multi.cluster import NODES

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
STACK = """
services:
  mine:
    build: .
    stop_grace_period: 0s
    deploy: {replicas: 3, update_config: {monitor: 0s}, placement: {max_replicas_per_node: 1}}
  named:
    build: {context: ., args: {WORD: named}}
    image: shop/named:1
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.hostname == n2]}}
"""
OTHER = """
services:
  user:
    image: shop/named:1
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.hostname == n3]}}
"""
DOCKERFILE = """\
FROM busybox
ARG WORD=mine
RUN echo $WORD in TURN > /word
CMD ["sleep", "inf"]
"""


def images(cluster, node):
    """Return digest -> names of the images a node has."""
    agent = Client(f"unix:///proc/{cluster.host(node).pid}/root/run/corral/agent.sock")
    found = agent.get("/v1/images")["images"]
    return {image["digest"]: tuple(image.get("names") or ()) for image in found}


def brought_up(cluster):
    """Bring the stack up twice, the second time of other images; return the nodes' images."""
    for turn in ("1", "2"):
        cluster.compose(STACK, Dockerfile=DOCKERFILE.replace("TURN", turn))
        cluster("up", "-d", "--build", timeout=400)
    return {node: set(images(cluster, node)) for node in NODES}


def test_each_node_removes_the_images_of_a_removed_stack(cluster):
    cluster.folder = "/root"
    before = {node: set(images(cluster, node)) for node in NODES}
    had = brought_up(cluster)
    mine = had["n3"] - before["n3"]
    assert len(mine) == 2, "both builds"
    assert mine < had["n1"]
    assert mine < had["n2"]

    said = cluster("down", "-t", "0", "--rmi", "local").stderr
    assert "image app-mine removed on n1, n2, n3" in said, said
    assert "shop/named" not in said, said
    for node in NODES:
        left = images(cluster, node)
        assert not mine & set(left), node
        assert before[node] <= set(left), f"{node}: what was there before is nobody's to remove"
    assert "shop/named:1" in [name for names in images(cluster, "n1").values() for name in names]

    # What another stack, or a `run`, has anywhere stays everywhere, and who has it is said.
    brought_up(cluster)
    cluster.compose(OTHER, "other")
    cluster("up", "-d")
    folder, cluster.folder = cluster.folder, cluster.folder.replace("other", "app")
    said = cluster("down", "-t", "0", "--rmi", "all").stderr
    assert "image app-mine removed on n1, n2, n3" in said, said
    for node in NODES[:2]:
        assert f"image shop/named:1 stays on {node}: " in said, said
    assert "other" in said, said
    (row,) = cluster.rows("user", stack="other")
    cluster.folder = folder
    said = cluster("down", "-t", "0", "--rmi", "all").stderr
    assert "image shop/named:1 removed on n1, n2, n3" in said, said
    assert {node: set(images(cluster, node)) for node in NODES} == before
    assert row["node"] == "n3"
