"""What can exist only once: a fixed address, a fixed name, and what is refused because of them."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

TOP = {
    "networks": {
        "default": {"name": "app_d", "ipam": {"config": [{"subnet": "172.30.0.0/24"}]}},
    }
}
ADDRESS = {"networks": {"default": {"ipv4_address": "172.30.0.66"}}}
NAME = {"container_name": "only"}
WORDS = {"ipv4_address": ADDRESS, "container_name": NAME}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("how", ["replicas", "global", "scale"])
async def test_several_of_what_exists_once_are_refused(word, how):
    web = dict(WORDS[word])
    more = {}
    if how == "scale":
        more["scale"] = {"web": 2}
    else:
        web["deploy"] = {"replicas": 2} if how == "replicas" else {"mode": "global"}
    async with Rig() as rig:
        with pytest.raises(Invalid) as caught:
            await rig.up(project(web=web, top=TOP), **more)
        told = [p.message for p in caught.value.problems if p.code == "not-scalable"]
        assert len(told) == 1
        assert word in told[0]
        assert "app" not in rig.cluster.stacks


@pytest.mark.parametrize("word", WORDS)
async def test_one_of_it_is_fine_and_stays_one(word):
    async with Rig() as rig:
        await rig.up(project(web=dict(WORDS[word]), top=TOP))
        await rig.deployed()
        with pytest.raises(Invalid, match=r"fixed name or address"):
            await rig.control.scale("app", {"web": 2})
