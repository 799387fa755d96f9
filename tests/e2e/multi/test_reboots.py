"""A host loses its power for a moment, or for long: what ran there runs again, and no more."""

from __future__ import annotations

import pytest

from tests.e2e.multi.cluster import NODES

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

# No service has a restart policy: the end of the host is not the end of what ran on it.
STACK = """
x-live: &live
  image: corral/debian-base:12
  command: [sleep, inf]
  init: true
services:
  plain: {<<: *live, deploy: {replicas: 3}}
  every: {<<: *live, deploy: {mode: global}}
  pinned:
    <<: *live
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.hostname == n3]}}
  kept:
    <<: *live
    x-corral: {on_reboot: keep}
    deploy: {placement: {constraints: [node.hostname == n3]}}
  front:
    <<: *live
    depends_on: [pinned]
    deploy: {placement: {constraints: [node.hostname == n3]}}
volumes: {data: {}}
"""
COUNTS = {"plain": 3, "every": 3, "pinned": 1, "front": 1}


def test_what_ran_on_a_restarted_host_runs_again(cluster):
    cluster.compose(STACK)
    cluster("up", "-d")
    before = placed(cluster)

    cluster.lab.power_off("n3")
    cluster.lab.power_on("n3")
    cluster.until("n3 has told of its end", lambda: kept(cluster) == ["failed"])
    cluster.until("all runs again", lambda: complete(cluster), 120)
    assert placed(cluster) == before, "the same tasks in the same places"
    cluster.until("no more than that", lambda: monitors(cluster) == sum(COUNTS.values()))
    for service in ("pinned", "front", "every"):
        row = next(r for r in cluster.rows(service) if r["node"] == "n3")
        cut, new = cluster.task(row)["status"]["runs"]
        assert (cut["reason"], new["reason"]) == ("the machine was restarted", "")

    cluster.lab.power_off("n3")
    cluster.until("n3 is down", lambda: cluster.nodes()["n3"]["status"] == "down")
    plain = lambda: [r for r in cluster.ready("plain") if r["node"] != "n3"]  # noqa: E731 - short
    cluster.until("the plain one is elsewhere", lambda: len(plain()) == 3)
    cluster.lab.power_on("n3")
    cluster.until("all runs again", lambda: complete(cluster), 120)
    assert placed(cluster) == before
    assert kept(cluster) == ["failed"]
    cluster.until("no more than that", lambda: monitors(cluster) == sum(COUNTS.values()))


def placed(cluster) -> dict[str, str]:
    """Return where each task is that may not move; a plain one moves once its node is down."""
    rows = cluster.rows()
    tied = set(COUNTS) - {"plain"}
    return {f"{r['service']} {r['id']}": r["node"] for r in rows if r["service"] in tied}


def complete(cluster) -> bool:
    rows = cluster.rows()
    return all(
        [r["ready"] for r in rows if r["service"] == service] == [True] * count
        for service, count in COUNTS.items()
    )


def kept(cluster) -> list[str]:
    rows = cluster.get("/v1/stacks/app/tasks", all=True)["tasks"]
    return [row["state"] for row in rows if row["service"] == "kept"]


def monitors(cluster) -> int:
    return sum(cluster.containers(node) for node in NODES)
