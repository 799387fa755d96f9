"""Agents of a thousand-node bench tell a controller what the agent's own logic tells it.

Each test is held against both: ``FakeAgent``, which is the agent's worker behind a socket, and the
light one of ``tests/fakes/light.py``. Where they differ, the bench measures something else.
"""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest

from orchestrator.dispatch.agent import AgentClient
from orchestrator.errors import Unavailable
from specs.stack import TaskSpec
from specs.states import Desired, TaskState
from specs.wire import (
    PROTOCOL,
    Acknowledged,
    Assignment,
    Instructions,
    NodeSelf,
    Objects,
    Refused,
    ResolveImage,
    Stamp,
)
from tests.fakes.agent import FakeAgent
from tests.fakes.light import Fleet

ME = NodeSelf(node="n1", name="n1")


@pytest.fixture(params=["agent", "light"])
async def node(request, tmp_path):
    """A client of the node, and what ends that."""
    async with contextlib.AsyncExitStack() as stack:
        socket = tmp_path / "n1.sock"
        if request.param == "agent":
            agent = await stack.enter_async_context(FakeAgent(socket, heartbeat=0.1))
            kill = agent.stop
        else:
            fleet = await stack.enter_async_context(Fleet(tmp_path, ["n1"]))

            async def kill() -> None:
                fleet.kill("n1")

        connector = aiohttp.UnixConnector(path=str(socket))
        http = await stack.enter_async_context(
            aiohttp.ClientSession("http://agent", connector=connector)
        )
        yield AgentClient(http, "n1"), kill


def told(generation, *tasks, base=None, epoch=1, cluster="c1", remove=None):
    return Instructions(
        stamp=Stamp(cluster=cluster, epoch=epoch, generation=generation),
        me=ME,
        base=base,
        put=Objects(tasks={task.id: task for task in tasks}),
        remove=remove or {},
        protocol=PROTOCOL,
        revision=generation,
    )


def task(number=1, desired=Desired.RUNNING):
    return Assignment(
        id=f"t{number}",
        stack="app",
        service="web",
        slot=number,
        name=f"app-web-{number}",
        spec=TaskSpec(image="web"),
        desired=desired,
    )


async def until(reports, found, check):
    """Read report lines into ``found`` until the check holds."""
    async with asyncio.timeout(60):
        while not check():
            line = await anext(reports)
            found.append(line)


def state(found, name):
    said = [line.tasks[name] for line in found if name in line.tasks]
    return said[-1].state if said else None


async def test_it_says_who_it_is(node):
    client, _ = node
    before = await client.hello()
    assert (before.stamp, before.node, before.protocol) == (None, "", PROTOCOL)
    assert before.facts.wire == PROTOCOL
    assert await client.instruct(told(3)) == Acknowledged(generation=3)
    after = await client.hello()
    assert (after.stamp, after.node, after.revision) == (
        Stamp(cluster="c1", epoch=1, generation=3),
        "n1",
        3,
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (told(4, base=3), None),
        (told(3, base=2), None),  # the last one once more
        (told(5, base=4), "base"),
        (told(2, base=1), "base"),
        (told(2), "base"),
        (told(9), None),
        (told(1, epoch=2), None),
        (told(4, base=3, epoch=2), "base"),
        (told(9, epoch=0), "epoch"),
        (told(9, cluster="c2"), "cluster"),
        (told(4, base=3, cluster="c2"), "cluster"),
    ],
)
async def test_whom_it_obeys(node, asked, reason):
    client, _ = node
    first = await client.instruct(told(1, base=0))
    assert isinstance(first, Refused), "it holds nothing yet"
    assert first.reason == "base"
    await client.instruct(told(3))
    answer = await client.instruct(asked)
    if reason is None:
        assert answer == Acknowledged(generation=asked.stamp.generation)
    else:
        assert isinstance(answer, Refused)
        assert (answer.reason, answer.seen) == (reason, told(3).stamp)


async def test_a_task_from_wanted_to_gone(node):
    client, _ = node
    await client.instruct(told(1, task(1), task(2, Desired.PREPARED)))
    found = []
    async with contextlib.aclosing(client.reports(silence=60)) as reports:
        await until(reports, found, lambda: state(found, "t1") is TaskState.RUNNING)
        assert found[0].full
        assert not any(line.full for line in found[1:])
        assert found[-1].tasks["t1"].ready
        assert found[-1].tasks["t1"].run.alive
        await until(reports, found, lambda: state(found, "t2") is TaskState.PREPARED)
        await until(reports, found, lambda: found[-1].applied == 1)

        await client.instruct(told(2, task(2), task(1, Desired.SHUTDOWN), base=1))
        await until(reports, found, lambda: state(found, "t1") is TaskState.SHUTDOWN)
        await until(reports, found, lambda: state(found, "t2") is TaskState.RUNNING)
        await until(reports, found, lambda: found[-1].applied == 2)

        await client.instruct(told(3, task(1, Desired.REMOVED), task(2, Desired.REMOVED), base=2))
        gone = set()
        await until(reports, found, lambda: gone.update(found[-1].gone) or gone >= {"t1", "t2"})
        await client.instruct(told(4, base=3, remove={"tasks": ("t1", "t2")}))
        await until(reports, found, lambda: found[-1].applied == 4)
    async with contextlib.aclosing(client.reports(silence=60)) as reports:
        again = await anext(reports)
    assert (again.full, again.tasks) == (True, {})


async def test_what_a_full_set_leaves_out_goes(node):
    client, _ = node
    await client.instruct(told(1, task(1), task(2)))
    found = []
    async with contextlib.aclosing(client.reports(silence=60)) as reports:
        await until(reports, found, lambda: state(found, "t1") is TaskState.RUNNING)
        await client.instruct(told(2, task(2)))
        await until(reports, found, lambda: found[-1].gone == ("t1",))


async def test_it_is_heard_while_nothing_happens_and_not_once_it_is_dead(node):
    client, kill = node
    await client.instruct(told(1))
    async with contextlib.aclosing(client.reports(silence=60, heartbeat=0.5)) as reports:
        assert (await anext(reports)).full
        for _ in range(3):
            beat = await anext(reports)
        assert (beat.applied, beat.tasks, beat.gone) == (1, {}, ())
        await kill()
        with contextlib.suppress(Unavailable):
            async with asyncio.timeout(60):
                async for _ in reports:
                    pass
    with pytest.raises(Unavailable):
        await client.hello()


async def test_an_image_has_a_digest(node):
    client, _ = node
    found = await client.resolve_image(ResolveImage(image="web:1"))
    assert found.image == "web:1"
    assert found.digest.startswith("sha256:")
