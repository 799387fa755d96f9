"""A command that is to be heard from its first byte begins when somebody listens, else never."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from types import SimpleNamespace

import pytest
from aiohttp import WSMsgType

from agent import attaching
from agent.runtime.exec import ExecSession
from agent.runtime.failure import RuntimeFailure
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


class Client:
    """A client's connection: what it says is put in, what it is told is kept."""

    closed = False

    def __init__(self):
        self.says: asyncio.Queue = asyncio.Queue()
        self.told: list = []

    async def receive(self, timeout):
        return SimpleNamespace(data="{}")

    async def send_json(self, message):
        self.told.append(message)

    async def send_bytes(self, data):
        self.told.append(data)


class Mute:
    """A process' connection that nothing comes from."""

    def __init__(self, *_):
        pass

    async def run(self):
        await asyncio.Event().wait()

    next = run

    def close(self):
        pass


@pytest.mark.parametrize("runs", ["when it comes", "later", "never"])
async def test_a_signal_waits_until_the_command_is_known_to_run(node, monkeypatch, runs):
    """What it says may be heard before the node has written down that it runs."""

    async def messages(client):
        while True:
            yield SimpleNamespace(type=WSMsgType.TEXT, data=json.dumps(await client.says.get()))

    monkeypatch.setattr(attaching, "MainProcess", Mute)
    monkeypatch.setattr(attaching, "Hearing", Mute)
    monkeypatch.setattr(attaching, "messages", messages)
    go = asyncio.Event()
    start = node.containers.start

    async def slowly(task):
        await start(task)
        await go.wait()
        if runs == "never":
            raise RuntimeFailure("it was not to be")

    node.containers.start = slowly
    node.containers.bundle = lambda task: task
    await node.put(heard())
    await created(node)
    parts = SimpleNamespace(listeners=node.listeners, holdings=node.holdings)
    client = Client()
    serving = asyncio.create_task(attaching.Attaching(parts, node.containers).serve(client, "a"))
    await node.until(lambda: {"attached": True} in client.told)
    if runs == "when it comes":
        go.set()
        await node.until(lambda: node.holdings.record("a").phase is Phase.RUNNING)
    for number in (9999, 0, -1, 10**30, "x", None, int(signal.SIGINT)):  # what is none is ignored
        client.says.put_nowait({"signal": number})
    await asyncio.sleep(1)
    sent = [number for _, number in node.containers.sent]
    assert sent == ([signal.SIGINT] if runs == "when it comes" else [])
    go.set()
    if runs == "never":
        await node.until(lambda: node.holdings.record("a").phase is not Phase.CREATED)
        await asyncio.sleep(1)
        assert not node.containers.sent
    else:
        await node.until(lambda: [n for _, n in node.containers.sent] == [signal.SIGINT])
    serving.cancel()


@pytest.mark.looptime(False)
async def test_a_signal_waits_until_the_number_of_an_entered_command_is_known(tmp_path):
    program = subprocess.Popen(["sleep", "100"])
    session = ExecSession(program, tmp_path)
    session.signal(signal.SIGINT)
    (tmp_path / "pid").write_text("")  # being written
    await asyncio.sleep(0.1)
    assert program.poll() is None
    (tmp_path / "pid").write_text(str(program.pid))
    async with asyncio.timeout(60):
        while program.poll() is None:
            await asyncio.sleep(0.02)
    assert program.wait() == -signal.SIGINT
