"""Which images go with a stack, who else has them, and nodes that do not answer."""

from __future__ import annotations

import pytest

from orchestrator.api import images
from orchestrator.errors import NotFound
from specs.api import Release
from specs.oneoff import OneOff
from specs.stack import BuildSpec, ServiceSpec, StackSpec, TaskSpec
from specs.states import ReleaseState
from specs.task import Task

A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")
BUILD = BuildSpec(context="/src")


def service(name, image, *, build=None):
    return ServiceSpec(name=name, task=TaskSpec(image=image), build=build)


SHOP = {
    "web": service("web", "shop-web", build=BUILD),  # built, no name of the user's
    "api": service("api", "mine/api:1", build=BUILD),  # built under the user's name
    "twin": service("twin", "mine/api:1"),
    "db": service("db", "postgres:16"),
    "copy": service("copy", "shop-web"),  # names what `web` builds
}


def put(api, name, number, services, pins, **changes):
    spec = f"{name}-{number}"
    api.cluster.parts[spec] = StackSpec(name=name, services=services)
    api.cluster.releases[name, number] = Release(
        stack=name, number=number, spec=spec, state=ReleaseState.DEPLOYED, images=pins
    )
    stack = api.cluster.stacks.get(name) or images_stack(name)
    fields = {"release": number, "running": number, **changes}
    api.cluster.stacks[name] = stack.model_copy(update=fields)


def images_stack(name):
    from specs.api import Stack

    return Stack(name=name)


@pytest.fixture
async def shop(api):
    put(
        api, "shop", 1, {"web": SHOP["web"], "old": service("old", "redis:6")}, {"web": A, "old": D}
    )
    pins = {"web": B, "copy": B, "api": C, "twin": C, "db": D}
    put(api, "shop", 2, SHOP, pins)
    for node in ("n1", "n2"):
        await api.add_node(node)
    return api


def found(answer):
    return {one["name"]: one["digests"] for one in answer["images"]}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("?built=1", {"shop-web": [A, B]}),
        ("", {"mine/api:1": [C], "postgres:16": [D], "shop-web": [A, B]}),
    ],
)
async def test_the_images_of_a_stack_with_every_digest_they_had(shop, query, wanted):
    _, answer = await shop.call("GET", f"/v1/stacks/shop/images{query}")
    assert found(answer) == wanted


async def test_no_such_stack(shop):
    await shop.problem("GET", "/v1/stacks/nosuch/images", 404)


def oneoff(stack, digest, **changes):
    task = Task(
        id="o1", stack=stack, service="web", slot=1, name=f"{stack}-web-run-1", release=1,
        spec_hash="h",
    )  # fmt: skip
    spec = ServiceSpec(name="web", task=TaskSpec(image="shop-web", image_digest=digest))
    return OneOff(task=task, service=spec, **changes)


# what else is in the cluster -> who has B
def other_stack(api):
    put(api, "other", 1, {"x": service("x", "anything:1")}, {"x": B})


def older_release(api):
    other_stack(api)
    put(api, "other", 2, {"x": service("x", "anything:2")}, {"x": C})


def stopped_stack(api):
    other_stack(api)
    put(api, "other", 1, {"x": service("x", "a:1")}, {"x": B}, desired="stopped")


def removed_stack(api):
    put(api, "other", 1, {"x": service("x", "a:1")}, {"x": B}, desired="removed")


def leftover_release(api):
    other_stack(api)
    del api.cluster.stacks["other"]


def one_off(api):
    api.cluster.oneoffs["o1"] = oneoff("other", B)


def gone_one_off(api):
    api.cluster.oneoffs["o1"] = oneoff("other", B, gone_at=5.0)


@pytest.mark.parametrize(
    ("more", "who"),
    [
        (other_stack, "stack other"),
        (older_release, "stack other"),
        (stopped_stack, "stack other"),
        (removed_stack, None),
        (leftover_release, None),
        (one_off, "other-web-run-1 (corral run)"),
        (gone_one_off, None),
    ],
)
async def test_who_else_has_an_image(shop, more, who):
    asked = images.images_of(shop.cluster, "shop", built=True)
    put(shop, "shop", 2, SHOP, {"web": B}, desired="removed")
    more(shop)
    body = {"images": [one.model_dump(mode="json") for one in asked]}
    _, answer = await shop.call("POST", "/v1/images/forget", json=body)
    reason = f"{who} uses it" if who else ""
    assert answer["rows"] == [
        {"node": f"node-{node}", "image": "shop-web", "reason": reason} for node in ("n1", "n2")
    ]


async def test_a_stack_that_is_up_has_its_own(shop):
    body = {"images": [{"name": "shop-web", "digests": [B]}]}
    _, answer = await shop.call("POST", "/v1/images/forget", json=body)
    assert {row["reason"] for row in answer["rows"]} == {"stack shop uses it"}


async def test_a_node_that_is_away_is_named_and_not_waited_for(shop):
    shop.agents.away.add("n2")
    body = {"images": [{"name": "nobodys", "digests": []}]}
    _, answer = await shop.call("POST", "/v1/images/forget", json=body)
    here, away = answer["rows"]
    assert here == {"node": "node-n1", "image": "nobodys", "reason": ""}
    assert (away["node"], away["image"]) == ("node-n2", "")
    assert "not reached" in away["reason"]


async def test_no_images_ask_nobody(shop):
    _, answer = await shop.call("POST", "/v1/images/forget", json={"images": []})
    assert (answer["rows"], shop.agents.asked) == ([], [])


async def test_an_agent_of_an_older_version_is_named_with_what_to_do(shop):
    async def unknown():
        raise NotFound("node node-n1: answered 404")

    shop.agents.instead["n1"] = unknown
    body = {"images": [{"name": "nobodys", "digests": []}]}
    _, answer = await shop.call("POST", "/v1/images/forget", json=body)
    older, other = answer["rows"]
    assert (older["node"], "corral upgrade" in older["reason"]) == ("node-n1", True)
    assert other == {"node": "node-n2", "image": "nobodys", "reason": ""}
