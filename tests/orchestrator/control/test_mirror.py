"""Questions with one answer for everybody: which network, which ports, what serves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.control.mirror.network_names import name_holder, network_behind
from orchestrator.control.mirror.ports import held_host_ports
from orchestrator.control.mirror.records import NetworkRecord
from orchestrator.control.mirror.serving import serves, serving
from scheduler.view import HostPort
from specs.node import Node, NodeCondition
from specs.stack import NetworkSpec, Port, TaskSpec
from specs.states import Desired, TaskState
from specs.task import Task, TaskStatus
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig


def a_network(number: int, stack: str = "app", **more) -> NetworkRecord:
    return NetworkRecord(id=f"n{number}", name="net", stack=stack, key="net", pool="", **more)


@pytest.mark.parametrize(
    ("networks", "external", "found"),
    [
        ([a_network(1)], False, "n1"),
        ([a_network(1, retired=True)], False, "n1"),  # it comes back and takes it over
        ([a_network(1, retired=True), a_network(2)], False, "n2"),
        ([a_network(1, "other")], False, None),
        ([a_network(1, "other"), a_network(2)], False, "n2"),
        ([a_network(1, subnets=("10.9.0.0/24",))], False, None),  # as the file had it before
        ([a_network(1, "other")], True, "n1"),
        ([a_network(1, "other", retired=True)], True, None),
        ([a_network(1, "other", subnets=("10.9.0.0/24",))], True, "n1"),
    ],
)
def test_which_network_a_stack_means(networks, external, found):
    for order in (networks, networks[::-1]):
        network = network_behind(order, "app", NetworkSpec(name="net", external=external))
        assert (network.id if network is not None else None) == found


def test_a_name_is_held_by_another_stack_only_while_that_wants_it():
    theirs = a_network(1, "other")
    assert name_holder([theirs, a_network(2)], "app", "net") is theirs
    assert name_holder([a_network(2)], "app", "net") is None
    assert name_holder([a_network(1, "other", retired=True)], "app", "net") is None


@pytest.mark.looptime
async def test_a_name_another_stack_holds_is_refused_and_never_joined():
    net = {"top": {"networks": {"default": {"name": "shared"}}}}
    async with Rig() as rig:
        await rig.up(project(one={}, **net), stack="a")
        await rig.deployed("a")
        await rig.up(project(two={}, **net), stack="b")
        end = await rig.end_of("b")
        assert "network shared belongs to stack a" in end.message
        assert not any(t.addresses for t in rig.tasks(stack="b"))


def test_a_placed_task_holds_its_port_on_the_address_it_asked_for():
    spec = TaskSpec(
        image="web",
        ports=(
            Port(target=80, published=8080, host_ip="192.0.2.1", mode="host"),
            Port(target=81, mode="host"),
        ),
    )
    chosen = {"80/tcp": 8080, "81/tcp": 30000}
    assert set(held_host_ports(spec, chosen)) == {
        HostPort(8080, "tcp", "192.0.2.1"),
        HostPort(30000, "tcp"),
    }
    # Its release is not kept: nobody knows the address any more, so all of them count.
    assert set(held_host_ports(None, {"80/udp": 8080})) == {HostPort(8080, "udp")}


CLUSTER = SimpleNamespace(
    nodes={name: Node(id=name, name=name) for name in ("up", "silent", "down")},
    conditions={
        "up": NodeCondition(status="ready"),
        "silent": NodeCondition(status="unknown"),
        "down": NodeCondition(status="down"),
    },
)


def a_task(node: str | None = "up", state: TaskState = TaskState.RUNNING, **more) -> Task:
    ready = more.pop("ready", state is TaskState.RUNNING)
    wished = {"desired": Desired.RUNNING, "slot": 1, **more}
    status = TaskStatus(state=state, ready=ready)
    fixed = {"id": "t", "stack": "app", "service": "web", "name": "app-web-1", "release": 1}
    return Task(**fixed, spec_hash="h", node=node, status=status, **wished)


@pytest.mark.parametrize(
    ("task", "good"),
    [
        (a_task(), True),
        (a_task(ready=False), False),
        (a_task("silent"), True),  # it was heard of a moment ago and may well serve on
        (a_task("down"), False),
        (a_task("left"), False),  # its node is no member any more
        (a_task(leaving=True), False),
        (a_task(desired=Desired.SHUTDOWN), False),
        (a_task(state=TaskState.COMPLETE), True),
        (a_task("down", state=TaskState.COMPLETE), True),  # it did its work
        (a_task(state=TaskState.COMPLETE, desired=Desired.SHUTDOWN), True),  # before the stop
        (a_task(state=TaskState.COMPLETE, desired=Desired.REMOVED), False),
        (a_task(state=TaskState.COMPLETE, leaving=True), False),
        (a_task(state=TaskState.FAILED, ready=True), False),
        (a_task(None, state=TaskState.PENDING), False),
    ],
)
def test_what_counts_as_serving(task, good):
    assert serves(CLUSTER, task) is good


def test_two_tasks_of_one_slot_are_one_that_serves():
    assert serving(CLUSTER, [a_task(), a_task(), a_task(slot=2), a_task(slot=3, ready=False)]) == 2
