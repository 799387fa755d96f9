"""What `up` says of images that take a while: bytes, under every service that waits for them."""

from __future__ import annotations

import pytest

from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
MIB = 1 << 20


@pytest.mark.parametrize(
    ("delay", "transfer", "said"),
    [
        (0.5, (5 * MIB, 40 * MIB), set()),  # it was quick: nobody wants to know
        (1.2, (5 * MIB, 40 * MIB), {"image big:1: 5 MiB of 40 MiB"}),
        (1.2, (0, 3 * 1024 * MIB), {"image big:1: 0 B of 3 GiB"}),
        (5.0, (0, 0), set()),  # it is there, or the registry has not answered
        (30.0, (MIB, 2 * MIB), {"image big:1: 1 MiB of 2 MiB"}),
    ],
)
async def test_bytes_are_told_under_each_service(delay, transfer, said):
    async with Rig() as rig:
        rig.agents.delay = delay
        rig.agents.transfers = {"big:1": transfer}
        image = {"image": "big:1"}
        await rig.up(project(web=image, worker=image, small={}))
        lines = [line async for line in rig.control.progress("app", None)]
        told = [line for line in lines if line.kind == "build"]
        for name in ("web", "worker"):
            assert {line.message for line in told if line.service == name} == said
        assert not [line for line in told if line.service == "small"]
        assert all(line.doing == "image" for line in told)
        assert len(told) <= 2 * 8, "ever more rarely"
