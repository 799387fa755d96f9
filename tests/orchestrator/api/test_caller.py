"""Who asked is found out once for each request that is to change something, whatever its kind."""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
import time

import pytest

from orchestrator.api import app, caller
from specs.api import Version
from specs.kit.log import ASKED_BY

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def seen(monkeypatch):
    """Have every route only note whom what it did would be said to be of."""
    found = []

    async def handler(_parts, _request, _body):
        found.append(ASKED_BY.get())
        return Version(version="1")

    routes = [dataclasses.replace(r, handler=handler, body=None) for r in app.ROUTES]
    monkeypatch.setattr(app, "ROUTES", tuple(routes))
    return found


async def test_every_request_that_changes_something_has_its_asker(seen, api):
    for route in app.ROUTES:
        path = re.sub(r"\{[^}]*\}", "x", route.path)
        headers = {"Corral-By": "someone@laptop"}
        status, _ = await api.call(route.method, path, headers=headers)
        assert status == 200, route
        who = "" if route.method == "GET" else f"{ME} (someone)@laptop"
        assert seen.pop() == who, f"law: {route.method} {route.path} has one asker"
    assert ASKED_BY.get() == ""


async def test_an_event_and_a_release_have_the_same(api, monkeypatch):
    api.add_stack()
    found, deploy = [], api.control.deploy

    async def deployed(stack, asked):
        found.append((ASKED_BY.get(), asked.by.who))
        return await deploy(stack, asked)

    monkeypatch.setattr(api.control, "deploy", deployed)
    by = {"login": "bob", "host": "ci\x1b[2J"}
    body = {"key": "k1", "project": {"services": {}}, "by": by, "client": {"hostname": "n1"}}
    unnamed = {**body, "by": {}, "directory": "/shop\n"}
    path, laptop = "/v1/stacks/shop/releases", {"Corral-By": "someone@lap%0Atop"}
    assert (await api.call("POST", path, json=body, headers=laptop))[0] == 200
    assert (await api.call("POST", path, json=body))[0] == 200
    assert (await api.call("POST", path, json=unnamed))[0] == 200
    assert found == [
        (f"{ME} (someone)@lap top",) * 2,
        (f"{ME} (bob)@ci\N{REPLACEMENT CHARACTER}[2J",) * 2,
        (f"{ME}@n1",) * 2,
    ]
    assert api.control.calls[-1][-1].by.directory == "/shop "


async def test_a_slow_directory_service_holds_nobody_up(seen, api, monkeypatch):
    monkeypatch.setattr(caller, "NAMING", 0.01)
    monkeypatch.setattr(caller, "name_of", lambda _: time.sleep(0.5) or "late")
    assert (await api.call("DELETE", "/v1/stacks/shop"))[0] == 200
    assert seen == [f"uid {os.getuid()}"]
