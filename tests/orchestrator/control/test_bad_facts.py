"""One bad stored fact stops one stack, in words; the others go on."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.stack import Placement
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


def service(spec, **update):
    web = spec.services["web"].model_copy(update=update)
    return spec.model_copy(update={"services": {**spec.services, "web": web}})


def network(spec, **update):
    found = {k: n.model_copy(update=update) for k, n in spec.networks.items()}
    return spec.model_copy(update={"networks": found})


def task(spec, **update):
    return service(spec, task=spec.services["web"].task.model_copy(update=update))


def fixed(spec, address):
    attached = spec.services["web"].task.networks[0].model_copy(update={"ipv4_address": address})
    return task(spec, networks=(attached,))


# what an earlier version, or a hand, may have stored; what is said of it ("": it does no harm)
FACTS = {
    "a subnet that is none": (lambda s: network(s, subnets=("10.0.0.0/33",)), "is not a subnet"),
    "a subnet of words": (lambda s: network(s, subnets=("x",)), "is not a subnet"),
    "a reserved subnet": (lambda s: network(s, subnets=("127.0.0.0/8",)), "cannot be a network's"),
    "an address that is none": (lambda s: fixed(s, "10.0.0.300"), "is not an IPv4 address"),
    "a constraint that is none": (
        lambda s: service(s, placement=Placement(constraints=("nonsense",))),
        "is not of the form KEY == VALUE",
    ),
    "one of a global service": (
        lambda s: service(s, mode="global", placement=Placement(constraints=("a.b == c",))),
        "is not something nodes have",
    ),
    "a preference that is none": (
        lambda s: service(s, placement=Placement(preferences=("nonsense",))),
        "",
    ),
    "fewer than no replicas": (lambda s: service(s, replicas=-3), ""),
    "an image that is none": (lambda s: task(s, image="x@@y", image_digest="nonsense"), ""),
    "labels of any kind": (lambda s: task(s, labels={"": "\x1b"}), ""),
    "a network that is not there": (lambda s: s.model_copy(update={"networks": {}}), "not there"),
}


@pytest.mark.parametrize("fact", FACTS)
async def test_a_bad_fact_stops_its_stack_alone_and_says_why(fact):
    change, words = FACTS[fact]
    async with Rig(nodes=2) as rig:
        rig.agents.delay = 5.0
        await rig.up(project(web=replicas(2)), stack="bad")
        digest = rig.cluster.releases[("bad", 1)].spec
        spec = change(rig.cluster.parts[digest])
        await rig.store.txn((), (Put(keys.part(digest), spec.encode()),))
        await rig.until(lambda: rig.cluster.parts[digest] == spec)
        rig.agents.delay = 0.0
        await rig.up(project(web=replicas(2)), stack="good")
        await rig.until(
            lambda: len([t for t in rig.cluster.by_stack["good"].values() if t.status.ready]) == 2
        )

        def said():
            release = rig.cluster.releases[("bad", 1)]
            tasks = rig.cluster.by_stack["bad"].values()
            return [release.reason, *(t.pending_reason for t in tasks)]

        if words:
            await rig.until(lambda: any(words in text for text in said()), within=60)
        else:
            await asyncio.sleep(30)
        # The loop is alive, for the good stack and for the bad one's end.
        await rig.control.scale("good", {"web": 3})
        await rig.until(
            lambda: len([t for t in rig.cluster.by_stack["good"].values() if t.status.ready]) == 3
        )
        await rig.control.remove("bad", volumes=False, timeout=0)
        await rig.until(lambda: "bad" not in rig.cluster.stacks, within=120)


async def test_a_mistake_of_ours_is_said_and_fails_the_release_after_a_while(monkeypatch, caplog):
    from orchestrator.control.planning import stacks

    real = stacks.plan_services

    def broken(pass_, stack, target):
        if stack.name == "bad":
            raise KeyError("a mistake")
        return real(pass_, stack, target)

    monkeypatch.setattr(stacks, "plan_services", broken)
    async with Rig(nodes=1) as rig:
        await rig.up(project(web=replicas(1)), stack="bad")
        await rig.up(project(web=replicas(1)), stack="good")
        await rig.until(lambda: rig.cluster.releases[("good", 1)].state == "deployed")
        await rig.until(lambda: rig.cluster.releases[("bad", 1)].state == "failed", within=60)
        assert "a mistake of corral (KeyError)" in rig.cluster.releases[("bad", 1)].reason
        assert "planning failed" in caplog.text
