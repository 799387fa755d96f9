"""What `/v1/metrics` tells of a whole controller and one simulated agent."""

from __future__ import annotations

import json
import logging

from specs.kit.log import JsonFormatter
from tests.orchestrator.test_controller import agent, config, running
from tests.orchestrator.test_state import deploy
from tests.specs.test_metrics import parsed

__all__ = ["agent", "config"]


async def figures(client, path="/v1/metrics"):
    async with client.http.get(path) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parsed(await answer.text())


async def test_the_controller_tells_how_it_is(config, agent):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        before = await figures(client)
        assert before['corral_tasks{state="running"}'] == 0, "there before the first task is"
        await deploy(client, "shop", "s1", 2)
        found = await figures(client)
        node = (await client.call("GET", "/v1/nodes"))["nodes"][0]["name"]
        assert found['corral_tasks{state="running"}'] == 2
        assert found['corral_nodes{status="ready"}'] == 1
        assert found[f'corral_node_ready{{node="{node}"}}'] == 1
        assert found['corral_service_ready{stack="shop",service="web"}'] == 2
        assert found['corral_releases{state="deployed"}'] == 1
        assert found["corral_sessions"] == 1
        assert found["corral_brake"] == 0
        assert found["corral_pass_seconds_count"] > before["corral_pass_seconds_count"]
        assert found["corral_store_revision"] > before["corral_store_revision"]
        assert found["corral_epoch"] == 1
        assert found["corral_backup_made_seconds"] == 0
        async with client.http.get("/v1/nodes/nope/metrics") as answer:
            assert answer.status == 404
        async with client.http.get(f"/v1/nodes/{node}/metrics") as answer:
            assert answer.status == 503, "an agent of before tells none"
            assert "older corral" in (await answer.json())["detail"]


async def test_what_changes_something_is_logged_with_an_id(config, agent, caplog):
    caplog.set_level("INFO")
    formatter = JsonFormatter()
    lines = []

    class Kept(logging.Handler):
        def emit(self, record):
            lines.append(json.loads(formatter.format(record)))

    kept = Kept()
    logging.getLogger().addHandler(kept)
    try:
        async with running(config) as client:
            await client.until("/v1/nodes", lambda a: a["nodes"])
            await deploy(client, "shop", "s1", 1)
            async with client.http.delete("/v1/stacks/nope") as answer:
                assert answer.status == 404
                number = answer.headers["Corral-Request"]
            async with client.http.get("/v1/stacks") as answer:
                assert answer.headers["Corral-Request"] != number
    finally:
        logging.getLogger().removeHandler(kept)
    told = {(line["method"], line["path"]): line for line in lines if line["message"] == "request"}
    assert set(told) == {("POST", "/v1/stacks/shop/releases"), ("DELETE", "/v1/stacks/nope")}
    gone = told["DELETE", "/v1/stacks/nope"]
    assert (gone["status"], gone["request"]) == (404, number)
    assert all("request" not in line for line in lines if line["message"] == "connected")
