"""The end of an answer arrives although its sender has ended and its network is to go."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.real.network.conftest import NODES
from tests.real.network.hosts import inside

pytestmark = pytest.mark.real
SIZE = 3_000_000


def answering(cluster):
    """Return a client's socket in whose way an answer is, and close the server's."""
    cluster.task("web", "n1", ["net-a"], number=2)
    ports = [{"target": 80, "published": 8080}]
    cluster.service("web", "net-a", ["web"], ports=ports)
    cluster.push()

    def listen():
        door = socket.socket()
        door.bind(("0.0.0.0", 80))
        door.listen(1)
        return door

    with inside(cluster.netns("web"), listen) as door:
        client = inside(cluster.stranger.ns, socket.socket)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(60)
        client.connect((NODES["n1"], 8080))
        link, _ = door.accept()
    with link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * SIZE)
        link.setblocking(False)
        sent = link.send(bytes(SIZE))
        assert sent > 200_000, "more than the client's side takes by itself"
    return client, sent


def test_a_slow_client_gets_all_of_it(single):
    client, sent = answering(single)
    gone = threading.Thread(target=lambda: single.host.call("detach", tasks=["web"]))
    gone.start()
    time.sleep(0.3)  # and only then takes the first of it
    seen = 0
    with client:
        while part := client.recv(65536):
            seen += len(part)
    gone.join()
    single.host.attached.discard("web")
    assert seen == sent


def test_one_that_reads_nothing_is_not_waited_for_long(single):
    client, _ = answering(single)
    with client:
        begun = time.monotonic()
        single.host.call("detach", tasks=["web"])
        took = time.monotonic() - begun
    single.host.attached.discard("web")
    assert 4.0 < took < 60.0
