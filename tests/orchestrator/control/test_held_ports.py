"""Ports that processes of the nodes hold: asked when a release is made."""

from __future__ import annotations

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
