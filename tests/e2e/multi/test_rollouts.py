"""No request fails whatever way a service is updated: rolling, by canary, blue-green, and back.

About 200 quick requests a second and 50 slow ones, by the published port and by the VIP, on three
hosts. The fast lane's share is one pass over all ways; the slow lane goes on to 20,000 requests.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.multi.test_in_flight import FRONT, PORT, STACK, Traffic, judged

if TYPE_CHECKING:
    from tests.e2e.multi.cluster import Cluster

pytestmark = pytest.mark.real
ROLLING = {"update": "rolling"}
CANARY = {"canary": {"replicas": 1, "promote": "manual"}}
HALF = {"canary": {"weight": "50%"}}  # of the connections; one of four tasks
BLUE_GREEN = {"update": "blue-green", "keep_old": "1m"}


class Stage:
    """The stack, its traffic, and what answers."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.version = 0
        cluster.compose(FRONT, "front")
        cluster("up", "-d")
        cluster.compose(self.file(ROLLING))
        cluster("up", "-d")
        self.traffic = Traffic(cluster)
        cluster.until("every node answers", lambda: cluster.answering(self.traffic.ips, PORT))

    def file(self, ours: dict[str, Any]) -> str:
        """Return the file of the next version, updated in that way."""
        self.version += 1
        text = STACK.format(version=self.version, order="stop-first")
        ours_here = f"    x-corral: {json.dumps(ours)}\n    deploy:\n"
        return text.replace("    deploy:\n", ours_here).replace("parallelism: 1", "parallelism: 2")

    def up(self, ours: dict[str, Any]) -> str:
        text = self.file(ours)
        self.cluster.first.write(f"{self.cluster.folder}/compose.yaml", text)
        done = self.cluster("up", "-d")
        return done.stdout + done.stderr

    def rollout(self, *words: str) -> str:
        done = self.cluster("rollout", *words)
        return done.stdout + done.stderr

    def versions(self) -> set[int]:
        """Return the versions that answer on every node, each asked often enough to tell."""
        return set(self.answers(8))

    def answers(self, times: int) -> list[int]:
        """Return the version that answered each of so many requests to every node."""
        found = []
        with self.cluster.client.network():
            for ip in self.traffic.ips:
                for _ in range(times):
                    link = http.client.HTTPConnection(ip, PORT, timeout=10)
                    link.request("GET", "/0")
                    found.append(int(link.getresponse().getheader("X-Version") or 0))
                    link.close()
        return found

    def rolling(self) -> None:
        self.up(ROLLING)
        assert self.versions() == {self.version}

    def canary_promoted(self) -> None:
        before = {row["id"] for row in self.cluster.ready("web")}
        assert "1 canary of 3 beside the old tasks with 50 % of connections" in self.up(HALF)
        assert len({row["id"] for row in self.cluster.ready("web")} - before) == 1
        self.cluster.until("both answer", lambda: len(self.versions()) == 2)
        answers = self.answers(40)
        # Others ask meanwhile and take their places in the round robin: not to the very one.
        share = answers.count(self.version) / len(answers)
        assert 0.35 < share < 0.65, f"{share:.0%} of {len(answers)} connections"
        self.rollout("promote", "web")
        assert self.versions() == {self.version}

    def canary_abandoned(self) -> None:
        before, served = {row["id"] for row in self.cluster.ready("web")}, self.versions()
        self.up(CANARY)
        self.rollout("abort")
        assert {row["id"] for row in self.cluster.ready("web")} == before
        assert self.versions() == served

    def blue_green_and_back(self) -> float:
        before, served = {row["id"] for row in self.cluster.ready("web")}, self.versions()
        self.up(BLUE_GREEN)
        assert before < {row["id"] for row in self.cluster.ready("web")}, "the old set is kept"
        assert self.versions() == {self.version}
        begun = time.monotonic()
        self.rollout("abort", "-d")
        self.cluster.until("the old set", lambda: self.versions() == served, 20)
        took = time.monotonic() - begun
        assert before <= {row["id"] for row in self.cluster.ready("web")}, "the very same tasks"
        return took


def rounds(cluster: Cluster, capsys: Any, *, requests: int, slow: int, seconds: float) -> None:
    """Update in every way, again and again, until so many requests were made; none may fail."""
    stage = Stage(cluster)
    made = {"all": 0, "slow": 0}
    while made["all"] < requests or made["slow"] < slow:
        times = {}
        with stage.traffic.all(13, seconds) as figures:
            begun = time.monotonic()
            for step in (stage.rolling, stage.canary_promoted, stage.canary_abandoned):
                step()
                times[step.__name__] = f"{time.monotonic() - begun:.1f} s"
            back = stage.blue_green_and_back()
            times["blue-green"] = f"{time.monotonic() - begun:.1f} s, back in {back:.2f} s"
        judged(capsys, f"done at {times}", figures)
        made["all"] += sum(f["total"] for f in figures.values())
        made["slow"] += sum(f["total"] for way, f in figures.items() if way.startswith("slow"))
    with capsys.disabled():
        print(f"\n{made['all']} requests, {made['slow']} of them slow: 0 failed", end="")


@pytest.mark.timeout(600)
def test_no_request_fails_in_whatever_way_it_is_updated(cluster, capsys):
    rounds(cluster, capsys, requests=3000, slow=50, seconds=3.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_requests_over_every_way_of_updating(cluster, capsys):
    rounds(cluster, capsys, requests=20_000, slow=200, seconds=8.0)
