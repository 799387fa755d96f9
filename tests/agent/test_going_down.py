"""A machine that goes down tells every process at once: those ends are not the tasks' own."""

from __future__ import annotations

import asyncio

import pytest

from agent.tasks.runner import SWEEP
from specs.node import NodeFacts
from specs.stack import RestartPolicy, TaskSpec
from specs.states import Desired
from specs.wire import Assignment, Instructions, NodeSelf, Objects, Stamp, TaskNetwork
from tests.fakes.simulator import Behaviour, SimulatedNode

pytestmark = pytest.mark.looptime

ME = NodeSelf(node="n1", name="host1")


def task(policy, **keys):
    return Assignment(
        id="t1",
        stack="s",
        service="web",
        slot=1,
        name="s-web-1",
        spec=TaskSpec(image="i", restart=RestartPolicy(condition=policy), **keys),
        desired=Desired.RUNNING,
        networks=(TaskNetwork(network="n", address="10.210.16.66"),),
    )


async def a_node(tmp_path, assignment):
    """A node on which the task runs."""
    node = SimulatedNode(tmp_path, lambda _: Behaviour(), facts=NodeFacts())
    await node.boot()
    stamp = Stamp(cluster="c", epoch=1, generation=1)
    objects = Objects(tasks={assignment.id: assignment})
    await node.instruct(Instructions(stamp=stamp, me=ME, base=None, put=objects))
    async with asyncio.timeout(10):
        while not (node.records and node.records["t1"].ready):
            await asyncio.sleep(0.01)
    return node


async def ends(node, code, *, told):
    """The container ends; ``told`` seconds later the agent has its own signal, if at all."""
    if told is not None and told <= 0:
        node.told_to_end = True
    process = node.containers.alive["t1"]
    node.containers.end(process.pid, code)
    await asyncio.sleep(max(told or 0.0, 0.0))
    node.told_to_end = told is not None
    await asyncio.sleep(0.5)


RUNS_AGAIN = "running"


@pytest.mark.parametrize(
    ("policy", "code", "told", "next_boot", "state"),
    [
        # Told before it, in the same moment, just after it: the machine's end, whatever the code.
        ("none", 143, -1.0, True, RUNS_AGAIN),
        ("none", 143, 0.0, True, RUNS_AGAIN),
        ("none", 0, 0.0, True, RUNS_AGAIN),
        ("none", None, 0.0, True, RUNS_AGAIN),
        ("none", 0, SWEEP / 2, True, RUNS_AGAIN),
        ("on-failure", 0, SWEEP / 2, True, RUNS_AGAIN),
        ("on-failure", 143, SWEEP / 2, True, RUNS_AGAIN),
        ("any", 143, SWEEP / 2, True, RUNS_AGAIN),
        # It had ended by itself before the machine went down: that was its own end.
        ("none", 3, 0.3, True, "failed"),
        ("none", 0, 0.3, True, "complete"),
        ("on-failure", 0, 0.3, True, "complete"),
        ("none", 3, None, True, "failed"),
        # Only the agent was restarted: the next one judges, and nothing is lost.
        ("none", 3, 0.0, False, "failed"),
        ("none", 0, SWEEP / 2, False, "complete"),
        ("any", 3, 0.0, False, RUNS_AGAIN),
    ],
)
async def test_whose_end_it_was(tmp_path, policy, code, told, next_boot, state):
    node = await a_node(tmp_path, task(policy))
    await ends(node, code, told=told)
    if next_boot:
        await node.power_off(remembers=True)
    else:
        await node.halt()
    await node.boot()
    await asyncio.sleep(5)
    record = node.records["t1"]
    assert record.state == state
    if state == RUNS_AGAIN:
        assert record.ready
        assert record.number == 2
        assert record.restarts == (0 if next_boot else 1), "the machine's end is no crash"
        assert record.runs[0].cut_off == next_boot
    await node.halt()


@pytest.mark.parametrize(("keep", "state"), [("keep", "failed"), ("run", RUNS_AGAIN)])
async def test_what_is_to_be_kept_as_it_was_is(tmp_path, keep, state):
    node = await a_node(tmp_path, task("any", on_reboot=keep))
    await ends(node, 0, told=SWEEP / 2)
    await node.power_off(remembers=True)
    await node.boot()
    await asyncio.sleep(1)
    assert node.records["t1"].state == state
    await node.halt()


@pytest.mark.parametrize(("code", "state"), [(0, "complete"), (3, "failed")])
async def test_what_does_not_run_again_either_way_is_judged_at_once(tmp_path, code, state):
    """Whoever waits for a one-off would wait for nothing: its own word is as good."""
    node = await a_node(tmp_path, task("none", on_reboot="keep"))
    node.containers.end(node.containers.alive["t1"].pid, code)
    await asyncio.sleep(SWEEP / 2)
    assert node.records["t1"].state == state
    node.told_to_end = True
    await node.power_off(remembers=True)
    await node.boot()
    await asyncio.sleep(1)
    assert node.records["t1"].state == state
    await node.halt()


async def test_what_was_stopped_meanwhile_stays_stopped(tmp_path):
    node = await a_node(tmp_path, task("any"))
    wanted = task("any").model_copy(update={"desired": Desired.SHUTDOWN})
    stamp = Stamp(cluster="c", epoch=1, generation=2)
    objects = Objects(tasks={"t1": wanted})
    node.told_to_end = True
    await node.instruct(Instructions(stamp=stamp, me=ME, base=None, put=objects))
    await asyncio.sleep(1)
    await node.power_off(remembers=True)
    await node.boot()
    await asyncio.sleep(1)
    assert node.records["t1"].state == "shutdown"
    await node.halt()


async def test_an_end_of_its_own_is_judged_almost_at_once(tmp_path):
    node = await a_node(tmp_path, task("none"))
    node.containers.end(node.containers.alive["t1"].pid, 3)
    await asyncio.sleep(SWEEP * 2)
    assert node.records["t1"].state == "failed"
    await node.halt()
