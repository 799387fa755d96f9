"""The bench of a thousand nodes, with twenty: it runs, and finds what it says it finds."""

from __future__ import annotations

import pytest

from tests.bench.thousand.__main__ import CHANGES, Cluster, measure

NODES, STACKS, SERVICES = 20, 2, 10  # 200 tasks


@pytest.mark.timeout(300)
async def test_twenty_nodes_with_two_hundred_tasks(tmp_path):
    cluster = Cluster(NODES, tmp_path, services=SERVICES, heartbeat=1.0)
    async with cluster:
        found = await measure(cluster, STACKS, idle=0.5, rounds=1, changes=CHANGES[:2])
        running = [
            task["state"]
            for stack in ("app001", "app002")
            for task in (await cluster.get(f"/v1/stacks/{stack}/tasks"))["tasks"]
            if task["ready"]
        ]
        down = [n for n in (await cluster.get("/v1/nodes"))["nodes"] if n["status"] == "down"]
    assert running == ["running"] * 10 * SERVICES * STACKS
    assert [node["name"] for node in down] == ["n0001"]
    names = [figures.name for figures in found]
    assert names == ["all nodes met", "all stacks up", "idle", *CHANGES[:2], "a node lost"]
    assert all(figures.cpu >= 0 and figures.rss > 20 for figures in found)
    assert found[-1].note == "10 tasks"
