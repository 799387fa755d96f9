"""Without a controller: nodes stop using a host that died, and use it again when it is back."""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.e2e.multi.cluster import NODES

if TYPE_CHECKING:
    from tests.e2e.multi.cluster import Cluster

pytestmark = pytest.mark.real
PORT = 9080
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [python3, -u, -I, /slow.py, serve, "80"]
    init: true
    ports: ["9080:80"]
    stop_grace_period: 0s
    configs: [{source: slow, target: /slow.py}]
    deploy: {replicas: 3}
    healthcheck: {test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, start_period: 20s, start_interval: 200ms}
configs: {slow: {file: ./slow.py}}
"""
PATIENCE = 2.0  # seconds one request may take; less, and a busy machine is a fault
SETTLED = 120.0  # seconds at most until nothing fails any more, on a busy machine


class Requests:
    """One request after the other to some hosts; when one failed, and who answered when."""

    def __init__(self, cluster: Cluster, hosts: list[str]) -> None:
        self.cluster, self.hosts = cluster, hosts
        self.failed: list[tuple[float, str]] = []
        self.answered: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(host,)) for host in hosts]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, host: str) -> None:
        address = self.cluster.ip(host)
        with self.cluster.client.network():
            while not self._stop.is_set():
                begun = time.monotonic()
                try:
                    with socket.create_connection((address, PORT), PATIENCE) as link:
                        link.settimeout(PATIENCE)
                        link.sendall(b"GET /0 HTTP/1.1\r\nHost: web\r\n\r\n")
                        data = b""
                        while not data.endswith(b"ok\n"):
                            more = link.recv(4096)
                            if not more:
                                raise ConnectionError("closed")
                            data += more
                    found = re.search(rb"X-Task: (\S+)", data)
                    self.answered.append((begun, found[1].decode() if found else ""))
                except OSError as error:
                    self.failed.append((begun, f"{host}: {error!r}"))
                time.sleep(0.01)

    def quiet(self, seconds: float) -> bool:
        """Say whether requests were answered and none failed for a while."""
        now = time.monotonic()
        since = max([now - 1000.0, *(at for at, _ in self.failed[-1:])])
        recent = [who for at, who in self.answered[-500:] if at > now - seconds]
        return now - since > seconds + PATIENCE and len(recent) > 10

    def seen(self, task: str, seconds: float = 2.0) -> bool:
        """Say whether a task answered lately."""
        now = time.monotonic()
        return any(who == task and at > now - seconds for at, who in self.answered[-500:])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["powered off", "cut off"])
def test_without_a_controller_a_dead_host_gets_no_new_connections(cluster, fault, capsys):
    cluster.compose(STACK)
    cluster("up", "-d")
    on = {row["node"]: row["name"] for row in cluster.ready("web")}
    assert sorted(on) == [*NODES]
    hosts = [cluster.ip("n1"), cluster.ip("n2")]
    cluster.until("every node answers", lambda: cluster.answering(hosts, PORT))
    with Requests(cluster, ["n1", "n2"]) as requests:
        cluster.until("n3 serves", lambda: requests.seen(on["n3"]))
        cluster.end_controller()
        cluster.until("nothing fails without a controller", lambda: requests.quiet(2.0))
        before = len(requests.failed)

        begun = time.monotonic()
        cluster.lab.power_off("n3") if fault == "powered off" else cluster.lab.cut("n3")
        off = time.monotonic()
        settled = lambda: requests.quiet(4.0) and not requests.seen(on["n3"], 4.0)  # noqa: E731
        cluster.until("nothing fails any more", settled, SETTLED)
        errors = [at for at, _ in requests.failed[before:]]
        took = max([0.0, *(at - begun for at in errors)])

        cluster.lab.power_on("n3") if fault == "powered off" else cluster.lab.heal("n3")
        back = cluster.until("n3 serves again", lambda: requests.seen(on["n3"]), 120)
        cluster.until("nothing fails again", lambda: requests.quiet(2.0), 60)
    with capsys.disabled():
        print(
            f"\nno controller, n3 {fault} (in {off - begun:.1f} s): errors for {took:.1f} s, "
            f"{len(errors)} requests; used again {back:.1f} s after it was back",
            end="",
        )
    assert took < 60.0, "a deadline for a busy machine; the figure is printed"
