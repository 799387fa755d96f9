"""A state file put back from a copy: nothing that runs ends before somebody has decided.

The whole controller over SQLite, and one simulated agent on a real socket.
"""

from __future__ import annotations

import asyncio
import shutil

import pytest

from tests.orchestrator.test_controller import agent, all_ready, config, running

__all__ = ["agent", "config"]


def copy(config, name):
    """Copy the state of a controller that has ended aside."""
    shutil.copytree(config.folder, config.folder.with_name(name))


def put_back(config, name):
    for path in config.folder.glob("state.db*"):
        path.unlink()
    for path in config.folder.with_name(name).glob("state.db*"):
        shutil.copy(path, config.folder)


def project(stack, replicas=1, image="nginx"):
    return {
        "name": stack,
        "services": {"web": {"image": image, "deploy": {"replicas": replicas}}},
    }


async def deploy(client, stack, key, replicas=1, image="nginx"):
    await client.call(
        "POST",
        f"/v1/stacks/{stack}/releases",
        json={"key": key, "project": project(stack, replicas, image)},
    )
    await client.until(f"/v1/stacks/{stack}/tasks", all_ready(replicas))
    await client.until(
        f"/v1/stacks/{stack}/releases",
        lambda a: all(r["state"] in ("deployed", "superseded") for r in a["releases"]),
    )


async def refused(client, method, path, **more):
    async with client.http.request(method, path, **more) as answer:
        assert answer.status == 409, await answer.text()
        return (await answer.json())["detail"]


def alive(agent):
    return {task: process.pid for task, process in agent.simulated.containers.alive.items()}


@pytest.fixture
async def older(config, agent):
    """Put a copy back in place: shop has grown, new came and blog has gone since it was made."""
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await deploy(client, "shop", "s1", 1)
        await deploy(client, "blog", "b1", 1)
    copy(config, "copy")
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        await deploy(client, "shop", "s2", 3, "nginx:2")
        await deploy(client, "new", "n1", 2)
        await client.call("DELETE", "/v1/stacks/blog")
        await client.until(
            "/v1/stacks", lambda a: {s["name"] for s in a["stacks"]} == {"shop", "new"}
        )
        async with asyncio.timeout(300):
            while set(agent.objects.stacks) != {"shop", "new"}:
                await asyncio.sleep(0.01)
    put_back(config, "copy")
    return alive(agent)


async def settled(client):
    return await client.until("/v1/state", lambda a: a.get("behind"))


async def test_an_older_state_serves_reads_and_changes_nothing(config, agent, older):
    count = len(agent.received)
    async with running(config) as client:
        state = await settled(client)
        for words in ("shop is older here", "new is not known here", "state adopt"):
            assert words in state["behind"]
        names = {s["name"] for s in (await client.call("GET", "/v1/stacks"))["stacks"]}
        assert names == {"shop", "blog"}, "reads are served"
        body = {"key": "x", "project": project("shop")}
        for method, path, more in (
            ("POST", "/v1/stacks/shop/releases", {"json": body}),
            ("POST", "/v1/stacks/shop/scale", {"json": {"services": {"web": 0}}}),
            ("DELETE", "/v1/stacks/shop", {}),
        ):
            assert "Nothing is changed" in await refused(client, method, path, **more)
        assert len(state["stops"]) == 5, "all that the copy does not know"
        await asyncio.sleep(0.5)
    assert alive(agent) == older, "law: nothing ends"
    assert len(agent.received) == count, "law: no agent is told anything"


async def test_adopt_takes_over_what_runs(config, agent, older):
    async with running(config) as client:
        await settled(client)
        answer = await client.call("POST", "/v1/state/adopt")
        said = "; ".join(answer["done"])
        for words in ("stack shop: brought up to date", "stack new: taken over", "stack blog"):
            assert words in said
        assert (await client.call("GET", "/v1/nodes"))["undecided"] == "", "law: told at once"
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        for stack, count in (("shop", 3), ("new", 2)):
            await client.until(f"/v1/stacks/{stack}/tasks", all_ready(count))
        await asyncio.sleep(1.0)
        assert alive(agent) == older, "law: the same processes"
        rows = {s["name"]: s for s in (await client.call("GET", "/v1/stacks"))["stacks"]}
        assert (rows["shop"]["release"], rows["new"]["release"]) == (2, 1)
        assert rows["blog"]["status"] == "stopped", "what runs nowhere is kept, and not begun"
        assert (await client.call("GET", "/v1/state"))["behind"] == ""
        # And it is a state like any other: the same file changes nothing, another one does.
        await deploy(client, "shop", "s3", 3, "nginx:2")
        assert alive(agent) == older, "the same spec has the same hash"
        await client.call("POST", "/v1/stacks/shop/scale", json={"services": {"web": 1}})
        await client.until("/v1/stacks/shop/tasks", all_ready(1))
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        assert (await client.call("GET", "/v1/state"))["behind"] == ""


async def test_discard_goes_by_the_copy(config, agent, older):
    async with running(config) as client:
        await settled(client)
        answer = await client.call("POST", "/v1/state/discard")
        assert any("is stopped" in line for line in answer["done"])
        await client.until("/v1/stacks/shop/tasks", all_ready(1))
        await client.until("/v1/stacks/blog/tasks", all_ready(1))
        async with asyncio.timeout(300):
            while len(alive(agent)) != 2 or set(alive(agent)) & set(older):
                await asyncio.sleep(0.01)
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        assert (await client.call("GET", "/v1/state"))["behind"] == "", "asked once"


async def test_a_state_that_is_gone_is_filled_again(config, agent):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await deploy(client, "shop", "s1", 2)
        (row,) = (await client.call("GET", "/v1/nodes"))["nodes"]
    before = alive(agent)
    for path in config.folder.glob("state.db*"):
        path.unlink()
    async with running(config) as client:
        state = await settled(client)
        assert "shop is not known here" in state["behind"]
        assert len(state["stops"]) == 2
        await refused(client, "DELETE", "/v1/stacks/shop")
        await asyncio.sleep(0.5)
        assert alive(agent) == before, "law: an empty store ends nothing"
        await client.call("POST", "/v1/state/adopt")
        await client.until("/v1/stacks/shop/tasks", all_ready(2))
        found = await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        assert [n["id"] for n in found["nodes"]] == [row["id"]]
        await deploy(client, "shop", "s2", 2)
        assert alive(agent) == before, "law: the same processes"
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        assert (await client.call("GET", "/v1/state"))["behind"] == ""


async def test_an_answer_nobody_asked_for_is_refused(config, agent):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        for what in ("adopt", "discard"):
            detail = await refused(client, "POST", f"/v1/state/{what}")
            assert "nothing to decide" in detail


async def test_an_ordinary_restart_asks_nothing(config, agent):
    for number in range(3):
        async with running(config) as client:
            await client.until(
                "/v1/nodes", lambda a: a["nodes"] and a["nodes"][0]["status"] == "ready"
            )
            await deploy(client, "shop", f"k{number}", number + 1)
            assert (await client.call("GET", "/v1/state"))["behind"] == ""
