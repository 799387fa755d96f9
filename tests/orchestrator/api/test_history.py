"""History and differences over the socket; who asked is the kernel's word, not the request's."""

from __future__ import annotations

import os
import pwd

from specs.api import Release, Stack
from specs.made_by import MadeBy
from specs.stack import ServiceSpec, StackSpec, TaskSpec
from specs.states import ReleaseState


def three_releases(api):
    for number in (1, 2, 3):
        task = TaskSpec(image=f"web:{number}")
        spec = StackSpec(name="shop", services={"web": ServiceSpec(name="web", task=task)})
        api.cluster.parts[f"part-{number}"] = spec
        api.cluster.releases[("shop", number)] = Release(
            stack="shop",
            number=number,
            spec=f"part-{number}",
            state=ReleaseState.DEPLOYED,
            by=MadeBy(kind="up", user="anna", host="laptop"),
        )


async def test_the_newest_is_first_and_all_is_there_after_down(api):
    three_releases(api)
    status, answer = await api.call("GET", "/v1/stacks/shop/history")
    assert status == 200
    assert [row["number"] for row in answer["releases"]] == [3, 2, 1]
    assert answer["releases"][0]["changed"] == "web: image: web:2 -> web:3"
    assert answer["present"] is False
    api.cluster.stacks["shop"] = Stack(name="shop", release=3, running=2)
    _, answer = await api.call("GET", "/v1/stacks/shop/history?limit=1&service=web")
    assert [(row["number"], row["who"]) for row in answer["releases"]] == [(3, "anna@laptop")]


async def test_diff_takes_two_one_or_none(api):
    three_releases(api)
    api.cluster.stacks["shop"] = Stack(name="shop", release=3, running=2)
    for query, pair in (("", (2, 3)), ("?before=1", (1, 2)), ("?before=3&after=1", (3, 1))):
        _, answer = await api.call("GET", f"/v1/stacks/shop/diff{query}")
        assert (answer["before"], answer["after"]) == pair
        (change,) = answer["changes"]
        assert (change["old"], change["new"]) == (f"web:{pair[0]}", f"web:{pair[1]}")


async def test_what_is_not_kept_is_named(api):
    status, answer = await api.call("GET", "/v1/stacks/shop/history")
    assert (status, answer["detail"]) == (404, "there is no stack shop")
    three_releases(api)
    status, answer = await api.call("GET", "/v1/stacks/shop/diff?before=1&after=9")
    assert (status, answer["detail"]) == (404, "there is no release 9 of shop")
    assert "kept are 1 to 3" in answer["hint"]
    status, answer = await api.call("GET", "/v1/stacks/shop/history?service=nope")
    assert status == 404
    assert "no release of shop has a service nope (services: web)" in answer["detail"]
    del api.cluster.releases[("shop", 2)], api.cluster.releases[("shop", 3)]
    status, answer = await api.call("GET", "/v1/stacks/shop/diff")
    assert status == 404
    assert "there is only release 1 of shop" in answer["detail"]


async def test_who_asks_is_what_the_kernel_says(api):
    body = {
        "key": "k1",
        "project": {"name": "shop", "services": {}},
        "by": {"kind": "rollback", "user": "somebody else", "uid": 5, "message": "why not"},
    }
    status, _ = await api.call("POST", "/v1/stacks/shop/releases", json=body)
    assert status == 200
    (_, _, request), *_ = [call for call in api.control.calls if call[0] == "deploy"]
    me = os.getuid()
    assert request.by == MadeBy(kind="up", user=pwd.getpwuid(me).pw_name, uid=me, message="why not")


async def test_a_rollback_is_whose_the_kernel_says(api):
    body = {"key": "k1", "to": 2, "services": ["web"], "by": {"uid": 5, "message": "wrong prices"}}
    status, row = await api.call("POST", "/v1/stacks/shop/rollback", json=body)
    assert (status, row["number"], row["to"]) == (200, 9, 2)
    (_, stack, asked), *_ = [call for call in api.control.calls if call[0] == "rollback"]
    assert (stack, asked.to, asked.services) == ("shop", 2, ("web",))
    assert (asked.by.kind, asked.by.uid) == ("rollback", os.getuid())
    status, answer = await api.call("POST", "/v1/stacks/shop/rollback", json={"key": "k", "to": 0})
    assert status == 422
    assert "to" in str(answer)
