"""`mode: host` ports that others hold: what is certain is said when the release is made."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


def on(port=8080, **more):
    """A service with a port of its machine."""
    long = {"target": 80, "published": str(port), "mode": "host", "protocol": "tcp", **more}
    return {"ports": [long]}


GLOBAL = {"deploy": {"mode": "global"}}
ON_1 = {"deploy": {"placement": {"constraints": ["node.hostname == host1"]}}}
UDP = on(protocol="udp")
OTHER_IP = on(host_ip="192.0.2.1")

CASES = {
    # nodes, what another stack has, what is asked for -> refused with, or warned of
    "held on the only node": (1, on(), on(), "already held by blog/web on host1", ""),
    "one of two is free": (2, on(), on(), "", ""),
    "held on all": (
        3,
        {**on(), **GLOBAL},
        on(),
        "already held by blog/web on host1, blog/web on host2, blog/web on host3",
        "",
    ),
    "held on more than are named": (5, {**on(), **GLOBAL}, on(), "and 2 more", ""),
    "too few are free": (
        2,
        on(),
        {**on(), **replicas(2)},
        "",
        "is free on 1 of 2 nodes, which is too few for the 2 copies of web: it is held by blog/web",
    ),
    "held where it must run": (2, {**on(), **ON_1}, {**on(), **ON_1}, "blog/web on host1", ""),
    "another protocol": (1, UDP, on(), "", ""),
    "another port": (1, on(8081), on(), "", ""),
    "the same address": (1, OTHER_IP, OTHER_IP, "already held by blog/web on host1", ""),
    "every address and one": (1, on(), OTHER_IP, "already held by blog/web on host1", ""),
    "published by every node": (2, on(mode="ingress"), on(), "held by blog/web on host1", ""),
    "no copies": (1, on(), {**on(), **replicas(0)}, "", ""),
    "nobody else": (1, {}, on(), "", ""),
    "sshd's": (1, {}, on(22), "port 22/tcp is reserved for the node itself", ""),
}


async def said(rig, asked, **more):
    """Return refusals and warnings of a release."""
    try:
        row = await rig.control.deploy("app", rig.request(asked, **more))
    except Invalid as refused:
        return "; ".join(p.message for p in refused.problems), ""
    return "", "; ".join(w.message for w in row.warnings)


@pytest.mark.parametrize("case", CASES)
async def test_what_others_hold_is_said_with_their_name(case):
    nodes, other, asked, refused, warned = CASES[case]
    async with Rig(nodes=nodes) as rig:
        await rig.up(project(web=other), stack="blog")
        await rig.deployed("blog")
        errors, warnings = await said(rig, project(web=asked))
        assert bool(errors) == bool(refused)
        assert refused in errors
        assert bool(warnings) == bool(warned)
        assert warned in warnings


async def test_what_the_release_replaces_holds_nothing():
    async with Rig() as rig:
        await rig.up(project(web=on()))
        await rig.deployed()
        assert await said(rig, project(web={**on(), "image": "web:2"})) == ("", "")
        await rig.deployed()


async def test_a_stopped_stack_holds_nothing():
    async with Rig() as rig:
        await rig.up(project(web=on()), stack="blog")
        await rig.deployed("blog")
        await rig.control.stop("blog", 0.0)
        assert await said(rig, project(web=on())) == ("", "")


async def test_two_of_one_file_on_one_node():
    async with Rig() as rig:
        errors, _ = await said(rig, project(web=on(), api=on()))
        assert "port 8080/tcp of the machine is also asked for by " in errors
        assert await said(rig, project(web=on(), api=on(8081))) == ("", "")
    async with Rig(nodes=2) as rig:
        assert await said(rig, project(web=on(), api=on())) == ("", "")


async def test_a_process_that_holds_it_is_named_as_one():
    async with Rig(nodes=2) as rig:
        rig.agents.listens = {"n1": ("8080/tcp",), "n2": ()}
        assert await said(rig, project(web=on())) == ("", "")
        await rig.deployed()
        rig.agents.listens = {"n1": ("8080/tcp", "9090/tcp"), "n2": ("9090/tcp",)}
        errors, _ = await said(rig, project(web=on(9090)))
        assert "already held by a process on host1, a process on host2" in errors


async def test_what_clashes_does_not_stop_another_service():
    async with Rig() as rig:
        await rig.up(project(web=on()), stack="blog")
        await rig.deployed("blog")
        assert await said(rig, project(web=on(), api={}), services=("api",)) == ("", "")
        await rig.deployed()
