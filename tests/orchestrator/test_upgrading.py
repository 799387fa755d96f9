"""What `corral upgrade` decides for each node, and what the user reads of it: a table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.nodes import upgrading
from specs.node import Node, NodeCondition, NodeFacts
from specs.states import TaskState
from specs.task import Run, Task, TaskStatus

OURS = "0.2.0"


def a_node(name, version, *, address="", **more):
    facts = NodeFacts(agent_version=version)
    return Node(id=f"n-{name}", name=name, address=address, facts=facts, **more)


def a_cluster(*nodes, statuses=None, tasks=()):
    statuses = statuses or {}
    found = {node.id: NodeCondition(status="ready", reason="") for node in nodes}
    for name, (status, reason) in statuses.items():
        found[f"n-{name}"] = NodeCondition(status=status, reason=reason)
    return SimpleNamespace(
        nodes={node.id: node for node in nodes},
        conditions=found,
        tasks={task.id: task for task in tasks},
        tasks_on=lambda node: [task for task in tasks if task.node == node],
    )


def a_task(number, node, *, state=TaskState.RUNNING, finished=None):
    run = Run(number=1, pid=100 + number, started_at=1.0, finished_at=finished)
    return Task(
        id=f"t{number}", stack="s", service="web", slot=number, name=f"s-web-{number}", release=1,
        spec_hash="", node=f"n-{node}", status=TaskStatus(state=state, runs=(run,)),
    )  # fmt: skip


READY = ("ready", "")
CUT = ("down", "no answer in time")
AGENT_AWAY = ("unknown", "agent not answering, host reachable (refused)")
TOO_FAR = ("unknown", "node n2 speaks version 0 of the wire, this controller 2: more than one")


@pytest.mark.parametrize(
    ("version", "status", "remote", "act", "says"),
    [
        ("0.1.0", READY, True, "ship", "n2: 0.1.0 -> 0.2.0"),
        ("0.2.0", READY, True, "done", "n2: 0.2.0 already"),
        ("0.2.0", ("unready", "no MTU"), True, "done", "n2: 0.2.0 already"),
        ("0.1.0", ("unready", "no MTU"), True, "ship", "n2: 0.1.0 -> 0.2.0"),
        # What keeps it away may be its agent: SSH decides.
        ("0.1.0", AGENT_AWAY, True, "ship", "n2: 0.1.0 -> 0.2.0"),
        ("0.1.0", TOO_FAR, True, "ship", "n2: 0.1.0 -> 0.2.0"),
        ("0.1.0", CUT, True, "ship", "n2: 0.1.0 -> 0.2.0"),
        ("", CUT, True, "ship", "n2: 0 -> 0.2.0"),
        ("0.2.0", CUT, True, "skip", "not reached (no answer in time); it had 0.2.0"),
        ("0.2.0", AGENT_AWAY, True, "skip", "not reached (agent not answering"),
        ("0.3.0", READY, True, "skip", "0.3.0 is newer than the controller's 0.2.0"),
        ("0.3.0", CUT, True, "skip", "0.3.0 is newer than the controller's 0.2.0"),
        ("0.2.0+dirty", READY, True, "ship", "n2: 0.2.0+dirty -> 0.2.0"),
        ("0.1.0", READY, False, "skip", "its agent is renewed on that machine itself"),
        ("0.2.0", READY, False, "done", "n2: 0.2.0 already"),
        ("0.3.0", READY, False, "skip", "newer than the controller's"),
    ],
)
def test_one_node(version, status, remote, act, says):
    node = a_node("n2", version, address="root@n2" if remote else "")
    (found,) = upgrading.plan(a_cluster(node, statuses={"n2": status}), OURS)
    assert found.act == act
    assert says in found.message
    assert found.message.startswith("n2: ")
    assert bool(found.hint) == (act == "skip"), "what to do is said where nothing is done"


A, B = "0.2.0-aaaaaaaaaaaa", "0.2.0-bbbbbbbbbbbb"


@pytest.mark.parametrize(
    ("version", "has", "would", "status", "act"),
    [
        ("0.2.0", A, A, READY, "done"),
        ("0.2.0", A, B, READY, "ship"),
        ("0.2.0", A, B, CUT, "ship"),  # SSH decides, as for an older one
        ("0.2.0", A, "", READY, "done"),  # nobody knows what it would get
        ("0.2.0", "", B, READY, "done"),  # installed otherwise, or of a version that does not say
        ("0.2.0", A, A, CUT, "skip"),
        ("0.1.0", A, B, READY, "ship"),
        ("0.3.0", A, B, READY, "skip"),
    ],
)
def test_other_code_under_the_same_version_is_another_build(version, has, would, status, act):
    node = a_node("n2", version, address="root@n2")
    node = node.with_facts(node.facts.model_copy(update={"build": has}))
    cluster = a_cluster(node, statuses={"n2": status})
    (found,) = upgrading.plan(cluster, OURS, build=would)
    assert found.act == act
    said = f"another build of 0.2.0: {A} -> {B}"
    assert (said in found.message) == (act == "ship" and version == OURS)
    if status == READY:
        (foretold,) = upgrading.foretell(cluster, OURS, here=True, build=would)
        assert foretold.act == act
        assert (said in foretold.message) == (act == "ship" and version == OURS)


def test_a_node_that_leaves_is_let_go():
    node = a_node("n2", "0.1.0", address="root@n2", removing=True)
    (found,) = upgrading.plan(a_cluster(node), OURS)
    assert (found.act, found.message) == ("skip", "n2: it is being removed")


def test_the_controllers_machine_comes_first_then_names_and_only_those_selected():
    nodes = [a_node(n, "0.1.0", address=f"root@{n}") for n in ("b", "c", "a")]
    cluster = a_cluster(*nodes, a_node("z", "0.2.0"))
    assert [one.node.name for one in upgrading.plan(cluster, OURS)] == ["z", "a", "b", "c"]
    some = upgrading.plan(cluster, OURS, {"c", "b"})
    assert [one.node.name for one in some] == ["b", "c"]


@pytest.mark.parametrize(
    ("version", "status", "remote", "here", "act", "says"),
    [
        ("0.1.0", READY, True, True, "ship",
         "n2: 0.1.0 -> 0.2.0; its agent would be restarted, 2 containers that run stay"),
        ("0.1.0", CUT, True, True, "skip", "0.1.0 -> 0.2.0, but it is not reached now (no answer"),
        ("0.1.0", READY, False, True, "done",
         "0.1.0 -> 0.2.0 with the controller; 2 containers that run stay"),
        ("0.1.0", READY, False, False, "skip", "renewed on that machine itself"),
        ("0.2.0", READY, True, True, "done", "0.2.0 already"),
        ("0.2.0", CUT, True, True, "skip", "not reached"),
        ("0.3.0", READY, True, True, "skip", "newer than"),
        ("0.3.0", READY, False, True, "skip", "newer than"),
    ],
)  # fmt: skip
def test_dry_run_says_what_would_be_done(version, status, remote, here, act, says):
    node = a_node("n2", version, address="root@n2" if remote else "")
    tasks = [a_task(1, "n2"), a_task(2, "n2"), a_task(3, "n1"), a_task(4, "n2", finished=2.0),
             a_task(5, "n2", state=TaskState.FAILED)]  # fmt: skip
    cluster = a_cluster(node, statuses={"n2": status}, tasks=tasks)
    (found,) = upgrading.foretell(cluster, OURS, here=here)
    assert found.act == act
    assert says in found.message


def test_only_what_runs_is_compared():
    tasks = [a_task(1, "n2"), a_task(2, "n2", finished=3.0), a_task(3, "n1"),
             a_task(4, "n2", state=TaskState.SHUTDOWN)]  # fmt: skip
    found = upgrading.processes(a_cluster(a_node("n2", "0.1.0"), tasks=tasks), "n-n2")
    assert found == {"t1": ("s-web-1", 101)}
