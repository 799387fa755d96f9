"""Which image each service gets, and how often it is made: a table, then the control loop."""

from __future__ import annotations

import pytest

from orchestrator.control.deploy.orders import orders, whole_name
from specs.stack import BuildSpec, ServiceSpec, TaskSpec
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

HERE = BuildSpec(context="/src")
OTHER = BuildSpec(context="/src", args={"TAG": "2"})


def service(name, image, build=None, pull_policy="missing"):
    task = TaskSpec(image=image)
    return ServiceSpec(name=name, task=task, build=build, pull_policy=pull_policy)


# services -> what is pulled, {services of a build: its names}, builds that are forced
TABLE = {
    "no build": ([service("a", "x:1"), service("b", "x:1")], {"x:1 missing": "ab"}, {}, ""),
    "an image a sibling builds": (
        [service("a", "x:1"), service("b", "x:1", HERE)],
        {},
        {"ab": ["x:1"]},
        "",
    ),
    "the same name, spelled otherwise": (
        [service("a", "docker.io/library/x"), service("b", "x:latest", HERE)],
        {},
        {"ab": ["x:latest"]},
        "",
    ),
    "another version than the sibling's": (
        [service("a", "x:2"), service("b", "x:1", HERE)],
        {"x:2 missing": "a"},
        {"b": ["x:1"]},
        "",
    ),
    "a sibling's, but always pulled": (
        [service("a", "x:1", pull_policy="always"), service("b", "x:1", HERE)],
        {"x:1 always": "a"},
        {"b": ["x:1"]},
        "",
    ),
    "a sibling's, never pulled": (
        [service("a", "x:1", pull_policy="never"), service("b", "x:1", HERE)],
        {},
        {"ab": ["x:1"]},
        "",
    ),
    "one image, three services": (
        [service(name, "x:1", HERE) for name in "abc"],
        {},
        {"abc": ["x:1"]},
        "",
    ),
    "one build, three names": (
        [service(name, f"app-{name}", HERE) for name in "abc"],
        {},
        {"abc": ["app-a", "app-b", "app-c"]},
        "",
    ),
    "two builds, two names": (
        [service("a", "x:1", HERE), service("b", "y:1", OTHER)],
        {},
        {"a": ["x:1"], "b": ["y:1"]},
        "",
    ),
    "two builds, one name": (
        [service("a", "x:1", HERE), service("b", "x:1", OTHER), service("c", "x:1")],
        {},
        {"a": ["x:1"], "bc": ["x:1"]},
        "ab",
    ),
    "pull_policy: build": (
        [service("a", "x:1", HERE, "build"), service("b", "y:1", OTHER)],
        {},
        {"a": ["x:1"], "b": ["y:1"]},
        "a",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_which_images_are_pulled_and_which_are_built(case):
    services, pulled, built, forced = TABLE[case]
    pulls, builds = orders(services, None)
    assert {f"{o.image} {o.policy}": "".join(o.services) for o in pulls} == pulled
    assert {"".join(o.services): list(o.images) for o in builds} == built
    assert "".join(o.services[0] for o in builds if o.forced) == forced


@pytest.mark.parametrize("asked", ["always", "never", "missing", "daily", None])
def test_the_command_line_says_how_to_pull_but_not_what_is_built(asked):
    services = [
        service("a", "x:1", pull_policy="never"),
        service("b", "y:1"),
        service("c", "y:1", HERE),
    ]
    pulls, builds = orders(services, asked)
    wanted = {"daily": "always", None: "never"}.get(asked, asked)
    assert [(o.image, o.policy) for o in pulls] == [("x:1", wanted)]
    assert [o.services for o in builds] == [("b", "c")]


@pytest.mark.parametrize(
    ("image", "whole"),
    [
        ("x", "x:latest"),
        ("docker.io/x:1", "x:1"),
        ("docker.io/library/x", "x:latest"),
        ("host:5000/x", "host:5000/x:latest"),
        ("x@sha256:1", "x@sha256:1"),
        ("me/x", "me/x:latest"),
    ],
)
def test_a_name_has_one_whole_form(image, whole):
    assert whole_name(image) == whole


async def built(rig, spec, **options):
    """Return the tags builds were started for, the digest of each service, and what was said."""
    started = []
    once = rig.agents.build

    async def build(node, request):
        started.append((request.tag, *request.build.tags))
        async for event in once(node, request):
            yield event

    rig.agents.build = build
    await rig.up(spec, **options)
    lines = [line.message async for line in rig.control.progress("app", None)]
    await rig.deployed()
    rig.agents.build = once
    return started, rig.release().images, lines


HOW = {"context": "/src", "dockerfile": "Dockerfile"}


@pytest.mark.looptime
async def test_three_services_one_build_and_a_user():
    async with Rig() as rig:
        rig.agents.missing |= {"x:1", "app-d"}
        made = {"image": "x:1", "build": HOW}
        spec = project(a={"image": "x:1"}, b=made, c=made, d={"image": "app-d", "build": HOW})
        started, images, lines = await built(rig, spec)
        assert "building x:1, with b" in lines
        assert started == [("x:1", "app-d")]
        assert images == dict.fromkeys("abcd", "sha256:built-x:1")
        assert ("x:1", "missing") not in rig.agents.asked  # no registry was asked
        started, _, _ = await built(rig, spec)
        assert started == []  # all is there


@pytest.mark.looptime
async def test_only_the_missing_name_of_a_build_is_made():
    async with Rig() as rig:
        rig.agents.missing |= {"app-b"}
        spec = project(a={"image": "app-a", "build": HOW}, b={"image": "app-b", "build": HOW})
        started, images, _ = await built(rig, spec)
        assert started == [("app-b",)]
        assert images == {"a": "sha256:app-a", "b": "sha256:built-app-b"}


@pytest.mark.looptime
async def test_two_builds_of_one_name_are_made_in_order_and_told():
    async with Rig() as rig:
        other = {**HOW, "args": {"TAG": "2"}}
        spec = project(
            a={"image": "x:1", "build": HOW},
            b={"image": "x:1", "build": other},
            c={"image": "x:1"},
        )
        started, images, lines = await built(rig, spec)
        assert started == [("x:1",), ("x:1",)]
        assert images["c"] == images["b"]
        assert any("each gets its own" in line for line in lines)
