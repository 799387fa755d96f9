"""What `up` says of images that take a while: bytes, under every service that waits for them."""

from __future__ import annotations

import pytest

from orchestrator.control.telling.words import words_of
from specs.states import TaskState
from specs.task import TaskStatus
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


@pytest.mark.parametrize(
    ("arrived", "text"),
    [
        ((0, 0), "preparing: getting image x:1"),
        ((MIB, 4 * MIB), "preparing: getting image x:1: 1 MiB of 4 MiB"),
        ((4 * MIB, 4 * MIB), "preparing: getting image x:1: 4 MiB of 4 MiB"),
    ],
)
async def test_a_task_tells_how_far_its_image_is_and_keeps_its_reason(arrived, text):
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        (task,) = rig.cluster.tasks.values()
        status = TaskStatus(
            state=TaskState.PREPARING,
            reason="getting image x:1",
            doing="image",
            arrived=arrived,
        )
        words = words_of(rig.cluster, task.model_copy(update={"status": status}))
        assert (words.text, words.reason) == (text, "getting image x:1")
