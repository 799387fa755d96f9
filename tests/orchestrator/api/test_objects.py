"""Networks, volumes, secrets and configs over HTTP: lists, one, make, remove, refusals."""

from __future__ import annotations

import asyncio
import base64

import pytest

from orchestrator.api import objects
from orchestrator.errors import Conflict
from specs.objects import (
    ContentRow,
    ContentRows,
    CreateContent,
    CreateNetwork,
    CreateVolume,
    NetworkRow,
    NetworkRows,
    VolumeRow,
    VolumeRows,
)

DATA = base64.b64encode(b"x").decode()
KINDS = {
    "network": (CreateNetwork(name="n"), "networks"),
    "volume": (CreateVolume(name="n"), "volumes"),
    "secret": (CreateContent(name="n", data=DATA, secret=True), "contents"),
    "config": (CreateContent(name="n", data=DATA, secret=False), "contents"),
}


@pytest.fixture
def there(api):
    api.control.rows_of_networks = NetworkRows(networks=(NetworkRow(id="i", name="n"),))
    api.control.rows_of_volumes = VolumeRows(volumes=(VolumeRow(name="n"),))
    theirs = ContentRow(id="k", name="n", stack="shop")
    api.control.rows_of_contents = ContentRows(contents=(theirs, ContentRow(id="i", name="n")))
    return api


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_is_listed_shown_made_and_removed(there, kind):
    body, key = KINDS[kind]
    status, answer = await there.call("GET", f"/v1/{kind}s")
    assert (status, answer[key][0]["name"]) == (200, "n")
    status, answer = await there.call("GET", f"/v1/{kind}s/n")
    assert answer["name"] == "n"
    assert answer.get("id", "i") == "i", "what was made by hand comes before a stack's own"
    has = base64.b64decode(answer.get("data", ""))
    assert has == (b"what is in it" if kind == "config" else b""), "of a config alone"
    problem = await there.problem("GET", f"/v1/{kind}s/nope", 404)
    assert (problem["detail"], problem["hint"]) == (
        f"there is no {kind} nope",
        f"corral {kind} ls shows what there is",
    )
    _, answer = await there.call("POST", f"/v1/{kind}s", json=body.model_dump())
    assert answer == {"id": "o1", "name": "n"}
    assert there.control.calls[-1] == ("make", body)
    there.control.rows_of_volumes = VolumeRows()
    _, answer = await there.call("DELETE", f"/v1/{kind}s/n")
    assert answer == {"name": "n", "left": "", "needed": ""}
    assert there.control.calls[-1] == ("drop", kind, "n")
    there.control.error = Conflict(f"{kind} n is in use by stack shop")
    problem = await there.problem("DELETE", f"/v1/{kind}s/n", 409)
    assert "in use" in problem["detail"]


async def test_a_secret_is_not_made_as_a_config(there):
    body = KINDS["secret"][0].model_dump()
    await there.problem("POST", "/v1/configs", 409, json=body)
    assert there.control.calls == []


GOING = {
    "its node does not answer": ("node beta does not answer", "node beta does not answer"),
    "it takes its time": ("being removed", "being removed"),
    "it is gone meanwhile": ("being removed", ""),
}


@pytest.mark.parametrize("case", GOING)
async def test_a_volume_is_answered_when_its_data_is_gone_or_with_the_reason(
    there, monkeypatch, case
):
    reason, left = GOING[case]
    slow = case == "it takes its time"
    monkeypatch.setattr(objects, "GOING", 0.2 if slow else 300.0)
    row = VolumeRow(name="n", removing=True, reason=reason)
    there.control.rows_of_volumes = VolumeRows(volumes=(row,))
    asked = asyncio.create_task(there.call("DELETE", "/v1/volumes/n"))
    if not left:
        while not there.control.calls:
            await asyncio.sleep(0.01)
        there.control.rows_of_volumes = VolumeRows()
    assert (await asked)[1] == {"name": "n", "left": left, "needed": ""}
