"""Ports that processes of the nodes hold: asked when a release is made."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

PORT = {"ports": [{"target": 80, "published": "9000", "protocol": "tcp", "mode": "ingress"}]}
HELD = ("9000/tcp",)


@pytest.mark.parametrize(
    ("reported", "asked", "refused", "warned"),
    [
        pytest.param((), {"n1": HELD, "n2": HELD}, True, False, id="taken a moment ago"),
        pytest.param(HELD, {"n1": (), "n2": ()}, False, False, id="free since a moment"),
        pytest.param(HELD, {}, True, False, id="nobody answers: the report has to do"),
        pytest.param((), {}, False, False, id="nobody answers, nothing reported"),
        pytest.param((), {"n1": HELD}, False, True, id="held on one of two"),
        pytest.param(HELD, {"n1": ()}, False, True, id="one is free, the other does not answer"),
    ],
)
async def test_a_port_is_refused_by_what_is_held_now(reported, asked, refused, warned):
    async with Rig(nodes=2) as rig:
        for name in ("n1", "n2"):
            node = rig.cluster.nodes[name]
            facts = node.facts.model_copy(update={"listening": reported})
            await rig.put_node(node.model_copy(update={"facts": facts}))
        await rig.until(lambda: rig.cluster.nodes["n2"].facts.listening == reported)
        rig.agents.listens = asked
        spec = project(web=PORT)
        if refused:
            with pytest.raises(Invalid, match="held by a process on host1, host2"):
                await rig.control.deploy("app", rig.request(spec, "app"))
            return
        row = await rig.control.deploy("app", rig.request(spec, "app"))
        told = [warning.message for warning in row.warnings if "is held by" in warning.message]
        assert bool(told) == warned


@pytest.mark.parametrize(
    ("stack", "asks", "waits"),
    [
        pytest.param("app", True, True, id="its nodes are being asked"),
        pytest.param("app", False, False, id="nobody has to be asked: it is there at once"),
        pytest.param("other", True, False, id="another stack's"),
        pytest.param("", True, False, id="nothing was asked for"),
    ],
)
async def test_what_was_deployed_before_is_there_for_who_asks_after_it(stack, asks, waits):
    """As `corral down` does after an `up` that was killed while it waited for its answer."""
    async with Rig(nodes=1) as rig:
        answer = asyncio.Event()

        async def listening(_node):
            await answer.wait()
            return ()

        rig.agents.listening = listening
        spec = project(web=PORT if asks else {})
        request = rig.request(spec, stack or "app")
        making = [asyncio.create_task(rig.control.deploy(stack, request))] if stack else []
        await asyncio.sleep(0.1)
        after = asyncio.create_task(rig.control.arrived("app"))
        await asyncio.sleep(0.1)
        assert after.done() is not waits
        answer.set()
        await after
        assert ("app" in rig.cluster.stacks) == (stack == "app")
        await asyncio.gather(*making)


async def test_a_refused_deploy_is_not_waited_for_any_more():
    async with Rig(nodes=1) as rig:
        rig.agents.listens = {"n1": HELD}
        with pytest.raises(Invalid):
            await rig.control.deploy("app", rig.request(project(web=PORT), "app"))
        await rig.control.arrived("app")
        assert "app" not in rig.cluster.stacks
