"""`corral doctor --bundle` against a whole controller: what a file hides stays hidden."""

from __future__ import annotations

import asyncio
import json

import pytest

from orchestrator.cli.main import main
from specs import load
from tests.orchestrator.test_checking import CANARY, SHOP
from tests.orchestrator.test_controller import agent, all_ready, config, running

__all__ = ["agent", "config"]


async def test_a_bundle_has_what_helps_and_no_secret(config, agent, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CORRAL_STATE_DIR", str(config.state_dir))
    (tmp_path / "compose.yaml").write_text(SHOP)
    project = await asyncio.to_thread(load, [tmp_path / "compose.yaml"])
    path = tmp_path / "bundle.json"
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        for name in ("key", "conf"):
            made = {"name": name, "data": "aHVudGVyMi1jYW5hcnk=", "secret": name == "key"}
            kind = "secrets" if name == "key" else "configs"
            await client.call("POST", f"/v1/{kind}", json=made)
        body = {"key": "k", "project": project.model}
        await client.call("POST", "/v1/stacks/shop/releases", json=body)
        await client.until("/v1/stacks/shop/tasks", all_ready(2))
        words = ["-H", f"unix://{config.socket}", "doctor", "--bundle", str(path)]
        code = await asyncio.to_thread(main, words)
    said = capsys.readouterr().out
    assert code == 0, said
    assert "ok      state: as new as what runs" in said
    assert "warning backups: none was made here" in said
    text = path.read_text()
    assert CANARY not in text, "law: wherever a file puts it"
    assert "aHVudGVyMi1jYW5hcnk" not in text
    assert path.stat().st_mode & 0o777 == 0o600
    found = json.loads(text)
    assert found["state"]["stacks"][0]["services"][0]["environment"] == ["PASSWORD"]
    assert found["figures"]['corral_tasks{state="running"}'] == 2
    assert [task["state"] for task in found["tasks"]["shop"]] == ["running", "running"]
    assert found["nodes"][0]["facts"]["kernel"] is not None


@pytest.mark.parametrize("words", [["doctor", "--format", "json"]])
async def test_its_findings_are_read_by_programs(config, agent, capsys, words):
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"] and a["nodes"][0]["status"] == "ready")
        await asyncio.to_thread(main, ["-H", f"unix://{config.socket}", *words])
    found = json.loads(capsys.readouterr().out)
    assert {"level", "what", "evidence", "fix"} == set(found[0])
