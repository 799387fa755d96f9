"""What the figures of services count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.control.figures import figures
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

VOLUME = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}


def ready(rig):
    found = figures(rig.cluster, SimpleNamespace(id="c1", epoch=1), version="1")
    (family,) = [one for one in found if one.name == "corral_service_ready"]
    return {labels["service"]: value for _, labels, value in family.samples}


async def test_what_a_down_node_said_last_is_not_ready():
    async with Rig(nodes=2) as rig:
        await rig.up(project(db=VOLUME, top={"volumes": {"data": {"name": "app_data"}}}))
        await rig.deployed()
        assert ready(rig) == {"db": 1}
        (task,) = rig.ready("db")
        await rig.nodes[task.node].crash()
        await rig.until(lambda: rig.cluster.conditions[task.node].status == "down")
        assert task.status.ready, "as it was heard last"
        assert ready(rig) == {"db": 0}
