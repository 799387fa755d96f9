"""One client, one source port, two nodes it comes in by: two connections to one task."""

from __future__ import annotations

import socket

import pytest

from tests.real.network.conftest import NODES, STRANGER
from tests.real.network.hosts import inside

pytestmark = pytest.mark.real
SOURCE = 20678  # no port the kernel gives by itself: one that just ended would hold it


@pytest.mark.parametrize("task", ["one-n1", "one-n2"])
def test_connections_by_two_nodes_with_the_same_source_port_do_not_mix(cluster, task):
    """A client chooses its port per destination: nothing keeps it from taking one twice."""
    _, port = cluster.front[task]

    def listen():
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("0.0.0.0", 8888))
        door.listen(8)
        door.settimeout(60)
        return door

    cluster.service(
        f"held-{task}", "net-a", [task], ports=[{"target": 8888, "published": port + 100}]
    )
    cluster.push()
    with inside(cluster.netns(task), listen) as door:
        links = []
        for node in ("n3", "n1", "n2"):
            link = inside(cluster.stranger.ns, socket.socket)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            link.settimeout(60)
            link.bind((STRANGER, SOURCE))
            link.connect((NODES[node], port + 100))
            other, (address, _) = door.accept()
            assert address == STRANGER
            links.append((link, other))
        # All three are open at once, and each says its own.
        for number, (link, other) in enumerate(links):
            link.sendall(f"to {number}".encode())
            assert other.recv(100) == f"to {number}".encode()
            other.sendall(f"from {number}".encode())
        for number, (link, other) in enumerate(links):
            assert link.recv(100) == f"from {number}".encode()
            link.close()
            other.close()
    del cluster.services[f"shop/held-{task}/net-a"]
    cluster.push()
