"""A controller killed in the middle of what one pass writes: the next one goes on from there."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from specs.kit.failpoints import watched
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
COUNT = 200  # tasks: more than one transaction takes


@pytest.mark.parametrize("time", [1, 2])
async def test_half_of_a_pass_is_followed_by_the_rest(time):
    left = time
    reached = asyncio.Event()

    def look(name):
        nonlocal left
        if name == "pass.mid":
            left -= 1
            if left == 0:
                reached.set()
                raise asyncio.CancelledError  # the loop ends here, as by a kill

    async with Rig(nodes=3) as rig:
        with watched(look):
            await rig.up(project(web=replicas(COUNT)))
            await asyncio.wait_for(reached.wait(), 300)
        await rig.restart_controller()
        await rig.deployed(within=300)
        await rig.until(lambda: len(rig.ready("web")) == COUNT, within=300)
        assert len(rig.tasks("web")) == COUNT, "law N2: none twice, none too many"
        slots = Counter(task.slot for task in rig.tasks("web"))
        assert set(slots.values()) == {1}
        addresses = [one for task in rig.tasks("web") for one in task.addresses.values()]
        assert len(addresses) == len(set(addresses)), "law: an address is given once"
