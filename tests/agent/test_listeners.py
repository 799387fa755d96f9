"""A command that is to be heard from its first byte begins when somebody listens, else never."""

from __future__ import annotations

import asyncio

import pytest

from agent.tasks.record import Phase
from agent.tasks.runner import LISTENER
from specs.stack import RestartPolicy
from specs.states import Desired, TaskState
from tests.agent.test_worker import Node, named

pytestmark = pytest.mark.looptime


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path)
    yield made
    if made.running is not None:
        await made.kill()


def heard(name="a", **update):
    return named(name, policy=RestartPolicy(condition="none")).model_copy(
        update={"attach": True, **update}
    )


async def created(node, name="a"):
    await node.until(lambda: node.holdings.record(name).phase is Phase.CREATED)


async def test_it_waits_and_begins_with_the_listener_and_nobody_waits_for_it(node):
    others = [named(f"o{n}") for n in range(6)]  # more than are made at once
    await node.put(heard(), heard("b"), heard("c"), heard("d"), heard("e"), *others)
    await node.until(lambda: all(node.status(one.id).ready for one in others))
    await created(node)
    assert node.containers.states["a"] == "created"
    node.listeners.arrived("a").set()
    await node.until(lambda: node.status("a").state is TaskState.RUNNING)
    assert node.holdings.record("b").phase is Phase.CREATED


@pytest.mark.parametrize(
    "way", ["nobody comes", "removed", "shutdown", "agent", "agent, then comes"]
)
async def test_what_becomes_of_one_that_waits(node, way):
    await node.put(heard())
    await created(node)
    begun = []
    start = node.containers.start

    async def noted(task):
        begun.append(task)
        await start(task)

    node.containers.start = noted
    if way == "nobody comes":
        await asyncio.sleep(LISTENER - 1)
        assert node.holdings.record("a").phase is Phase.CREATED
        await node.until(lambda: node.status("a").state is TaskState.REJECTED)
        assert "went before it began" in node.holdings.record("a").run.reason
    elif way == "removed":
        await node.put(heard(desired=Desired.REMOVED))
        await node.until(lambda: "a" in node.reports.full().gone)
    elif way == "shutdown":
        await node.put(heard(desired=Desired.SHUTDOWN))
        await node.until(lambda: node.status("a").state is TaskState.SHUTDOWN)
    else:
        await node.kill()
        await node.start()
        await asyncio.sleep(1)
        assert node.holdings.record("a").phase is Phase.CREATED, "it waits on"
        if way == "agent":
            await node.until(lambda: node.status("a").state is TaskState.REJECTED)
        else:
            node.listeners.arrived("a").set()
            await node.until(lambda: node.status("a").state is TaskState.RUNNING)
    assert begun == (["a"] if way == "agent, then comes" else [])
