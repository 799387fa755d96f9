"""Keys of the Compose language on several hosts: the same questions, the services on two nodes."""

from __future__ import annotations

import pytest

from tests.e2e import keys

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def test_what_each_key_makes_of_a_container_on_another_node(cluster):
    cluster.compose(keys.STACK)
    cluster.first.write(f"{cluster.folder}/away.yaml", keys.AWAY)
    cluster("-f", "compose.yaml", "-f", "away.yaml", "up", "-d")

    def machine(service):
        (node,) = {row["node"] for row in cluster.rows(service)}
        host = cluster.host(node)
        return lambda script: host.run(["sh", "-c", script]).stdout.strip()

    assert {row["node"] for row in cluster.rows()} == {"n2", "n3"}
    keys.ask(cluster, machine)
