"""Endpoints move from node to node and the agent dies, while clients ask without a pause."""

import contextlib
import socket
import threading
import time

import pytest

from tests.real.network.conftest import NODES
from tests.real.network.hosts import ask, inside
from tests.real.network.states import vip

pytestmark = pytest.mark.real

FRONT, PORT = vip("net-a", 40), 8500
SETS = (["one-n1"], ["one-n1", "one-n2"], ["one-n2"], ["two-n2", "one-n2"])


PAUSE = 0.002  # between two questions of a client: without it they take the cores from the rest
ENOUGH = 25  # answers every client gets between two changes


class Clients:
    """Threads that ask until told to stop, and count what they got."""

    def __init__(self, ways):
        self.stop = threading.Event()
        self.good, self.bad = [0] * len(ways), []
        self.threads = [
            threading.Thread(target=self._run, args=(number, *way))
            for number, way in enumerate(ways)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, number, namespace, address, port):
        while not self.stop.wait(PAUSE):
            answer = ask(namespace, address, port)
            if isinstance(answer, str):
                self.bad.append((address, answer))
            else:
                self.good[number] += 1

    def go_on(self):
        """Return when every client got some more answers."""
        marks = [had + ENOUGH for had in self.good]
        deadline = time.monotonic() + 60
        while not all(has >= mark for has, mark in zip(self.good, marks, strict=True)):
            assert self.bad == []
            assert time.monotonic() < deadline, (self.good, marks)
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def place(cluster, tasks):
    ports = [{"target": 80, "published": PORT}]
    cluster.service("moving", "net-a", tasks, vip=FRONT, ports=ports)
    for name, host in cluster.hosts.items():
        host.call("apply", state=cluster.state(name))


def restart(cluster, node):
    host = cluster.hosts[node]
    host.kill()
    host.start()
    host.call("adopt", tasks=[t for t, (n, _) in cluster.tasks.items() if n == node])
    host.call("apply", state=cluster.state(node))


@pytest.fixture
def moving(cluster):
    place(cluster, SETS[0])
    yield cluster
    del cluster.services["shop/moving/net-a"]
    for name, host in cluster.hosts.items():
        host.call("apply", state=cluster.state(name))


def test_no_request_fails(moving):
    ways = [
        (moving.stranger.ns, NODES["n1"], PORT),
        (moving.stranger.ns, NODES["n2"], PORT),
        (moving.netns("two-n1"), FRONT, 80),
    ]
    with Clients(ways) as clients:
        for turn in range(1, 17):
            place(moving, SETS[turn % len(SETS)])
            if turn in (5, 11):
                restart(moving, "n1")
            clients.go_on()
    assert clients.bad == []


def test_open_connections_live_through_an_agents_restart(moving):
    def listen():
        made = socket.socket()
        made.bind(("0.0.0.0", 81))
        made.listen()
        return made

    ports = [{"target": 81, "published": PORT}]
    moving.service("moving", "net-a", ["one-n2"], vip=FRONT, ports=ports)
    for name, host in moving.hosts.items():
        host.call("apply", state=moving.state(name))
    with contextlib.ExitStack() as links:
        listener = links.enter_context(inside(moving.netns("one-n2"), listen))
        pairs = []
        for namespace, address, port in (
            (moving.stranger.ns, NODES["n1"], PORT),
            (moving.hosts["n1"].ns, "127.0.0.1", PORT),
            (moving.netns("two-n1"), FRONT, 81),
        ):
            client = links.enter_context(inside(namespace, socket.socket))
            client.settimeout(60)
            client.connect((address, port))
            pairs.append((client, links.enter_context(listener.accept()[0])))
        for node in ("n1", "n2"):
            restart(moving, node)
            for client, served in pairs:
                client.sendall(b"still")
                assert served.recv(10) == b"still"
                served.sendall(b"here")
                assert client.recv(10) == b"here"
