"""A subnet that covers what a node routes elsewhere is refused when the release is made."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

ROUTES = ("10.77.0.0/24 eth0", "10.8.0.0/16 tun0", "172.17.0.0/16 docker0")


def wanting(*subnets, **more):
    """A project with a network for each subnet, and its service on all of them."""
    nets = {
        f"n{number}": {"name": f"app_n{number}", "ipam": {"config": [{"subnet": subnet}]}, **more}
        for number, subnet in enumerate(subnets)
    }
    return project(web={"networks": dict.fromkeys(nets)}, top={"networks": nets})


CASES = {
    "the nodes' LAN": (["10.77.0.0/24"], "10.77.0.0/24, which node host2 routes to eth0"),
    "a part of it": (["10.77.0.128/25"], "which node host2 routes to eth0"),
    "around it": (["10.77.0.0/16"], "which node host2 routes to eth0"),
    "a VPN": (["10.8.3.0/24"], "10.8.0.0/16, which node host2 routes to tun0"),
    "another bridge": (["172.17.0.0/24"], "which node host2 routes to docker0"),
    "an address nodes meet at": (["192.0.2.0/24"], "192.0.2.1, an address of node host1"),
    "the cluster's range": (["10.210.99.0/24"], "the cluster's own range"),
    "another network's": (["172.30.0.0/16"], "172.30.0.0/24 of network blog_n0"),
    "another one of the file": (["10.9.0.0/24", "10.9.0.0/16"], "network n0 of this file"),
    "nobody's": (["10.9.0.0/24", "10.9.1.0/24"], ""),
}


async def refusals(rig, asked, stack="app"):
    try:
        row = await rig.control.deploy(stack, rig.request(asked))
    except Invalid as refused:
        return [f"{p.message}; {p.hint}" for p in refused.problems], []
    return [], [w.message for w in row.warnings]


async def test_what_is_not_free_is_refused_with_whose_it_is():
    async with Rig(nodes=2) as rig:
        node = rig.cluster.nodes["n2"]
        facts = node.facts.model_copy(update={"routes": ROUTES})
        await rig.put_node(node.with_facts(facts))
        other = wanting("172.30.0.0/24")
        other["networks"]["n0"]["name"] = "blog_n0"
        await rig.up(other, stack="blog")
        await rig.deployed("blog")
        for case, (subnets, words) in CASES.items():
            errors, _ = await refusals(rig, wanting(*subnets))
            assert bool(errors) == bool(words), case
            assert words in " ".join(errors), case
            if words:
                assert "write 10.99." in errors[0] or "write 172.16." in errors[0], case


async def test_an_external_network_is_its_owners_matter():
    async with Rig() as rig:
        asked = wanting("192.0.2.0/24", external=True)
        errors, _ = await refusals(rig, asked)
        assert ["does not exist" in error for error in errors] == [True], (
            "nothing else is asked of it"
        )


async def test_what_exists_already_stays_possible_to_update():
    async with Rig() as rig:
        await rig.up(wanting("10.9.0.0/24"))
        await rig.deployed()
        node = rig.cluster.nodes["n1"]
        facts = node.facts.model_copy(update={"routes": ("10.9.0.0/16 tun0",)})
        await rig.put_node(node.with_facts(facts))
        await rig.until(lambda: rig.cluster.nodes["n1"].facts.routes)
        errors, warnings = await refusals(rig, wanting("10.9.0.0/24"))
        assert not errors
        assert "which node host1 routes to tun0" in " ".join(warnings)
